"""Why every action of a plan is there: what it improves, what else was possible, and what would not happen without it.

All figures come from the snapshot and the plan; none is a strategy's own, so that any strategy's plan can be explained.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.platform import rules
from trimtab.platform.alternatives import OVERLOAD_PCT, Elsewhere, Field
from trimtab.platform.contracts import Goal
from trimtab.platform.effort import Effort, effort
from trimtab.platform.model import MEMORY, VCPU, ClusterModel
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.observed import Observed, observed
from trimtab.platform.planner.wire import label
from trimtab.platform.proposal import Candidate, Plan, PlannedAction
from trimtab.platform.rules import Violation
from trimtab.platform.snapshot import Snapshot

CLOSING, OPENING = ("disabled", "off"), ("enabled", "on")
CPU, RAM, COUNT = 3, 4, 5  # columns behind the three resources
BITS = 4096  # actions looked at together when those behind an action are counted
MOST_PAIRS = 20_000_000  # moves times hosts up to which other hosts are looked at: the first moves of a huge plan
FIGURES = ("vcpus_pct", "memory_pct", "disk_pct", "cpu_pct", "ram_pct", "instances")
UNIT = {VCPU: "vCPUs", MEMORY: "memory", 2: "disk"}


class Side(NamedTuple):
    """One host of a move: its figures (`FIGURES`) before the plan, with this move alone, and when all is done.

    `vcpus_pct`, `memory_pct`, `disk_pct` are allocations by capacity, `cpu_pct` and `ram_pct` use of what is there.
    """

    host: int
    before: Floats
    alone: Floats
    after: Floats


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one action is in a plan; `action`, `needs_room_of` and `awaited_by` are positions in it.

    `why` and `without` are sentences, the most important first. `blocks` counts all actions that cannot happen without
    this one, directly or not. Moves have sides; the last move of an instance has `elsewhere`.
    """

    action: int
    action_type: str
    subject: str
    why: tuple[str, ...]
    without: tuple[str, ...] = ()
    source: Side | None = None
    destination: Side | None = None
    empties: bool = False
    cures: tuple[str, ...] = ()
    elsewhere: Elsewhere | None = None
    duration_s: float = 0.0
    gib: float = 0.0
    needs_room_of: tuple[int, ...] = ()
    awaited_by: tuple[int, ...] = ()
    blocks: int = 0


@dataclass(frozen=True)
class _Ground:
    """What all reasons of a plan are made from."""

    model: ClusterModel
    candidate: Candidate
    plan: Plan
    spreading: bool
    start: Floats  # [H, 6] allocations, cores, MB, instances of the hosts before the plan
    end: Floats  # [H, 6] and when all is done
    own: Floats  # [V, 6] the same of the instances
    size: Floats  # [H, 6] what the columns are divided by
    last: Mapping[int, int]  # row of an instance -> position of its last move
    leaving: Mapping[int, list[int]]  # host -> positions of the moves from it
    coming: Mapping[int, list[int]]
    closing: Mapping[int, list[int]]  # host -> positions of the acts that close it
    children: Sequence[list[int]]
    blocks: Sequence[int]
    emptied: Bools
    cures: Mapping[int, tuple[str, ...]]
    counted: Bools  # hosts of the deviation
    before: _Spread
    after: _Spread
    takes: Effort


class _Spread(NamedTuple):
    """Cores used on every host, sum and sum of squares of the hosts' CPU in %, and how many hosts count."""

    load: Floats
    total: float
    squares: float
    hosts: int


def explain(
    snapshot: Snapshot, candidate: Candidate, plan: Plan, goal: Goal, *, most_pairs: int = MOST_PAIRS
) -> tuple[Reason, ...]:
    """One reason for every action, in the plan's order.

    Args:
        snapshot: what the plan was made on.
        candidate: what the strategy proposed; its `reasons` come first.
        plan: the graph of actions.
        goal: whether fuller or cooler hosts are better: packing where its ordering counts hosts in use or energy.
        most_pairs: moves times hosts for which other hosts are looked at; later moves have no `elsewhere`.
    """
    model, use = snapshot.model, observed(snapshot)
    moves = plan.migrations()
    place = model.host_of.copy()
    for n in moves:
        place[plan.actions[n].instance] = plan.actions[n].destination
    ground = _ground(snapshot, candidate, plan, goal, use, place)
    opened, closed = np.zeros(model.hosts, bool), ground.emptied.copy()
    for action in plan.actions:
        if action.instance < 0 and action.host >= 0:
            opened[action.host] |= action.parameters.get("state") in OPENING
            closed[action.host] |= action.parameters.get("state") in CLOSING
    packing = bool({"hosts_in_use", "energy_kwh"} & set(goal.ordering))
    there = Field(model, place, use.cores, opened, closed, packing=packing)
    reasons, looked_at = [], 0
    for n, action in enumerate(plan.actions):
        if action.instance < 0:
            reasons.append(_of_act(ground, n, action))
            continue
        looked_at += model.hosts
        settles = ground.last[action.instance] == n and action.destination >= 0 and looked_at <= most_pairs
        elsewhere = there.elsewhere(action.instance, action.destination) if settles else None
        reasons.append(_of_move(ground, n, action, elsewhere))
    return tuple(reasons)


def _ground(snapshot: Snapshot, candidate: Candidate, plan: Plan, goal: Goal, use: Observed, place: Ints) -> _Ground:
    model = snapshot.model
    own = np.column_stack([model.need, use.cores, use.memory_mb, np.ones(model.instances)])
    size = np.column_stack([model.capacity, model.total[:, [VCPU, MEMORY]], np.full(model.hosts, 100.0)])
    start, end = _sums(model, own, model.host_of), _sums(model, own, place)
    leaving, coming, closing = defaultdict(list), defaultdict(list), defaultdict(list)
    last: dict[int, int] = {}
    for n, action in enumerate(plan.actions):
        if action.instance >= 0:
            last[action.instance] = n
            leaving[action.source].append(n)
            coming[action.destination].append(n)
        elif action.host >= 0 and action.parameters.get("state") in CLOSING:
            closing[action.host].append(n)
    children = _children(plan)
    counted = model.usable | (start[:, COUNT] > 0) | (end[:, COUNT] > 0)
    return _Ground(
        model=model,
        candidate=candidate,
        plan=plan,
        spreading="cpu_sd_pp" in goal.ordering,
        start=start,
        end=end,
        own=own,
        size=size,
        last=last,
        leaving=leaving,
        coming=coming,
        closing=closing,
        children=children,
        blocks=_blocked(children),
        emptied=(start[:, COUNT] > 0) & (end[:, COUNT] == 0),
        cures=_cures(model, place),
        counted=counted,
        before=_spread(start[:, CPU], size[:, CPU], counted),
        after=_spread(end[:, CPU], size[:, CPU], counted),
        takes=effort(snapshot, plan),
    )


def _children(plan: Plan) -> list[list[int]]:
    """Positions of the actions that wait for each."""
    children: list[list[int]] = [[] for _ in plan.actions]
    for n, action in enumerate(plan.actions):
        for parent in action.parents:
            children[parent].append(n)
    return children


def _blocked(children: Sequence[Sequence[int]]) -> list[int]:
    """How many actions wait for each, directly or not; as bits, so many actions at a time."""
    count = [0] * len(children)
    for first in range(0, len(children), BITS):
        behind = [0] * len(children)
        for n in range(len(children) - 1, -1, -1):  # parents come first
            for child in children[n]:
                behind[n] |= behind[child]
                if first <= child < first + BITS:
                    behind[n] |= 1 << (child - first)
            count[n] += behind[n].bit_count()
    return count


def _sums(model: ClusterModel, own: Floats, place: Ints) -> Floats:
    placed = place >= 0
    columns = [np.bincount(place[placed], own[placed, k], model.hosts) for k in range(own.shape[1])]
    return np.stack(columns, axis=1).astype(np.float64)


def _cures(model: ClusterModel, place: Ints) -> dict[int, tuple[str, ...]]:
    """By instance that moves: the rules it breaks at the start and nobody, or fewer, break in the end."""
    moved = place != model.host_of
    before = rules.broken(model)
    if not before or not moved.any():
        return {}
    after: dict[Any, int] = defaultdict(int)
    for one in rules.broken(model, host_of=place):
        after[_key(one)] += len(one.members)
    found: dict[int, list[str]] = defaultdict(list)
    for one in before:
        if after[_key(one)] < len(one.members):
            for row in one.members:
                if moved[row]:
                    found[row].append(one.text)
    return {row: tuple(texts) for row, texts in found.items()}


def _key(one: Violation) -> tuple[Any, ...]:
    if one.rule == "capacity":
        return one.rule, one.hosts, one.text.rsplit(" ", 1)[-1]
    return (one.rule, one.members) if one.rule == "zone" else (one.rule,)


# -- moves -------------------------------------------------------------------------------------


def _of_move(ground: _Ground, n: int, action: PlannedAction, elsewhere: Elsewhere | None) -> Reason:
    model = ground.model
    own = ground.own[action.instance]
    source = _side(ground, action.source, -own if int(model.host_of[action.instance]) == action.source else 0 * own)
    destination = _side(ground, action.destination, own) if action.destination >= 0 else None
    to = model.host_name(action.destination) if action.destination >= 0 else "a host of the cloud's choice"
    settles = ground.last[action.instance] == n
    cures = ground.cures.get(action.instance, ()) if settles else ()
    empties = bool(ground.emptied[action.source])
    given = ground.candidate.reasons.get(action.instance)
    why = [] if given is None else [given]
    if not settles:
        why.append(f"waits on {to} for its way on: that opens a circle of hosts which wait for each other's room")
    why += [f"cures: {text}" for text in cures]
    why += _relief(ground, action, source)
    if settles and ground.spreading and action.destination >= 0:
        why += _evenness(ground, action)
    room = [late for late in ground.children[n] if n in ground.plan.actions[late].needs_room_of]
    if room:
        why.append(f"makes room on {model.host_name(action.source)} for {_names(ground, room)}")
    if not why:
        there = f", from {destination.before[CPU]:.1f} to {destination.after[CPU]:.1f} % on {to}" if destination else ""
        why.append(
            f"CPU goes from {source.before[CPU]:.1f} to {source.after[CPU]:.1f} % on "
            f"{model.host_name(action.source)}{there}"
        )
    return Reason(
        n,
        action.action_type,
        f"{label(model, action.instance)}: {model.host_name(action.source)} → {to}",
        tuple(why),
        tuple(_missing(ground, n, action, source, cures, room)),
        source,
        destination,
        empties,
        cures,
        elsewhere,
        float(ground.takes.seconds[n]),
        float(ground.takes.gib[n]),
        action.needs_room_of,
        tuple(ground.children[n]),
        ground.blocks[n],
    )


def _side(ground: _Ground, host: int, change: Floats) -> Side:
    with np.errstate(divide="ignore", invalid="ignore"):
        before, after = ground.start[host], ground.end[host]
        return Side(host, *(values / ground.size[host] * 100 for values in (before, before + change, after)))


def _relief(ground: _Ground, action: PlannedAction, source: Side) -> list[str]:
    """What the move does for the host it leaves."""
    host, name = action.source, ground.model.host_name(action.source)
    why = []
    if ground.emptied[host]:
        there = ground.start[host, COUNT]
        then = _states(ground, ground.closing[host])
        why.append(f"{name} becomes empty: this is one of its {there:.0f} instances, and all leave{then}")
    elif not ground.model.usable[host]:
        state = "down" if not ground.model.up[host] else "disabled"
        why.append(f"{name} is {state}")
    for r, unit in UNIT.items():
        if ground.start[host, r] > ground.size[host, r] + ROUNDING:
            why.append(
                f"{name} is over its capacity: {source.before[r]:.0f} % of its {unit} before, "
                f"{source.alone[r]:.0f} % with this move alone, {source.after[r]:.0f} % in the end"
            )
    if source.before[CPU] > OVERLOAD_PCT:
        why.append(
            f"{name} is overloaded: CPU {source.before[CPU]:.1f} % before, {source.alone[CPU]:.1f} % with this move "
            f"alone, {source.after[CPU]:.1f} % in the end"
        )
    return why


def _states(ground: _Ground, positions: Sequence[int]) -> str:
    words = dict.fromkeys(
        "turned off" if ground.plan.actions[n].action_type == "change_node_power_state" else "disabled"
        for n in positions
    )
    return f"; then it is {' and '.join(words)}" if words else ""


def _spread(load: Floats, size: Floats, counted: Bools) -> _Spread:
    pct = load[counted] / np.maximum(size[counted], 1e-9) * 100
    return _Spread(load, float(pct.sum()), float((pct * pct).sum()), int(np.count_nonzero(counted)))


def _deviation(ground: _Ground, spread: _Spread, changes: Mapping[int, float]) -> float:
    """Standard deviation of CPU over hosts in percentage points, with so many cores more on some of them."""
    total, squares = spread.total, spread.squares
    for host, cores in changes.items():
        if ground.counted[host]:
            size = max(float(ground.size[host, CPU]), 1e-9)
            before, after = spread.load[host] / size * 100, (spread.load[host] + cores) / size * 100
            total, squares = total + after - before, squares + after * after - before * before
    mean = total / max(spread.hosts, 1)
    return float(np.sqrt(max(squares / max(spread.hosts, 1) - mean * mean, 0.0)))


def _evenness(ground: _Ground, action: PlannedAction) -> list[str]:
    cores = float(ground.own[action.instance, CPU])
    home, there = int(ground.model.host_of[action.instance]), action.destination
    before, after = _deviation(ground, ground.before, {}), _deviation(ground, ground.after, {})
    alone = _deviation(ground, ground.before, {home: -cores, there: cores})
    without = _deviation(ground, ground.after, {home: cores, there: -cores})
    text = (
        f"evens out the load: the deviation of CPU over hosts is {before:.2f} pp before and {alone:.2f} with this "
        f"move alone; {after:.2f} in the end and {without:.2f} without it"
    )
    return [text]


def _missing(
    ground: _Ground, n: int, action: PlannedAction, source: Side, cures: Sequence[str], room: Sequence[int]
) -> list[str]:
    """What would not happen, or go wrong, without a move."""
    model, host, found = ground.model, action.source, []
    name, own = model.host_name(host), ground.own[action.instance]
    found += [f"still broken: {text}" for text in cures]
    if ground.emptied[host]:
        others = sum(1 for m in ground.leaving[host] if m != n)
        shut = _states(ground, ground.closing[host]).replace("; then it is ", "it could not be ")
        found.append(
            f"{name} would keep it and stay in use"
            + (f", {shut}" if shut else "")
            + (f", and {others} other moves from it would be in vain" if others else "")
        )
    if room:
        found.append(f"no room on {name} for {_names(ground, room)}")
    if n == ground.last[action.instance]:
        for r, unit in UNIT.items():
            if own[r] > 0 and ground.end[host, r] + own[r] > ground.size[host, r] + ROUNDING:
                pct = (ground.end[host, r] + own[r]) / max(ground.size[host, r], 1e-9) * 100
                found.append(f"{name} would hold {pct:.0f} % of its {unit}")
        pct = (ground.end[host, CPU] + own[CPU]) / max(ground.size[host, CPU], 1e-9) * 100
        if pct > OVERLOAD_PCT >= source.after[CPU]:
            found.append(f"{name} would run at {pct:.1f} % CPU")
        elif not found:
            found.append(f"{name} would run at {pct:.1f} instead of {source.after[CPU]:.1f} % CPU")
    if ground.blocks[n] > len(room):
        found.append(f"{ground.blocks[n]} later actions wait for it, directly or not")
    return found


def _names(ground: _Ground, positions: Sequence[int], most: int = 3) -> str:
    names = [
        label(ground.model, ground.plan.actions[m].instance)
        if ground.plan.actions[m].instance >= 0
        else ground.plan.actions[m].action_type
        for m in positions[:most]
    ]
    rest = len(positions) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest else "")


# -- acts --------------------------------------------------------------------------------------


def _of_act(ground: _Ground, n: int, action: PlannedAction) -> Reason:
    state = str(action.parameters.get("state") or "")
    subject = _subject(ground.model, action)
    why: list[str] = []
    without: list[str] = []
    if action.host >= 0 and state in CLOSING:
        gone = len(ground.leaving[action.host])
        why.append(
            f"{subject} holds nothing any more once its {gone} instances have left"
            if gone and ground.end[action.host, COUNT] == 0
            else f"{subject} holds nothing"
            if ground.end[action.host, COUNT] == 0
            else f"{subject} is to receive nothing more; {ground.end[action.host, COUNT]:.0f} instances stay"
        )
        without.append(
            f"{subject} would go on drawing power"
            if state == "off"
            else f"the cloud would start new instances on {subject}"
            + (", and it would stay fully powered" if _turned_off(ground, action.host) else "")
        )
    elif action.host >= 0 and state in OPENING:
        arriving = len(ground.coming[action.host])
        why.append(f"{subject} receives {arriving} instances" if arriving else f"{subject} is wanted again")
        without.append(f"{arriving} moves to {subject} could not be done" if arriving else f"{subject} stays closed")
    else:
        why.append(ground.candidate.because or f"the strategy asked for {action.action_type}")
    if ground.blocks[n]:
        without.append(f"{ground.blocks[n]} later actions wait for it, directly or not")
    return Reason(
        n,
        action.action_type,
        f"{subject}: {state}" if state else subject,
        tuple(why),
        tuple(without),
        duration_s=float(ground.takes.seconds[n]),
        gib=float(ground.takes.gib[n]),
        needs_room_of=action.needs_room_of,
        awaited_by=tuple(ground.children[n]),
        blocks=ground.blocks[n],
    )


def _subject(model: ClusterModel, action: PlannedAction) -> str:
    """What an act is about, as people call it; an instance with the host it is on."""
    target = action.parameters.get("resource_id")
    row = int(model.instance_rows([str(target)])[0]) if target and action.host < 0 else -1
    if row < 0:
        return str(action.parameters.get("resource_name") or target or action.action_type)
    host = int(model.host_of[row])
    return label(model, row) + (f" on {model.host_name(host)}" if host >= 0 else "")


def _turned_off(ground: _Ground, host: int) -> bool:
    return any(ground.plan.actions[n].action_type == "change_node_power_state" for n in ground.closing[host])


# -- as JSON -----------------------------------------------------------------------------------


def reason_to_json(model: ClusterModel, reason: Reason, ids: Sequence[str]) -> dict[str, Any]:
    """A reason as it is stored and shown: hosts by name, actions by the uuids in `ids`."""
    return {
        "action_type": reason.action_type,
        "subject": reason.subject,
        "why": list(reason.why),
        "without": list(reason.without),
        "source": _side_to_json(model, reason.source),
        "destination": _side_to_json(model, reason.destination),
        "empties_source": reason.empties,
        "cures": list(reason.cures),
        "elsewhere": None
        if reason.elsewhere is None
        else {
            "feasible": reason.elsewhere.feasible,
            "ruled_out": dict(reason.elsewhere.ruled_out),
            "best": [
                {**one._asdict(), "host": model.host_name(one.host), **_rounded(one.cpu_pct, one.allocated_pct)}
                for one in reason.elsewhere.best
            ],
        },
        "duration_s": round(reason.duration_s, 2),
        "gib": round(reason.gib, 3),
        "needs_room_of": [ids[n] for n in reason.needs_room_of],
        "awaited_by": [ids[n] for n in reason.awaited_by],
        "blocks": reason.blocks,
    }


def _rounded(cpu_pct: float, allocated_pct: float) -> dict[str, float]:
    return {"cpu_pct": round(cpu_pct, 2), "allocated_pct": round(allocated_pct, 2)}


def _side_to_json(model: ClusterModel, side: Side | None) -> dict[str, Any] | None:
    if side is None:
        return None
    shown = {"before": side.before, "alone": side.alone, "after": side.after}
    return {"host": model.host_name(side.host), **{when: _figures(values) for when, values in shown.items()}}


def _figures(values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """Figures by name; None where a host has nothing to be divided by."""
    return {
        name: round(float(value), 2) if np.isfinite(value) else None
        for name, value in zip(FIGURES, values.tolist(), strict=True)
    }
