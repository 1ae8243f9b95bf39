"""The dummy strategy with scorers: shows how a strategy asks scoring engines, on telemetry drawn by lot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trimtab.platform.contracts import Context
from trimtab.platform.proposal import Act, Candidate
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.scoring import engines

MIB, GIB = 2**20, 2**30
# Bounds of the telemetry in the order of dummy_scorer's features.
LOW = (0, 4 * GIB, GIB, 0, 0, 0, 0, 0, 0)
HIGH = (100, 4 * GIB, 4 * GIB, 2000, 2000, 200 * MIB, 200 * MIB, 20 * MIB, 10 * MIB)


class Parameters(BaseModel):
    """What an audit may set; none of it has an effect, as in Watcher."""

    model_config = ConfigDict(extra="forbid", strict=True)

    param1: float = Field(3.2, ge=1.0, le=10.2, description="number parameter example")
    param2: str = Field("hello", description="string parameter example")


class DummyWithScorer:
    """Says what two scoring engines made of random numbers, and sleeps; the same seed draws the same numbers."""

    name: ClassVar[str] = "dummy_with_scorer"
    display_name: ClassVar[str] = "Dummy Strategy using sample Scoring Engines"
    goal: ClassVar[str] = "dummy"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:  # noqa: ARG002 - the contract's signature
        """Nothing is measured."""
        return ()

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """The defaults only."""
        return ({},)

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate of four actions, whatever the cloud looks like."""
        random, known = context.random(), engines()
        classifier, average = known["dummy_scorer"], known["dummy_avg_scorer"]
        telemetry = random.integers(LOW, np.array(HIGH) + 1).tolist()
        (workload, *_) = json.loads(classifier.calculate_score(json.dumps(telemetry)))
        kind = json.loads(classifier.metainfo)["workloads"][workload]
        numbers = random.choice(1000, 20, replace=False).tolist()
        (mean,) = json.loads(average.calculate_score(json.dumps(numbers)))
        steps = (
            Act("nop", None, {"message": "Hello from Dummy Strategy with Scorer!"}),
            Act("nop", None, {"message": f"Detected Workload: {kind}"}),
            Act("nop", None, {"message": f"AVG Scorer result: {mean}"}),
            Act("sleep", None, {"duration": 5.0}),
        )
        return (Candidate(steps, because="shows how scoring engines are asked", planner="weight"),)
