"""Worth of moves: what bring less over the instance's expected remaining life than they cost is left out.

Everything is counted in core-seconds: CPU work that is done or lost. The rule is that of Harchol-Balter and Downey,
"Exploiting process lifetime distributions for dynamic load balancing", ACM TOCS 15(3), 1997: migrate when what the
expected remaining life brings exceeds the cost. Lifetimes of processes, and of virtual machines (Cortez et al.,
"Resource Central", SOSP 2017), have Pareto tails; there who has lived for t is expected to live about t longer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from trimtab.platform import rules
from trimtab.platform.contracts import Goal
from trimtab.platform.model import VCPU, ClusterModel
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.observed import observed
from trimtab.platform.planner.durations import transfer
from trimtab.platform.proposal import Act, Candidate, Migrate, Step
from trimtab.platform.snapshot import Snapshot

MOST_LISTED = 20
MOST_ROUNDS = 8
CLOSED = ("disabled", "off")


@dataclass(frozen=True, slots=True)
class Prices:
    """What costs and gains are worth in core-seconds, and how long they last.

    The defaults: 10 % of the load lost while migrating live (Beloglazov and Buyya, CCPE 24(13), 2012); two core-seconds
    a GiB sent, for a sending and a receiving thread at 1 GiB/s; power as rehearsals assume it; 7 W for a busy core with
    its share of the host, which is what a saved watt would otherwise pay for.
    """

    live_loss: float = 0.10  # share of its load that an instance loses while it is copied
    core_s_per_gib: float = 2.0  # core-seconds
    overload: float = 0.9  # share of a host's physical CPU above which work is late
    idle_w: float = 60.0  # W of an idle host, whatever its size
    idle_w_per_vcpu: float = 1.5  # W more for every physical vCPU
    standby_w: float = 8.0  # W of a host that is empty and disabled
    w_per_core: float = 7.0  # W for which one core is busy
    unevenness: float = 0.1  # cores lost per core of squared relative distance from the mean load
    life_per_age: float = 1.0  # expected remaining life by age; 1 / (alpha - 1) for a Pareto tail alpha
    horizon_s: float = 86_400.0  # s; nobody counts with more, nor with less where the age is unknown


class LeftOut(NamedTuple):
    """One move that is not worth it; `host` is the one it would have helped to empty, or -1.

    `gain` is in cores (core-seconds a second), `cost` in core-seconds, `life_s` what the instance is expected to live.
    """

    instance: int
    source: int
    destination: int
    gain: float
    cost: float
    life_s: float
    host: int = -1


class Weighed(NamedTuple):
    """A candidate without what is not worth it, and what that was."""

    candidate: Candidate
    left_out: tuple[LeftOut, ...] = ()


class _Moves(NamedTuple):
    """Net moves, [M] each; `unit` numbers those that are judged together."""

    instance: Ints
    source: Ints
    destination: Ints
    live: Bools
    unit: Ints


def remaining_s(snapshot: Snapshot, prices: Prices = Prices()) -> Floats:
    """Expected remaining life of every instance in s, [V]: its age, at most the horizon."""
    created = snapshot.model.created
    born = np.array([_moment(text) for text in created.names] or [np.nan], np.float64)[created.codes]
    age = snapshot.taken_at - born
    life = np.clip(age * prices.life_per_age, 0.0, prices.horizon_s)
    return np.where(np.isnan(age), prices.horizon_s, life)


def cost_of(snapshot: Snapshot, instances: Ints, live: Bools, prices: Prices = Prices()) -> Floats:
    """What migrations cost in core-seconds, [N]: work lost while copying and while stopped, and the memory sent."""
    moved, cores = transfer(snapshot.model, instances, live), observed(snapshot).cores[instances]
    lost = cores * (moved.copied_s * prices.live_loss + moved.stopped_s)
    return lost + moved.gib * prices.core_s_per_gib


def weigh(
    snapshot: Snapshot,
    candidate: Candidate,
    goal: Goal,
    prices: Prices = Prices(),
    *,
    hosts_too: bool = True,
) -> Weighed:
    """Leave out moves that bring less than they cost; the candidate itself where there are none.

    Its indicators stay as they were: they are counted anew from the plan that is made of it (see `efficacy`).

    A move's gain is what would be lost without it while all others are done: overload on the source less that on the
    destination; power of a host that is emptied, shared among those who leave it, less that of one opened (where the
    goal counts energy or hosts); evenness of the load (where the goal counts its deviation). Moves that empty a host
    are left out together or not at all (`hosts_too` False: not at all). Always worth it: what leaves a host that is
    over capacity, down or disabled, what a broken rule is about, and what others need to have room.

    Args:
        snapshot: model, load and time.
        candidate: as the strategy proposed it.
        goal: whose ordering says what counts.
        prices: units and rates.
        hosts_too: whether hosts may be left full that the candidate empties.
    """
    model = snapshot.model
    moves = _moves_of(model, candidate)
    if not len(moves.instance):
        return Weighed(candidate)
    life = remaining_s(snapshot, prices)[moves.instance]
    cost = cost_of(snapshot, moves.instance, moves.live, prices)
    cores = observed(snapshot).cores
    held = _always(model, moves)
    if not hosts_too:
        held |= moves.unit < model.hosts
    stays = np.zeros(len(moves.instance), bool)
    gain = np.zeros(len(moves.instance))
    for _ in range(MOST_ROUNDS):
        fresh = _gains(model, moves, cores, goal, prices, ~stays)
        gain = np.where(stays, gain, fresh)
        poor = _poor(moves, fresh * life - cost, held) & ~stays
        if not poor.any():
            break
        stays |= poor
    stays = _with_room(model, moves, stays)
    if not stays.any():
        return Weighed(candidate)
    reduced = _without(candidate, moves, stays)
    if rules.judge(model, reduced):  # a rule holds only with all of them
        return Weighed(candidate)
    left_out = tuple(
        LeftOut(
            int(moves.instance[n]),
            int(moves.source[n]),
            int(moves.destination[n]),
            float(gain[n]),
            float(cost[n]),
            float(life[n]),
            int(moves.unit[n]) if moves.unit[n] < model.hosts else -1,
        )
        for n in np.flatnonzero(stays).tolist()
    )
    return Weighed(replace(reduced, notes=(*candidate.notes, *described(model, left_out))), left_out)


def described(model: ClusterModel, left_out: tuple[LeftOut, ...]) -> list[str]:
    """What was left out, one line each, the dearest first; at most `MOST_LISTED`, then how many more."""
    lines = []
    for one in sorted(left_out, key=lambda one: one.gain * one.life_s - one.cost)[:MOST_LISTED]:
        name = model.instance_name(one.instance) or model.instance_id(one.instance)
        together = f", with all that would have emptied {model.host_name(one.host)}" if one.host >= 0 else ""
        lines.append(
            f"{name} stays on {model.host_name(one.source)}: moving it costs {one.cost:.1f} core-s and brings "
            f"{one.gain * one.life_s:.1f} in the {one.life_s / 60:.0f} min it is expected to live{together}"
        )
    rest = len(left_out) - MOST_LISTED
    return lines if rest <= 0 else [*lines, f"and {rest} more moves that are not worth their cost"]


def _moves_of(model: ClusterModel, candidate: Candidate) -> _Moves:
    last: dict[int, Migrate] = {}
    for step in candidate.steps:
        if isinstance(step, Migrate):
            last[step.instance] = step
    found = [step for step in last.values() if step.destination >= 0]
    instance = np.array([step.instance for step in found], np.int32)
    source = model.host_of[instance]
    away = np.array([step.destination for step in found], np.int32) != source
    instance, source = instance[away], source[away]
    destination = np.array([step.destination for step in found], np.int32)[away]
    before = _guests(model, model.host_of)
    after = _guests(model, candidate.final_host_of(model))
    emptied = (before > 0) & (after == 0)
    unit = np.where(emptied[source], source, model.hosts + np.arange(len(instance))).astype(np.int32)
    return _Moves(instance, source, destination, np.array([step.live for step in found], bool)[away], unit)


def _guests(model: ClusterModel, host_of: Ints) -> Ints:
    return np.bincount(host_of[host_of >= 0], minlength=model.hosts).astype(np.int32)


def _always(model: ClusterModel, moves: _Moves) -> Bools:
    """Moves nobody asks the price of: they cure something."""
    over: Bools = np.any(model.used() > model.capacity + ROUNDING, axis=1)
    wrong: Bools = model.derived("instances a broken rule is about", _wrong)
    return over[moves.source] | ~model.usable[moves.source] | wrong[moves.instance]


def _wrong(model: ClusterModel) -> Bools:
    wrong = np.zeros(model.instances, bool)
    for violation in rules.broken(model):
        if violation.rule != "capacity":
            wrong[list(violation.members)] = True
    return wrong


def _gains(model: ClusterModel, moves: _Moves, cores: Floats, goal: Goal, prices: Prices, done: Bools) -> Floats:
    """Cores that each move brings when all of `done` are done, [M]."""
    place = model.host_of.copy()
    place[moves.instance[done]] = moves.destination[done]
    placed = place >= 0
    load: Floats = np.bincount(place[placed], cores[placed], model.hosts).astype(np.float64)
    vcpus = np.maximum(model.total[:, VCPU], 1e-9)
    c, s, d = cores[moves.instance], moves.source, moves.destination

    def late(host: Ints, at: Floats) -> Floats:
        return np.maximum(at - prices.overload * vcpus[host], 0.0)

    gain = late(s, load[s] + c) - late(s, load[s]) - late(d, load[d]) + late(d, load[d] - c)
    if {"energy_kwh", "hosts_in_use"} & set(goal.ordering):
        saved = (prices.idle_w + prices.idle_w_per_vcpu * vcpus - prices.standby_w) / prices.w_per_core
        before, after = _guests(model, model.host_of), _guests(model, place)
        leaving = np.bincount(s[done], minlength=model.hosts)
        coming = np.bincount(d[done], minlength=model.hosts)
        gain += np.where((before > 0) & (after == 0), saved / np.maximum(leaving, 1), 0.0)[s]
        gain -= np.where((before == 0) & (after > 0), saved / np.maximum(coming, 1), 0.0)[d]
    if "cpu_sd_pp" in goal.ordering:
        mean = float(load[model.usable].sum() / max(vcpus[model.usable].sum(), 1e-9))

        def uneven(host: Ints, at: Floats) -> Floats:
            return vcpus[host] * (at / vcpus[host] - mean) ** 2

        gain += prices.unevenness * (uneven(s, load[s] + c) - uneven(s, load[s]))
        gain += prices.unevenness * (uneven(d, load[d] - c) - uneven(d, load[d]))
    return gain


def _poor(moves: _Moves, net: Floats, held: Bools) -> Bools:
    """Moves of units that bring less than they cost, all together."""
    _, unit = np.unique(moves.unit, return_inverse=True)
    return (np.bincount(unit, net) < 0)[unit] & ~(np.bincount(unit, held) > 0)[unit]


def _with_room(model: ClusterModel, moves: _Moves, stays: Bools) -> Bools:
    """Those that may stay: where arrivals need their room they go all the same, with their units."""
    stays, before = stays.copy(), model.used()
    while stays.any():
        place = model.host_of.copy()
        place[moves.instance[~stays]] = moves.destination[~stays]
        used = model.used(place)
        over: Bools = np.any((used > model.capacity + ROUNDING) & (used > before + ROUNDING), axis=1)
        needed = np.unique(moves.unit[stays & over[moves.source]])
        if not len(needed):
            return stays
        stays &= ~np.isin(moves.unit, needed)
    return stays


def _without(candidate: Candidate, moves: _Moves, stays: Bools) -> Candidate:
    """The candidate without some moves, without closing what they would have emptied, or opening what nobody needs."""
    gone = set(moves.instance[stays].tolist())
    kept_full = set(moves.source[stays].tolist())
    arrives = set(moves.destination[~stays].tolist())
    unwanted = set(moves.destination[stays].tolist()) - arrives

    def keeps(step: Step) -> bool:
        if isinstance(step, Migrate):
            return step.instance not in gone
        return not (_sets(step, CLOSED) and step.host in kept_full) and not (
            _sets(step, ("enabled", "on")) and step.host in unwanted
        )

    return replace(candidate, steps=tuple(step for step in candidate.steps if keeps(step)))


def _sets(step: Act, states: tuple[str, ...]) -> bool:
    return step.host >= 0 and step.parameters.get("state") in states


def _moment(text: str) -> float:
    """Seconds since the epoch; NaN for what is no time. Without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return float("nan")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
