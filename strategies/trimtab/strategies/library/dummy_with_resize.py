"""The dummy strategy with resize: six actions on fixed names, for integration tests of clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from trimtab.platform.contracts import Context
from trimtab.platform.proposal import Act, Candidate
from trimtab.platform.snapshot import Need, Snapshot

FIRST, SECOND = "b199db0c-1408-4d52-b5a5-5ca14de0ff36", "8db1b3c1-7938-4c34-8c03-6de14b874f8f"
MOVE = {"migration_type": "live", "source_node": "compute2", "destination_node": "compute3"}


class Parameters(BaseModel):
    """What an audit may set; none of it has an effect, as in Watcher."""

    model_config = ConfigDict(extra="forbid", strict=True)

    para1: float = Field(3.2, ge=1.0, le=10.2, description="number parameter example")
    para2: str = Field("hello", description="string parameter example")


class DummyWithResize:
    """Says hello twice, sleeps, migrates two instances and resizes one, whether they exist or not."""

    name: ClassVar[str] = "dummy_with_resize"
    display_name: ClassVar[str] = "Dummy strategy with resize"
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
        """One candidate of six actions, whatever the cloud looks like."""
        steps = (
            Act("nop", None, {"message": "hello World"}),
            Act("nop", None, {"message": "Welcome"}),
            Act("sleep", None, {"duration": 5.0}),
            Act("migrate", FIRST, MOVE),
            Act("migrate", SECOND, MOVE),
            Act("resize", SECOND, {"flavor": "x2"}),
        )
        return (Candidate(steps, because="fixed actions for integration tests", planner="weight"),)
