"""VM workload consolidation: relieve overloaded hosts, then empty as many hosts as possible and disable them.

Watcher's strategy of this name made sound. It looks at allocated vCPUs, memory and disk (with the allocation ratios)
and at measured CPU and memory, and

* relieves hosts that hold more than they may, with the fewest moves;
* empties hosts, those first whose scarcest resource is smallest; a host is emptied altogether or left alone;
* moves every instance at most once, in an order in which no host is ever over its capacity: a receiver only gains;
* orders hosts so that the cheapest come first: a plan that is stopped early has freed the most hosts for its moves.

Unless `max_migrations` is given there may be two candidates: a thrifty one, which leaves out the hosts that cost
clearly more moves than others, and one that empties all it can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Option

from trimtab.platform.contracts import Context
from trimtab.platform.model import MEMORY, RESOURCES, VCPU, ClusterModel
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.proposal import Candidate, Migrate, Step
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.draining import drain, relieve, scarcity
from trimtab.strategies.feasibility import Field, field_of, used_of
from trimtab.strategies.loads import MIGRATES_COLD, MIGRATES_LIVE, labels, note, own_load, usage_of, where_it_is
from trimtab.strategies.services import REASON, switch
from trimtab.strategies.telling import by_source

CPU = len(RESOURCES)  # measured CPU and memory stand behind the allocated resources
Counts = npt.NDArray[np.integer[Any]]
OVER = ("vCPUs allocated", "memory allocated", "disk allocated", "CPU measured")
HELD = ("vCPUs", "MB of memory", "GB of disk", "cores of measured CPU", "MB of measured memory")
THRIFT = 4 / 3  # a thrifty plan empties no host that holds more than so many times the average of the emptied ones


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    period: float = Option(3600, description="The time interval in seconds for getting statistic aggregation")
    granularity: float = Option(
        300, description="The time between two measures in an aggregated timeseries of a metric."
    )
    max_cpu_pct: float | None = Option(
        None,
        gt=0,
        le=100,
        description="Measured CPU a host may run at, in per cent of its physical vCPUs: receivers stay below it, "
        "hosts above it are relieved. Left out: its vCPUs times the allocation ratio.",
    )
    max_migrations: int | None = Option(
        None, ge=0, description="The plan holds at most so many migrations. Left out: as many as it takes."
    )


class Ground(NamedTuple):
    """What one run works on."""

    model: ClusterModel
    field: Field
    own: Floats
    weight: Floats
    movable: Bools
    drainable: Bools
    watched: Bools
    notes: list[str]


class VmWorkloadConsolidation:
    """Fewer hosts in use."""

    name: ClassVar[str] = "vm_workload_consolidation"
    display_name: ClassVar[str] = "VM Workload Consolidation Strategy"
    goal: ClassVar[str] = "server_consolidation"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:
        """CPU and memory of instances and hosts, mean over `period`."""
        window, grain = round(parameters.period), round(parameters.granularity)
        return [
            Need(f"{kind}_{what}_usage", kind, "mean", window, grain)
            for kind in ("instance", "host")
            for what in ("cpu", "ram")
        ]

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Watcher's defaults, then hosts kept below a measured CPU, over an hour and over a day."""
        return (
            {},
            {"max_cpu_pct": 90.0},
            {"max_cpu_pct": 70.0},
            {"max_cpu_pct": 80.0, "period": 21600.0},
            {"max_cpu_pct": 70.0, "period": 86400.0},
        )

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:
        """A thrifty and a thorough candidate; one only where they are the same or the moves are limited."""
        ground = survey(snapshot, parameters, self.needs(parameters))
        model = ground.model
        guests = np.bincount(model.host_of[model.host_of >= 0], minlength=model.hosts).astype(np.int32)
        placed = search(ground, guests, ground.drainable)
        if context.cancelled():
            return ()
        thorough = candidate(ground, placed, parameters.max_migrations)
        emptied = (guests > 0) & (np.bincount(placed[placed >= 0], minlength=model.hosts) == 0)
        if not emptied.any():
            return (thorough,)
        if parameters.max_migrations is None:
            most = THRIFT * guests[emptied].mean()
        else:
            spent = np.cumsum(np.sort(guests[emptied]))
            within = int(np.searchsorted(spent, parameters.max_migrations, side="right"))
            most = float(np.sort(guests[emptied])[min(within, len(spent) - 1)])
        if not (guests[emptied] > most).any():
            return (thorough,)
        placed = search(ground, guests, ground.drainable & (guests <= most))
        thrifty = candidate(ground, placed, parameters.max_migrations)
        if parameters.max_migrations is None:
            return (thrifty, thorough)
        return (max(thrifty, thorough, key=lambda one: one.indicators["released_compute_nodes_count"]),)


def survey(snapshot: Snapshot, parameters: Parameters, needs: Sequence[Need]) -> Ground:
    """Limits, needs and rules of a snapshot, and what has to be said about it."""
    model = snapshot.model
    cpu, ram, host_cpu, host_ram = (snapshot.metric(need) for need in needs)
    usage = usage_of(model, cpu, ram)
    own = own_load(model, usage, host_cpu, host_ram)
    limit = np.concatenate([model.capacity, model.capacity[:, [VCPU, MEMORY]]], axis=1)
    if parameters.max_cpu_pct is not None:
        limit[:, CPU] = np.minimum(limit[:, CPU], model.total[:, VCPU] * parameters.max_cpu_pct / 100.0)
    field = field_of(model, limit, np.concatenate([model.demand, usage.used], axis=1))
    failed = np.zeros(model.instances, bool)
    failed[list(snapshot.failed_before)] = True
    movable = model.movable & (MIGRATES_LIVE | MIGRATES_COLD)[model.state] & ~failed
    movable &= where_it_is(model.up, model.host_of)
    stuck = (model.host_of >= 0) & ~movable
    held = np.bincount(model.host_of[stuck], minlength=model.hosts) > 0
    watched = np.concatenate([model.total > 0, np.ones((model.hosts, 1), bool), np.zeros((model.hosts, 1), bool)], 1)
    names = labels(model) if (usage.guessed.any() or failed.any()) else model.instance_names
    notes = [
        *note(usage.guessed, names, "{count} instances without CPU measurement count with all their vCPUs"),
        *note(
            model.up & ~np.isfinite(host_cpu),
            model.host_names,
            "{count} hosts without CPU measurement count as their instances",
        ),
        *note(
            held & model.up,
            model.host_names,
            "{count} hosts cannot be emptied: an instance is locked, excluded, in an unfit state, or failed before",
        ),
        *note(failed, names, "{count} instances stay because an earlier migration of theirs failed"),
    ]
    return Ground(model, field, own, scarcity(field, model.usable), movable, model.up & ~held, watched, notes)


def search(ground: Ground, guests: Ints, drainable: Bools) -> Ints:
    """Where every instance is in the end, [V]."""
    model, field = ground.model, ground.field
    host_of = model.host_of.copy()
    used = used_of(field, host_of)
    used[:, CPU:] += ground.own
    excess = np.where(ground.watched, used - field.limit, 0.0).max(axis=1)
    over = model.up & (guests > 0) & (excess > ROUNDING)
    spare = model.up & ~model.enabled & model.disabled_reason.rows(REASON)
    tier = np.select([over, model.usable & (guests > 0), model.usable, spare & (guests == 0)], [0, 1, 2, 3], 0)
    tier = tier.astype(np.int8)
    sources = np.flatnonzero(over).astype(np.int32)
    sources = sources[np.argsort(-excess[sources], kind="stable")]
    cost = np.ascontiguousarray(model.demand[:, MEMORY])
    relieve(field, host_of, used, ground.watched, tier, ground.movable, sources, ground.weight, cost)
    scarcest = _scarcest(ground)
    donors = np.flatnonzero(drainable & (np.bincount(host_of[host_of >= 0], minlength=model.hosts) > 0)).astype(
        np.int32
    )
    donors = donors[np.lexsort((guests[donors], field.limit[donors, scarcest]))]
    drain(field, host_of, used, tier == 1, donors, ground.weight)
    return host_of


def candidate(ground: Ground, placed: Ints, most: int | None) -> Candidate:
    """Steps, indicators and reason for a final placement; drops the dearest hosts when `most` moves are exceeded."""
    model = ground.model
    moved = np.flatnonzero(placed != model.host_of).astype(np.int32)
    source = model.host_of[moved]
    before = np.bincount(model.host_of[model.host_of >= 0], minlength=model.hosts)
    left = np.bincount(placed[placed >= 0], minlength=model.hosts)
    drained = (before > 0) & (left == 0)
    rank = np.where(drained, before, 0)  # relief first, then the cheapest hosts
    order = np.lexsort((moved, source, rank[source]))
    moved, source = moved[order], source[order]
    if most is not None and len(moved) > most:
        keep = np.arange(len(moved)) < most
        cut = source[most]  # a host is emptied altogether or not at all
        if drained[cut]:
            keep &= source != cut
        moved, source = moved[keep], source[keep]
        placed = model.host_of.copy() if not len(moved) else _only(model.host_of, placed, moved)
        left = np.bincount(placed[placed >= 0], minlength=model.hosts)
    opened = ~model.enabled & (left > before)
    idle = model.usable & (left == 0)
    ends = np.zeros(len(moved), bool)
    if len(moved):
        ends = np.append(source[1:] != source[:-1], True)
    steps: list[Step] = [switch(model, int(host), enabled=True) for host in np.flatnonzero(opened)]
    live = MIGRATES_LIVE[model.state[moved]]
    for instance, host, runs, last, home in zip(
        moved.tolist(), placed[moved].tolist(), live.tolist(), ends.tolist(), source.tolist(), strict=True
    ):
        steps.append(Migrate(instance, host, runs))
        if last and idle[home]:
            steps.append(switch(model, home, enabled=False))
    steps += [switch(model, int(host), enabled=False) for host in np.flatnonzero(idle & (before == 0))]
    released = max(int(idle.sum()) - int(opened.sum()), 0)
    emptied = int(((before > 0) & (left == 0)).sum())
    relieved = len(np.unique(source[left[source] > 0]))
    used = model.used(placed)
    over = ((used > model.capacity + ROUNDING) & (model.total > 0)).any(axis=1) & model.up
    notes = [*ground.notes, *note(opened, model.host_names, "{count} disabled hosts are enabled to relieve others")]
    notes += note(
        over, model.host_names, "{count} hosts stay over their capacity: nothing on them can move or no host has room"
    )
    return Candidate(
        tuple(steps),
        because=f"{emptied} of {int((before > 0).sum())} hosts in use are emptied"
        f"{f', {relieved} overloaded ones relieved' if relieved else ''} with {len(moved)} migrations",
        indicators={
            "compute_nodes_count": int(model.usable.sum()),
            "released_compute_nodes_count": released,
            "instance_migrations_count": len(moved),
        },
        reasons=_reasons(ground, np.stack([moved, placed[moved]], axis=1), before, left),
        notes=tuple(notes),
    )


def _scarcest(ground: Ground) -> int:
    """The dimension of which the largest share of all there is is needed."""
    return int(np.argmax(ground.weight * ground.field.limit[ground.model.usable].sum(axis=0)))


def _reasons(ground: Ground, moves: Ints, before: Counts, left: Counts) -> dict[int, str]:
    """Why instances leave their host: it is over what it may hold, or it is emptied."""
    model, field = ground.model, ground.field
    used = used_of(field, model.host_of)
    used[:, CPU:] += ground.own
    over = ground.watched & (used > field.limit + ROUNDING)
    scarcest = _scarcest(ground)

    def told(host: int) -> str:
        why = [
            f"{OVER[r]} is {used[host, r]:g}, and it may be {field.limit[host, r]:g}"
            for r in np.flatnonzero(over[host])
        ]
        if why:
            why[0] = f"{model.host_name(host)} is relieved: {why[0]}"
        if left[host] == 0:
            why.append(
                f"{model.host_name(host)} is emptied: it may hold {field.limit[host, scarcest]:g} {HELD[scarcest]}, "
                f"which are scarcest in this cluster, and holds {before[host]} instances; the smallest host with the "
                "fewest goes first"
            )
        return "; ".join([*why, "whoever has the least room left over receives"])

    return by_source(model, moves, told)


def _only(host_of: Ints, placed: Ints, moved: Ints) -> Ints:
    kept = host_of.copy()
    kept[moved] = placed[moved]
    return kept
