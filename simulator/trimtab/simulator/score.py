"""All score formulas, in one place, for rehearsals and for measurements of the simulated cloud; see docs/scores.md.

Load is constant within a sample and placement between two changes, so every host's demand is a step function, whose
steps `playback` walks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.platform.contracts import Score
from trimtab.platform.model import VCPU, ClusterModel
from trimtab.platform.model.compute import Floats
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.rules import groups_broken, rulebook
from trimtab.platform.rules.violations import excess
from trimtab.simulator.playback import (
    ACTIVE_S,
    AFTER,
    ASKED,
    BEFORE,
    DURING,
    FULL_S,
    JOULES,
    NEARLY,
    OVER_AFTER,
    OVER_DURING,
    PHASE,
    losses,
    lost_work,
    play,
)
from trimtab.simulator.power import Power
from trimtab.simulator.timeline import Timeline


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
        overload_min_during=float(sums[OVER_DURING] / 60),
        overload_min_after=float(sums[OVER_AFTER] / 60),
        energy_kwh=float(sums[JOULES] / 3.6e6),
        slatah=float(sums[FULL_S] / sums[ACTIVE_S]) if sums[ACTIVE_S] > 0 else 0.0,
        pdm=float(lost / sums[ASKED]) if sums[ASKED] > 0 else 0.0,
        cpu_sd_pp=float(np.std(busy_pct[counted])) if counted.any() else 0.0,
        hosts_in_use=int((residents > 0).sum()),
        rules_broken=int(
            groups_broken(model, last.host_of).sum()
            + strayed.sum()
            + over.sum()
            + np.count_nonzero(excess(model, rulebook(model), last.host_of))
        ),
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
    parts, lost = losses(timeline.moves, window.start_s, window.end_s), np.zeros(model.instances)
    for given in blocks(window.start_s, window.end_s):
        block = given._replace(cpu_pct=as_shared(given.cpu_pct), fallback=as_shared(given.fallback))
        count = len(block.rows) if samples is not None else 0
        per_sample, joules = np.zeros((count, model.hosts)), np.zeros(count)
        play(
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
        lost_work(*block, vcpus, parts, lost)
        if samples is not None:
            samples.append(_Samples(block.start_s, block.step_s, per_sample, joules))
    return sums, after, whole, float(lost.sum())


def as_shared(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A read-only C view, as arrays from shared memory are: one type, so that the inner loops are compiled once."""
    view = np.ascontiguousarray(values, np.float32).view()
    view.flags.writeable = False
    return view


def _phase_at(window: Window) -> int:
    if window.start_s < window.plan_start_s:
        return BEFORE
    paused = any(begin <= window.start_s < end for begin, end in window.pauses)
    return DURING if window.start_s < window.plan_end_s and not paused else AFTER


def _changes(timeline: Timeline, window: Window) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Times [N] and (kind, row, to, flag) [N, 4] of what changes in the window, phases included, oldest first."""
    rows = [(c.at, c.kind, c.row, c.to, int(c.flag)) for c in timeline.changes if window.start_s < c.at <= window.end_s]
    rows.append((window.plan_start_s, PHASE, 0, DURING, 0))
    for begin, end in window.pauses:
        rows += [(begin, PHASE, 0, AFTER, 0), (end, PHASE, 0, DURING, 0)]
    rows.append((window.plan_end_s, PHASE, 0, AFTER, 0))
    rows = [row for row in rows if window.start_s < row[0] <= window.end_s]
    rows.sort(key=lambda row: row[0])
    return (
        np.array([row[0] for row in rows], np.float64),
        np.array([row[1:] for row in rows], np.int64).reshape(-1, 4),
    )
