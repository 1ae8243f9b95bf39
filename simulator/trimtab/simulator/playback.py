"""The compiled walk through load and changes that scores and series are summed up in.

Every host's demand is a step function: it is gone through once per sample over all instances, and at each change over
the two hosts concerned.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from numba import njit

from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.simulator.power import CONSTANT, CUBIC, SQUARE, TABLE
from trimtab.simulator.specpower import watts as table_watts
from trimtab.simulator.timeline import BOOTING, HOST, INSTANCE, UP, Move

OVERLOADED = 0.9
NEARLY = 1e-9  # a host at its limit up to rounding is at its limit

PHASE = 2  # a change that only says which part of the story follows
BEFORE, DURING, AFTER = 0, 1, 2
OVER_DURING, OVER_AFTER, JOULES, FULL_S, ACTIVE_S, ASKED = range(6)


@njit(cache=True)
def play(
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
                sums[JOULES] += spent
                if up[h] and active[h] > 0:
                    sums[ACTIVE_S] += dt
                    if asked >= host_vcpus[h] * (1.0 - NEARLY):
                        sums[FULL_S] += dt
                sums[ASKED] += dt * asked
                if asked > OVERLOADED * host_vcpus[h] * (1.0 + NEARLY):
                    if cursor[1] == DURING:
                        sums[OVER_DURING] += dt
                    elif cursor[1] == AFTER:
                        sums[OVER_AFTER] += dt
                whole[h] += dt * asked
                if cursor[1] == AFTER:
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
                        sums[JOULES] += shutdown_j[h]
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
                    sums[JOULES] += shutdown_j[item]
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
def lost_work(
    start_s: float,
    step_s: float,
    cpu_pct: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    fallback: npt.NDArray[np.float32],
    vcpus: Floats,
    parts: Floats,
    lost: Floats,
) -> None:
    """Add the CPU work that migrations took in this block, vCPU seconds, to `lost` [V]; parts as of `losses`."""
    for i in range(len(parts)):
        v, begin, end, share = int(parts[i, 0]), parts[i, 1], parts[i, 2], parts[i, 3]
        first = max(int((begin - start_s) // step_s), 0)
        last = min(int((end - start_s) // step_s) + 1, len(rows))
        for n in range(first, last):
            overlap = min(end, start_s + (n + 1) * step_s) - max(begin, start_s + n * step_s)
            pct = cpu_pct[rows[n], v] if rows[n] >= 0 else fallback[v]
            if np.isnan(pct):
                pct = fallback[v]
            if overlap > 0:
                lost[v] += overlap * share * pct * vcpus[v] / 100.0


def losses(moves: Iterable[Move], start_s: float, end_s: float) -> Floats:
    """When migrations took CPU in [start, end): instance, from, until, share lost, [L, 4]."""
    parts = [
        (move.instance, max(since, start_s), min(until, end_s), share)
        for move in moves
        if move.running
        for since, until, share in move.losses()
    ]
    return np.array([part for part in parts if part[1] < part[2]], np.float64).reshape(-1, 4)
