"""Workload stabilization: migrations that bring the standard deviation of the hosts' load below a threshold.

Watcher's strategy of this name made sound. Every step takes the one migration that lowers the weighted standard
deviation the most, within the allocation capacity of its receiver and the rules of zones and server groups; every
instance moves at most once; it ends when every metric asked for is at or below its threshold, or nothing helps more.
Standard deviations before and after are both the weighted sum over the metrics asked for.

`host_choice` says which receivers are looked at, and is the same in every run: `fullsearch` all of them; `retry` the
`retry_count` least loaded ones that may take the instance; `cycle` the hosts receive in turn, by uuid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator
from pydantic import Field as Option
from pydantic.config import JsonDict

from trimtab.platform.contracts import Context
from trimtab.platform.model import MEMORY, VCPU
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.proposal import Candidate, Migrate
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.aggregation import Aggregation
from trimtab.strategies.feasibility import field_of, used_of
from trimtab.strategies.levelling import CYCLE, FULLSEARCH, RETRY, level
from trimtab.strategies.loads import MIGRATES_LIVE, labels, note, where_it_is
from trimtab.strategies.telling import by_move

Metric = Literal["instance_cpu_usage", "instance_ram_usage"]
HOST_METRIC = {"instance_cpu_usage": "host_cpu_usage", "instance_ram_usage": "host_ram_usage"}
CHOICES = {"fullsearch": FULLSEARCH, "retry": RETRY, "cycle": CYCLE}
AT_ONCE = 500  # moves between two looks at the cancel flag


def unset(schema: JsonDict) -> None:
    """Show no default: Watcher's schema has it one level up."""
    schema.pop("default", None)


def open_object(schema: JsonDict) -> None:
    """Say nothing of what the object holds, as Watcher does."""
    schema.pop("additionalProperties", None)


class Thresholds(BaseModel):
    """Standard deviations above which there is something to do."""

    model_config = ConfigDict(extra="ignore", strict=True)

    instance_cpu_usage: float = Option(0.1, ge=0, le=1, json_schema_extra=unset)
    instance_ram_usage: float = Option(0.1, ge=0, le=1, json_schema_extra=unset)


class Weights(BaseModel):
    """How much each metric counts."""

    model_config = ConfigDict(extra="ignore", strict=True)

    instance_cpu_usage_weight: float = Option(1.0, ge=0, le=1, json_schema_extra=unset)
    instance_ram_usage_weight: float = Option(1.0, ge=0, le=1, json_schema_extra=unset)


class Periods(BaseModel):
    """Windows of the measurements, s; `node` is the old name of `compute_node` and counts when it is not 0."""

    model_config = ConfigDict(extra="ignore", strict=True)

    instance: int = Option(720, ge=0, json_schema_extra=unset)
    compute_node: int = Option(600, ge=0, json_schema_extra=unset)
    node: int = Option(0, ge=0)


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    metrics: list[Metric] = Option(["instance_cpu_usage"], description="Metrics used as rates of cluster loads.")
    thresholds: Thresholds = Option(
        Thresholds(), description="Dict where key is a metric and value is a trigger value."
    )
    weights: Weights = Option(
        Weights(),
        description="These weights used to calculate common standard deviation. "
        "Name of weight contains meter name and _weight suffix.",
    )
    instance_metrics: dict[str, str] = Option(
        HOST_METRIC,
        description="Mapping to get hardware statistics using instance metrics.",
        json_schema_extra=open_object,
    )
    host_choice: str = Option(
        "retry",
        description="Which receivers are looked at: fullsearch (all), retry (the retry_count least loaded ones that "
        "may take the instance) or cycle (all hosts in turn).",
    )
    retry_count: float = Option(1, ge=1, description="Count of receivers that retry looks at.")
    periods: Periods = Option(
        Periods(), description="These periods are used to get statistic aggregation for instance and host metrics."
    )
    aggregation_method: Aggregation = Option(
        Aggregation(), description="Function used to aggregate multiple measures into an aggregate."
    )
    granularity: float = Option(
        300, ge=0, description="The time between two measures in an aggregated timeseries of a metric."
    )
    max_migrations: int | None = Option(
        None, ge=0, description="The plan holds at most so many migrations. Left out: as many as it takes."
    )

    @field_validator("host_choice")
    @classmethod
    def _known(cls, given: str) -> str:
        if given not in CHOICES:
            raise ValueError(f"there is no host choice {given!r}: use {', '.join(CHOICES)}")
        return given


class WorkloadStabilization:
    """Load spread evenly."""

    name: ClassVar[str] = "workload_stabilization"
    display_name: ClassVar[str] = "Workload stabilization"
    goal: ClassVar[str] = "workload_balancing"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:
        """The metrics asked for, of instances and of hosts."""
        how, window, grain = parameters.aggregation_method, parameters.periods, round(parameters.granularity)
        host = Need("", "host", how.of_hosts(), window.node or window.compute_node, grain)
        guest = Need("", "instance", how.instance, window.instance, grain)
        needs = []
        for metric in dict.fromkeys(parameters.metrics):
            needs.append(guest._replace(metric=metric))
            needs.append(host._replace(metric=parameters.instance_metrics.get(metric, HOST_METRIC[metric])))
        return needs

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Watcher's defaults, then lower thresholds with all receivers looked at, then memory as well."""
        return (
            {},
            {"thresholds": {"instance_cpu_usage": 0.05}, "host_choice": "fullsearch"},
            {"thresholds": {"instance_cpu_usage": 0.02}, "host_choice": "fullsearch"},
            {
                "metrics": ["instance_cpu_usage", "instance_ram_usage"],
                "thresholds": {"instance_cpu_usage": 0.05, "instance_ram_usage": 0.1},
                "host_choice": "fullsearch",
            },
        )

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:
        """One candidate; it has no step when the load is even enough."""
        model = snapshot.model
        wanted = tuple(dict.fromkeys(parameters.metrics))
        values = [snapshot.metric(need) for need in self.needs(parameters)]
        load, amount, scale = tables(snapshot, wanted, values)
        known = np.isfinite(load).all(axis=0)
        measured = np.isfinite(amount).all(axis=0)
        part = model.usable & known & (scale > 0).all(axis=0)
        candidates = model.movable & MIGRATES_LIVE[model.state]
        candidates[list(snapshot.failed_before)] = False
        on_part = where_it_is(part, model.host_of)
        free = candidates & measured & on_part
        hosts = np.flatnonzero(part).astype(np.int32)
        hosts = (
            hosts[np.argsort(_rank(model.host_ids)[hosts], kind="stable")]
            if parameters.host_choice == "cycle"
            else hosts
        )
        weight = np.array([getattr(parameters.weights, f"{metric}_weight") for metric in wanted], np.float64)
        threshold = np.array([getattr(parameters.thresholds, metric) for metric in wanted], np.float64)
        before = deviations(load, part)
        notes = (
            *note(model.usable & ~part, model.host_names, "{count} hosts without measurements are left out"),
            *note(
                candidates & on_part & ~measured,
                labels(model) if (candidates & on_part & ~measured).any() else model.instance_names,
                "{count} instances without measurements stay where they are",
            ),
        )
        moves = np.empty((0, 2), np.int32)
        began = load.copy()
        if len(hosts) and free.any() and (before > threshold).any():
            field = field_of(model, model.capacity, model.demand)
            host_of = model.host_of.copy()
            used = used_of(field, host_of)
            kind, size = kinds(model.demand)
            load, amount = np.where(part, load, 0.0), np.where(free, amount, 0.0)
            most = len(free) if parameters.max_migrations is None else parameters.max_migrations
            choice, tries, turn, done, parts = (
                CHOICES[parameters.host_choice],
                int(parameters.retry_count),
                0,
                False,
                [],
            )
            while most and not done:
                if context.cancelled():
                    return ()
                some, turn, done = level(
                    field,
                    host_of,
                    used,
                    load,
                    amount,
                    scale,
                    weight,
                    threshold,
                    free,
                    kind,
                    size,
                    hosts,
                    choice,
                    tries,
                    turn,
                    min(most, AT_ONCE),
                )
                most -= len(some)
                parts.append(some)
            moves = np.concatenate([moves, *parts])
        after = deviations(load, part)
        start, end = float(before @ weight), float(after @ weight)
        steadier = _Steadier(began, part, amount, scale, weight)

        def told(instance: int, source: int, host: int) -> str:
            earlier, later = steadier.value(), steadier.move(instance, source, host)
            return (
                f"brings the weighted standard deviation of {', '.join(wanted)} over hosts from {earlier:.4f} to "
                f"{later:.4f}, more than any other migration that host_choice {parameters.host_choice} looks at"
            )

        texts = [f"{metric} {a:.4f} to {b:.4f}" for metric, a, b in zip(wanted, before, after, strict=True)]
        return (
            Candidate(
                tuple(Migrate(instance, host, live=True) for instance, host in moves.tolist()),
                because=f"standard deviation of {', '.join(texts) or 'nothing'} with {len(moves)} migrations",
                indicators={
                    "instance_migrations_count": len(moves),
                    "instances_count": model.instances,
                    "standard_deviation_after_audit": end,
                    "standard_deviation_before_audit": start,
                },
                reasons=by_move(model, moves, told),
                notes=notes,
            ),
        )


def tables(snapshot: Snapshot, wanted: Sequence[str], values: Sequence[Floats]) -> tuple[Floats, Floats, Floats]:
    """Load of the hosts [M, H] (shares), what instances add [M, V] (cores, MB) and sizes of the hosts [M, H].

    `values` are per metric first the instances' (CPU: % of their vCPUs, memory: MB), then the hosts' (%, KiB).
    """
    model = snapshot.model
    load = np.empty((len(wanted), model.hosts))
    amount = np.empty((len(wanted), model.instances))
    scale = np.empty_like(load)
    for m, metric in enumerate(wanted):
        inside, outside = values[2 * m], values[2 * m + 1]
        if metric == "instance_cpu_usage":
            scale[m] = model.total[:, VCPU]
            amount[m] = np.maximum(inside, 0.0) / 100.0 * model.demand[:, VCPU]
            load[m] = outside / 100.0
        else:
            scale[m] = model.total[:, MEMORY]
            amount[m] = np.maximum(inside, 0.0)
            load[m] = outside / 1024.0 / np.where(scale[m] > 0, scale[m], np.nan)
    return load, amount, scale


class _Steadier:
    """The weighted standard deviation of a load while moves are made, a few operations each."""

    def __init__(self, load: Floats, part: Bools, amount: Floats, scale: Floats, weight: Floats) -> None:
        self.load, self.amount, self.scale, self.weight = load.copy(), amount, scale, weight
        # About a middle value, so that squares of large numbers do not swallow small differences.
        self.middle = load[:, part].mean(axis=1) if part.any() else np.zeros(len(load))
        centred = load[:, part] - self.middle[:, None]
        self.count, self.sum, self.squares = max(int(part.sum()), 1), centred.sum(axis=1), (centred**2).sum(axis=1)

    def value(self) -> float:
        mean = self.sum / self.count
        return float(np.sqrt(np.maximum(self.squares / self.count - mean**2, 0.0)) @ self.weight)

    def move(self, instance: int, source: int, host: int) -> float:
        """Make a move; the value after it."""
        for at, sign in ((source, -1.0), (host, 1.0)):
            change = sign * self.amount[:, instance] / self.scale[:, at]
            was = self.load[:, at] - self.middle
            self.sum = self.sum + change
            self.squares = self.squares + change * (2 * was + change)
            self.load[:, at] += change
        return self.value()


def kinds(demand: Floats) -> tuple[Ints, Ints]:
    """Which instances need the same of everything: kind of each instance [V], first instance of each kind [C]."""
    order = np.lexsort(demand.T)
    fresh = np.ones(len(order), bool)
    fresh[1:] = (demand[order[1:]] != demand[order[:-1]]).any(axis=1)
    kind = np.empty(len(order), np.int32)
    kind[order] = np.cumsum(fresh) - 1
    return kind, order[fresh].astype(np.int32)


def deviations(load: Floats, part: Bools) -> Floats:
    """Population standard deviation of every metric over the hosts that take part, [M]."""
    if not part.any():
        return np.zeros(len(load))
    return np.asarray(load[:, part].std(axis=1))


def _rank(ids: Any) -> Ints:
    order = np.argsort(np.array(ids.to_pylist(), dtype=object), kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    return rank
