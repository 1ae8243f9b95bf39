"""Workload balance: load is taken off hosts at or above a threshold and given to the least loaded ones below it.

Watcher's strategy of this name made sound. A host's load is that of its instances, in shares of its vCPUs or memory;
the average that a host is compared with is the cluster's share times the host's size. One migration unless
`max_migrations` says more; when the best instance finds no receiver the next one, and the next host, are tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator
from pydantic import Field as Option

from trimtab.platform.contracts import Context
from trimtab.platform.model import MEMORY, VCPU, InstanceState
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.proposal import Candidate, Migrate
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.feasibility import field_of, used_of
from trimtab.strategies.loads import RUNNING, note, note_instances, where_it_is
from trimtab.strategies.receiving import even_out
from trimtab.strategies.telling import by_move, share

METRICS = ("instance_cpu_usage", "instance_ram_usage")


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    metrics: str = Option(
        "instance_cpu_usage",
        description="Workload balance based on metrics: cpu or ram utilization",
        json_schema_extra={"choice": list(METRICS)},
    )
    threshold: float = Option(25.0, description="workload threshold for migration")
    period: float = Option(300, description="aggregate time period of ceilometer")
    granularity: float = Option(
        300, description="The time between two measures in an aggregated timeseries of a metric."
    )
    max_migrations: int | None = Option(
        None, ge=0, description="The plan holds at most so many migrations. Left out: one."
    )

    @field_validator("metrics")
    @classmethod
    def _known(cls, given: str) -> str:
        if given not in METRICS:
            raise ValueError(f"load cannot be balanced by {given!r}: use {' or '.join(METRICS)}")
        return given


class WorkloadBalance:
    """Load off the hosts that have most."""

    name: ClassVar[str] = "workload_balance"
    display_name: ClassVar[str] = "Workload Balance Migration Strategy"
    goal: ClassVar[str] = "workload_balancing"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:
        """The metric asked for, of instances."""
        return (Need(parameters.metrics, "instance", "mean", round(parameters.period), round(parameters.granularity)),)

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Watcher's defaults, then many moves at several thresholds, then memory."""
        return (
            {},
            {"max_migrations": 200},
            {"threshold": 50.0, "max_migrations": 200},
            {"threshold": 75.0, "max_migrations": 200},
            {"metrics": "instance_ram_usage", "threshold": 50.0, "max_migrations": 200},
        )

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate; it has no step when no host is at or above the threshold or nothing can be moved."""
        model = snapshot.model
        value = snapshot.metric(self.needs(parameters)[0])
        by_cpu = parameters.metrics == "instance_cpu_usage"
        amount = np.maximum(value, 0.0) * (model.demand[:, VCPU] / 100.0 if by_cpu else 1.0)
        known = np.isfinite(amount)
        amount = np.where(known, amount, 0.0)
        size = model.total[:, VCPU if by_cpu else MEMORY].copy()
        part = model.usable & (size > 0)
        threshold = parameters.threshold / 100.0
        # Strictly below the threshold: room is compared with a tolerance.
        below = threshold * size - 2 * ROUNDING
        field = field_of(
            model,
            np.concatenate([model.capacity, below[:, None]], axis=1),
            np.concatenate([model.demand, amount[:, None]], axis=1),
        )
        candidates = model.movable & (model.state == InstanceState.ACTIVE) & where_it_is(part, model.host_of)
        candidates[list(snapshot.failed_before)] = False
        used = used_of(field, model.host_of)
        load = used[:, -1].copy()
        before = load.copy()
        most = 1 if parameters.max_migrations is None else parameters.max_migrations
        moves = even_out(
            field, model.host_of.copy(), used, part, load, size, amount, candidates & known, threshold, most
        )
        now = before.copy()

        def told(instance: int, source: int, host: int) -> str:
            there, here = share(now[source], size[source]), share(now[host], size[host])
            now[source] -= amount[instance]
            now[host] += amount[instance]
            return (
                f"{model.host_name(source)} is at {there:.1f} % ({parameters.metrics}), and gives at "
                f"{parameters.threshold:g} %: the highest first; {model.host_name(host)}, at {here:.1f} %, is the "
                f"least loaded that has room and stays below: at {share(now[host], size[host]):.1f} %"
            )

        reasons = by_move(model, moves, told)
        over = part & (np.divide(before, size, out=np.zeros_like(size), where=size > 0) >= threshold)
        unknown = RUNNING[model.state] & where_it_is(part, model.host_of) & ~known
        indicators: dict[str, float] = {"instance_migrations_count": len(moves), "instances_count": model.instances}
        if part.any():
            indicators["standard_deviation_before_audit"] = float((before[part] / size[part]).std())
            indicators["standard_deviation_after_audit"] = float((load[part] / size[part]).std())
        return (
            Candidate(
                tuple(Migrate(instance, host, live=True) for instance, host in moves.tolist()),
                because=f"{int(over.sum())} hosts are at or above {parameters.threshold:g} % "
                f"({parameters.metrics}); {len(moves)} migrations take load off them",
                indicators=indicators,
                reasons=reasons,
                notes=(
                    *note(
                        model.usable & ~part,
                        model.host_names,
                        "{count} hosts without vCPUs or memory of their own are left out",
                    ),
                    *note_instances(
                        model, unknown, "{count} instances without measurement count as idle and stay where they are"
                    ),
                ),
            ),
        )
