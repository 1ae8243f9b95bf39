"""Basic offline consolidation: the least loaded hosts give all their instances to the most loaded ones with room.

Watcher's strategy of this name made sound. A host is emptied altogether or left alone, and is disabled right after the
last of its migrations; disabled hosts neither receive nor give nor count. A host's score is the mean of its CPU
(measured, of its vCPUs), disk and memory (allocated) in shares of what it has, and follows the plan as it grows; a
receiver needs room in every allocated resource and stays within its physical vCPUs in measured CPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Option

from trimtab.platform.contracts import Context
from trimtab.platform.model import DISK, MEMORY, RESOURCES, VCPU, ClusterModel, InstanceState
from trimtab.platform.model.compute import Bools, Floats
from trimtab.platform.proposal import Candidate, Migrate, Step
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.aggregation import Aggregation
from trimtab.strategies.feasibility import field_of, used_of
from trimtab.strategies.loads import note, note_instances, own_load, usage_of
from trimtab.strategies.releasing import fullness, release
from trimtab.strategies.services import switch
from trimtab.strategies.telling import by_source, share

CPU = len(RESOURCES)  # measured CPU stands behind the allocated resources
COMPARED = ((CPU, VCPU), (MEMORY, MEMORY), (DISK, DISK))  # what is used of what, in a score
TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})  # what OpenStack reads as true


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    migration_attempts: float = Option(
        0, description="Give up when so many hosts in a row could not be emptied and one more cannot. 0: never."
    )
    period: float = Option(7200, description="The time interval in seconds for getting statistic aggregation")
    granularity: float = Option(
        300, description="The time between two measures in an aggregated timeseries of a metric."
    )
    aggregation_method: Aggregation = Option(
        Aggregation(), description="Function used to aggregate multiple measures into an aggregate."
    )
    check_optimize_metadata: bool | None = Option(
        None,
        description="Whether instances stay whose metadata name top-level keys but not `optimize` with a true value. "
        "Left out: they do not.",
    )


class Basic:
    """Fewer hosts in use, by Watcher's first strategy."""

    name: ClassVar[str] = "basic"
    display_name: ClassVar[str] = "Basic offline consolidation"
    goal: ClassVar[str] = "server_consolidation"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:
        """CPU of hosts and instances."""
        how, window, grain = parameters.aggregation_method, round(parameters.period), round(parameters.granularity)
        return (
            Need("host_cpu_usage", "host", how.of_hosts(), window, grain),
            Need("instance_cpu_usage", "instance", how.instance, window, grain),
        )

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Watcher's defaults, then the busiest moment instead of the mean."""
        return {}, {"aggregation_method": {"instance": "max", "compute_node": "max"}}, {"period": 86400.0}

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate; it has no step when no host can be emptied."""
        model = snapshot.model
        host_cpu, cpu = (snapshot.metric(need) for need in self.needs(parameters))
        usage = usage_of(model, cpu, np.full(model.instances, np.nan))
        own = own_load(model, usage, host_cpu, np.full(model.hosts, np.nan))[:, 0]
        limit = np.concatenate([model.capacity, model.total[:, [VCPU]]], axis=1)
        field = field_of(model, limit, np.concatenate([model.demand, usage.used[:, :1]], axis=1))
        used = used_of(field, model.host_of)
        used[:, CPU] += own
        free = model.movable & (model.state == InstanceState.ACTIVE)
        free[list(snapshot.failed_before)] = False
        if parameters.check_optimize_metadata:
            free &= _optimizable(model)
        placed = model.host_of >= 0
        stuck = np.bincount(model.host_of[placed & ~free], minlength=model.hosts) > 0
        guests = np.bincount(model.host_of[placed], minlength=model.hosts)
        before, worth = used.copy(), worths(model)
        score = fullness(before, worth, np.zeros(model.hosts))
        moves, emptied = release(
            field,
            model.host_of.copy(),
            used,
            model.usable & (guests > 0),
            model.usable & ~stuck,
            sizes(model, field.need[:, CPU]),
            worth,
            np.zeros(model.hosts),
            np.zeros(model.hosts),
            int(parameters.migration_attempts),
        )
        steps: list[Step] = []
        going = [Migrate(instance, host, live=True) for instance, host in moves.tolist()]

        def told(host: int) -> str:
            cpu, memory, disk = (share(before[host, r], model.total[host, of]) for r, of in COMPARED)
            return (
                f"{model.host_name(host)} is emptied: its score is {score[host]:.3f}, the mean of {cpu:.1f} % CPU "
                f"(measured), {memory:.1f} % memory and {disk:.1f} % disk (allocated); the lowest score gives first, "
                "the highest with room receives"
            )

        begin = 0
        for host, end in zip(emptied.tolist(), np.cumsum(guests[emptied]).tolist(), strict=True):
            steps += [*going[begin:end], switch(model, host, enabled=False)]
            begin = end
        return (
            Candidate(
                tuple(steps),
                because=f"{len(emptied)} of {int(model.usable.sum())} enabled hosts are emptied and disabled "
                f"with {len(moves)} migrations",
                indicators={
                    "compute_nodes_count": int(model.usable.sum()),
                    "released_compute_nodes_count": len(emptied),
                    "instance_migrations_count": len(moves),
                },
                reasons=by_source(model, moves, told),
                notes=(
                    *note(
                        model.usable & ~np.isfinite(host_cpu),
                        model.host_names,
                        "{count} hosts without CPU measurement count as their instances",
                    ),
                    *note_instances(
                        model, usage.guessed, "{count} instances without CPU measurement count with all their vCPUs"
                    ),
                    *note(
                        model.usable & stuck,
                        model.host_names,
                        "{count} hosts cannot be emptied: an instance is not active, locked, excluded or failed before",
                    ),
                ),
            ),
        )


def worths(model: ClusterModel) -> Floats:
    """What a unit of vCPU, memory, disk (allocated) and CPU (measured) adds to a host's score, [H, 4].

    Watcher's mean of three shares; a host without disk has no share of it.
    """
    shares = np.divide(1.0, model.total * 3, out=np.zeros_like(model.total), where=model.total > 0)
    worth = np.zeros((model.hosts, CPU + 1))
    worth[:, MEMORY], worth[:, DISK], worth[:, CPU] = shares[:, MEMORY], shares[:, DISK], shares[:, VCPU]
    return worth


def sizes(model: ClusterModel, cores: Floats) -> Floats:
    """The same score for an instance on an average enabled host, [V]: the largest of a host goes first."""
    if not model.usable.any():
        return np.zeros(model.instances)
    whole = model.total[model.usable].mean(axis=0)
    need = np.stack([cores, model.demand[:, MEMORY], model.demand[:, DISK]], axis=1)
    return need @ np.divide(1.0 / 3, whole, out=np.zeros_like(whole), where=whole > 0)


def _optimizable(model: ClusterModel) -> Bools:
    """Instances without metadata, and those whose metadata say `optimize` with a true value, [V]."""
    said = np.ones(len(model.metadata.names) + 1, bool)  # -1 is the last one: no metadata
    for code, text in enumerate(model.metadata.names):
        known = json.loads(text)
        said[code] = not known or str(known.get("optimize", False)).strip().lower() in TRUE
    return np.asarray(said[model.metadata.codes])
