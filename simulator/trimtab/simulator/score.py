"""All score formulas, in one place, for rehearsals and for measurements of the simulated cloud; see docs/scores.md.

Load is constant within a sample and placement between two changes, so every host's demand is a step function. `_play`
walks its steps: once per sample over all instances, and at each change over the two hosts concerned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from trimtab.platform.contracts import Score
from trimtab.platform.model import VCPU, ClusterModel
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.rules import groups_broken
from trimtab.simulator.power import CONSTANT, CUBIC, SQUARE, TABLE, Power
from trimtab.simulator.specpower import watts as table_watts
from trimtab.simulator.timeline import BOOTING, HOST, INSTANCE, UP, Move, Timeline

OVERLOADED = 0.9
NEARLY = 1e-9  # a host at its limit up to rounding is at its limit

_PHASE = 2  # a change that only says which part of the story follows
_BEFORE, _DURING, _AFTER = 0, 1, 2
_OVER_DURING, _OVER_AFTER, _JOULES, _FULL_S, _ACTIVE_S, _ASKED = range(6)


class LoadBlock(NamedTuple):
    """Some consecutive samples. Sample n covers `step_s` seconds from `start_s + n * step_s`.

    Its values are row `rows[n]` of `cpu_pct` [R, V] (per cent of the instance's vCPUs); where that row is -1 or the
    value NaN, `fallback` [V] holds.
    """

    start_s: float
    step_s: float
    cpu_pct: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    fallback: npt.NDArray[np.float32]


class Series(NamedTuple):
    """What went on sample by sample, where samples and the time asked for overlap.

    `at_s` [T]: begin of the sample. `seconds` [T]: how much of it was asked for; all of it but at the ends.
    `demand_vcpus` [T, H]: mean demand of the hosts in that time, physical vCPUs. `kwh` [T]: energy of all hosts.
    """

    at_s: Floats
    seconds: Floats
    demand_vcpus: Floats
    kwh: Floats


Blocks = Callable[[float, float], Iterable[LoadBlock]]


class Window(NamedTuple):
    """What is scored: [start, end), with the plan running in [plan_start, plan_end]; cloud time, s.

    Where several plans ran one after the other, [plan_start, plan_end] holds them all, and `pauses` (ascending pairs,
    within it) is when none of them did: that counts as after.
    """

    start_s: float
    end_s: float
    plan_start_s: float
    plan_end_s: float
    pauses: tuple[tuple[float, float], ...] = ()

    @property
    def paused_s(self) -> float:
        """Seconds between the plans."""
        return sum(end - begin for begin, end in self.pauses)


def score(model: ClusterModel, timeline: Timeline, blocks: Blocks, power: Power, window: Window) -> Score:
    """Every field of a score.

    Args:
        model: hosts and instances; its placement is not looked at.
        timeline: what happened; must have begun by `window.start_s`.
        blocks: gives the load between two times.
        power: of the hosts.
        window: what is scored.
    """
    sums, after, whole, lost = _sums(model, timeline, blocks, power, window)
    last = timeline.at(window.end_s)
    used = model.used(last.host_of)
    placed = last.host_of >= 0
    residents = np.bincount(last.host_of[placed], minlength=model.hosts)
    counted = (last.up & last.enabled) | (residents > 0)
    after_s = window.end_s - max(window.plan_end_s, window.start_s) + window.paused_s
    mean = after / after_s if after_s > 0 else whole / (window.end_s - window.start_s)
    busy_pct = 100 * mean / np.maximum(model.total[:, VCPU], NEARLY)
    moves = [m for m in timeline.moves if window.plan_start_s <= m.start <= window.plan_end_s]
    zone = np.where(placed, model.zone.codes[last.host_of], -1)
    strayed = placed & (model.pinned_zone >= 0) & (zone != model.pinned_zone)
    over = (used > model.capacity + ROUNDING).any(axis=1)
    return Score(
        duration_s=max(window.plan_end_s - window.plan_start_s - window.paused_s, 0.0),
        moves=sum(m.arrived and m.end <= window.end_s for m in moves),
        moved_gib=float(sum(m.gib for m in moves)),
        overload_min_during=float(sums[_OVER_DURING] / 60),
        overload_min_after=float(sums[_OVER_AFTER] / 60),
        energy_kwh=float(sums[_JOULES] / 3.6e6),
        slatah=float(sums[_FULL_S] / sums[_ACTIVE_S]) if sums[_ACTIVE_S] > 0 else 0.0,
        pdm=float(lost / sums[_ASKED]) if sums[_ASKED] > 0 else 0.0,
        cpu_sd_pp=float(np.std(busy_pct[counted])) if counted.any() else 0.0,
        hosts_in_use=int((residents > 0).sum()),
        rules_broken=int(groups_broken(model, last.host_of).sum() + strayed.sum() + over.sum()),
    )


def host_cpu(
    model: ClusterModel, timeline: Timeline, blocks: Blocks, power: Power, start_s: float, end_s: float
) -> Floats:
    """Mean demand of every host in every sample of the time, in physical vCPUs, [samples, H]."""
    samples = list[_Samples]()
    _sums(model, timeline, blocks, power, Window(start_s, end_s, start_s, start_s), samples)
    return np.concatenate([part.demand_s / part.step_s for part in samples] or [np.empty((0, model.hosts))])


def play_series(
    model: ClusterModel, timeline: Timeline, blocks: Blocks, power: Power, start_s: float, end_s: float
) -> Series:
    """The same walk as `score`, sample by sample: the sum of `kwh` is the score's `energy_kwh`.

    Args:
        model: hosts and instances; its placement is not looked at.
        timeline: what happened; must have begun by `start_s`.
        blocks: gives the load between two times.
        power: of the hosts.
        start_s: begin of the time.
        end_s: its end.
    """
    parts = list[_Samples]()
    _sums(model, timeline, blocks, power, Window(start_s, end_s, start_s, start_s), parts)
    at = np.concatenate([part.start_s + part.step_s * np.arange(len(part.joules)) for part in parts] or [np.empty(0)])
    ends = np.concatenate(
        [part.start_s + part.step_s * np.arange(1, len(part.joules) + 1) for part in parts] or [np.empty(0)]
    )
    seconds = np.minimum(ends, end_s) - np.maximum(at, start_s)
    there = seconds > 0
    demand_s = np.concatenate([part.demand_s for part in parts] or [np.empty((0, model.hosts))])[there]
    joules = np.concatenate([part.joules for part in parts] or [np.empty(0)])[there]
    return Series(at[there], seconds[there], demand_s / seconds[there, None], joules / 3.6e6)


class _Samples(NamedTuple):
    """Integrals over the samples of one block: demand, vCPU seconds [n, H], and energy of all hosts, J [n]."""

    start_s: float
    step_s: float
    demand_s: Floats
    joules: Floats


def _sums(
    model: ClusterModel,
    timeline: Timeline,
    blocks: Blocks,
    power: Power,
    window: Window,
    samples: list[_Samples] | None = None,
) -> tuple[Floats, Floats, Floats, float]:
    state = timeline.at(window.start_s)
    placed = state.host_of >= 0
    residents = np.bincount(state.host_of[placed], minlength=model.hosts)
    active = np.bincount(state.host_of[placed & state.running], minlength=model.hosts)
    times, codes = _changes(timeline, window)
    cursor = np.array([0, _phase_at(window)], np.int64)
    sums, after, whole = np.zeros(6), np.zeros(model.hosts), np.zeros(model.hosts)
    vcpus = model.demand[:, VCPU].copy()
    windows, lost = _losses(timeline.moves, window), 0.0
    for given in blocks(window.start_s, window.end_s):
        block = given._replace(cpu_pct=as_shared(given.cpu_pct), fallback=as_shared(given.fallback))
        count = len(block.rows) if samples is not None else 0
        per_sample, joules = np.zeros((count, model.hosts)), np.zeros(count)
        _play(
            *block,
            window.start_s,
            window.end_s,
            vcpus,
            state.host_of,
            state.running,
            state.up,
            state.enabled,
            state.booting,
            residents,
            active,
            times,
            codes,
            cursor,
            power.vcpus,
            power.idle_w,
            power.busy_w,
            power.standby_w,
            power.curve,
            power.points,
            power.boot_w,
            power.shutdown_j,
            sums,
            after,
            whole,
            per_sample,
            joules,
        )
        lost += _lost(*block, vcpus, *windows)
        if samples is not None:
            samples.append(_Samples(block.start_s, block.step_s, per_sample, joules))
    return sums, after, whole, lost


def as_shared(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A read-only C view, as arrays from shared memory are: one type, so that the inner loops are compiled once."""
    view = np.ascontiguousarray(values, np.float32).view()
    view.flags.writeable = False
    return view


def _phase_at(window: Window) -> int:
    if window.start_s < window.plan_start_s:
        return _BEFORE
    paused = any(begin <= window.start_s < end for begin, end in window.pauses)
    return _DURING if window.start_s < window.plan_end_s and not paused else _AFTER


def _changes(timeline: Timeline, window: Window) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Times [N] and (kind, row, to, flag) [N, 4] of what changes in the window, phases included, oldest first."""
    rows = [(c.at, c.kind, c.row, c.to, int(c.flag)) for c in timeline.changes if window.start_s < c.at <= window.end_s]
    rows.append((window.plan_start_s, _PHASE, 0, _DURING, 0))
    for begin, end in window.pauses:
        rows += [(begin, _PHASE, 0, _AFTER, 0), (end, _PHASE, 0, _DURING, 0)]
    rows.append((window.plan_end_s, _PHASE, 0, _AFTER, 0))
    rows = [row for row in rows if window.start_s < row[0] <= window.end_s]
    rows.sort(key=lambda row: row[0])
    return (
        np.array([row[0] for row in rows], np.float64),
        np.array([row[1:] for row in rows], np.int64).reshape(-1, 4),
    )


def _losses(moves: tuple[Move, ...], window: Window) -> tuple[Ints, Floats, Floats, Floats]:
    """Times in which migrations take CPU from an instance: rows, from, until, share lost; [L] each."""
    parts = [
        (m.instance, max(begin, window.start_s), min(end, window.end_s), share)
        for m in moves
        if m.running
        for begin, end, share in m.losses()
    ]
    kept = [part for part in parts if part[1] < part[2]]
    table = np.array(kept, np.float64).reshape(-1, 4)
    return table[:, 0].astype(np.int32), table[:, 1].copy(), table[:, 2].copy(), table[:, 3].copy()


@njit(cache=True)
def _play(
    start_s: float,
    step_s: float,
    cpu_pct: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    fallback: npt.NDArray[np.float32],
    begin: float,
    end: float,
    vcpus: Floats,
    host_of: Ints,
    running: Bools,
    up: Bools,
    enabled: Bools,
    booting: Bools,
    residents: npt.NDArray[np.int64],
    active: npt.NDArray[np.int64],
    times: Floats,
    codes: npt.NDArray[np.int64],
    cursor: npt.NDArray[np.int64],
    host_vcpus: Floats,
    idle_w: Floats,
    busy_w: Floats,
    standby_w: Floats,
    curve: npt.NDArray[np.int64],
    points: Floats,
    boot_w: Floats,
    shutdown_j: Floats,
    sums: Floats,
    after: Floats,
    whole: Floats,
    per_sample: Floats,
    joules: Floats,
) -> None:
    """Walk one block; everything from `host_of` to `active`, `cursor` and the sums carry over to the next."""
    hosts = len(host_vcpus)
    demand = np.zeros(hosts)
    since = np.zeros(hosts)
    asks = np.zeros(len(vcpus))
    touched = np.zeros(2, np.int64)
    for n in range(len(rows)):
        a, b = max(start_s + n * step_s, begin), min(start_s + (n + 1) * step_s, end)
        if b <= a:
            continue
        demand[:] = 0.0
        since[:] = a
        row = rows[n]
        for v in range(len(vcpus)):
            pct = cpu_pct[row, v] if row >= 0 else fallback[v]
            if np.isnan(pct):
                pct = fallback[v]
            asks[v] = pct * vcpus[v] / 100.0
            if running[v] and host_of[v] >= 0:
                demand[host_of[v]] += asks[v]
        more = True
        while more:
            more = cursor[0] < len(times) and times[cursor[0]] < b
            now, kind, item, to, flag = b, -1, 0, 0, 0
            if more:
                now = max(times[cursor[0]], a)
                kind, item = codes[cursor[0], 0], codes[cursor[0], 1]
                to, flag = codes[cursor[0], 2], codes[cursor[0], 3]
            count = 0
            if kind == INSTANCE:
                touched[0], touched[1] = host_of[item], to
                count = 2
            elif kind == HOST:
                touched[0] = item
                count = 1
            everywhere = count == 0
            for i in range(hosts if everywhere else count):
                h = i if everywhere else touched[i]
                if h < 0:
                    continue
                dt = now - since[h]
                since[h] = now
                if dt <= 0:
                    continue
                asked = demand[h] if active[h] > 0 else 0.0
                if booting[h]:
                    spent = dt * boot_w[h]
                elif not up[h]:
                    spent = 0.0
                elif residents[h] == 0 and not enabled[h]:
                    spent = dt * standby_w[h]
                else:
                    share = min(max(asked / max(host_vcpus[h], 1e-9), 0.0), 1.0)
                    if curve[h] == TABLE:
                        spent = dt * table_watts(points[h], share)
                    else:
                        spent = dt * (idle_w[h] + busy_w[h] * _shape(curve[h], share))
                sums[_JOULES] += spent
                if up[h] and active[h] > 0:
                    sums[_ACTIVE_S] += dt
                    if asked >= host_vcpus[h] * (1.0 - NEARLY):
                        sums[_FULL_S] += dt
                sums[_ASKED] += dt * asked
                if asked > OVERLOADED * host_vcpus[h] * (1.0 + NEARLY):
                    if cursor[1] == _DURING:
                        sums[_OVER_DURING] += dt
                    elif cursor[1] == _AFTER:
                        sums[_OVER_AFTER] += dt
                whole[h] += dt * asked
                if cursor[1] == _AFTER:
                    after[h] += dt * asked
                if per_sample.shape[0] > 0:
                    per_sample[n, h] += dt * asked
                    joules[n] += spent
            if not more:
                break
            if kind == INSTANCE:
                h = host_of[item]
                if h >= 0:
                    residents[h] -= 1
                    if residents[h] == 0 and h != to and up[h] and not enabled[h]:
                        sums[_JOULES] += shutdown_j[h]
                        if len(joules) > 0:
                            joules[n] += shutdown_j[h]
                    if running[item]:
                        active[h] -= 1
                        demand[h] -= asks[item]
                host_of[item] = to
                running[item] = flag != 0
                if to >= 0:
                    residents[to] += 1
                    if flag != 0:
                        active[to] += 1
                        demand[to] += asks[item]
            elif kind == HOST:
                if up[item] and to == UP and enabled[item] and flag == 0 and residents[item] == 0:
                    sums[_JOULES] += shutdown_j[item]
                    if len(joules) > 0:
                        joules[n] += shutdown_j[item]
                up[item] = to == UP
                booting[item] = to == BOOTING
                enabled[item] = flag != 0
            else:
                cursor[1] = to
            cursor[0] += 1


@njit(cache=True, inline="always")
def _shape(curve: int, share: float) -> float:
    """The way from idle to busy: 0..1 of what is added at full load."""
    if curve == CONSTANT:
        return 1.0
    if curve == SQUARE:
        return share * share
    if curve == CUBIC:
        return share * share * share
    return share


@njit(cache=True)
def _lost(
    start_s: float,
    step_s: float,
    cpu_pct: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    fallback: npt.NDArray[np.float32],
    vcpus: Floats,
    instance: Ints,
    begin: Floats,
    end: Floats,
    share: Floats,
) -> float:
    """CPU work lost in this block, vCPU seconds."""
    lost = 0.0
    for i in range(len(instance)):
        v = instance[i]
        first = max(int((begin[i] - start_s) // step_s), 0)
        last = min(int((end[i] - start_s) // step_s) + 1, len(rows))
        for n in range(first, last):
            overlap = min(end[i], start_s + (n + 1) * step_s) - max(begin[i], start_s + n * step_s)
            pct = cpu_pct[rows[n], v] if rows[n] >= 0 else fallback[v]
            if np.isnan(pct):
                pct = fallback[v]
            if overlap > 0:
                lost += overlap * share[i] * pct * vcpus[v] / 100.0
    return lost
