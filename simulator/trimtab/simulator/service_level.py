"""What users feel: overload, degradation by migrations, contention, memory pressure and downtime.

OTF, PDM, SLAV and ESV: A. Beloglazov and R. Buyya, "Optimal online deterministic algorithms and adaptive heuristics for
energy and performance efficient dynamic consolidation of virtual machines in cloud data centers", CCPE 24(13), 2012;
OTF is called SLATAH there. Contention: max-min fair sharing with weights (Demers, Keshav and Shenker, SIGCOMM 1989),
which is what CFS does with guests whose CPU shares are proportional to their vCPUs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from trimtab.platform.model import VCPU, ClusterModel
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.simulator.memory_pressure import memory_pressure
from trimtab.simulator.playback import NEARLY, OVERLOADED, losses, lost_work
from trimtab.simulator.power import Power
from trimtab.simulator.score import Blocks, Window, as_shared, score
from trimtab.simulator.timeline import HOST, INSTANCE, UP, Timeline
from trimtab.simulator.world import BURNS_CPU


class ServiceLevel(NamedTuple):
    """Of the time [start, end) of a window; what a plan's begin and end are does not matter.

    `otf`: mean over hosts that ran something of (time with demand >= vCPUs) / (time active), 0..1. `pdm`: mean over
    instances that asked for CPU of (work lost to migrations) / (work asked for), 0..1. `slav` = otf x pdm.
    `esv` = energy (kWh) x slav. `overload_min`: host-minutes with demand > 0.9 vCPUs, demand of guests only.
    `memory_pressure_min`: host-minutes. `down_min`: instance-minutes in which an instance was on a host, should have
    run and did not: its host was dead or booting, or it was being rebuilt or resized; one that was stopped should not
    run. `migration_stop_min`: instance-minutes stopped by migrations. `undelivered_vcpu_h`: CPU work that full hosts
    could not give. `worst_undelivered`: largest share of its work that one instance missed that way.
    `memory_excess_gib_h`: memory beyond the physical.
    """

    otf: float
    pdm: float
    slav: float
    esv: float
    overload_min: float
    memory_pressure_min: float
    down_min: float
    migration_stop_min: float = 0.0
    undelivered_vcpu_h: float = 0.0
    worst_undelivered: float = 0.0
    memory_excess_gib_h: float = 0.0


class Contention(NamedTuple):
    """Integrals over a time, of hosts [H] in seconds and of instances [V] in vCPU seconds.

    `active_s`: something ran; `full_s`: demand >= vCPUs; `over_s`: demand > 0.9 vCPUs. `asked`: while it ran;
    `undelivered`: a full host did not give it; `lost`: migrations took it.
    """

    active_s: Floats
    full_s: Floats
    over_s: Floats
    asked: Floats
    undelivered: Floats
    lost: Floats


def service_level(
    model: ClusterModel,
    timeline: Timeline,
    blocks: Blocks,
    power: Power,
    window: Window,
    memory_mb: Floats | None = None,
    energy_kwh: float | None = None,
) -> ServiceLevel:
    """Service level of what happened.

    Args:
        model: hosts and instances; its placement is not looked at.
        timeline: what happened; must have begun by `window.start_s`.
        blocks: gives the load between two times.
        power: of the hosts.
        window: [start, end) counts.
        memory_mb: memory that each instance uses, [V]; what it asked for if not given.
        energy_kwh: of the window, where it is known already.
    """
    begin, end = window.start_s, window.end_s
    seen = contention(model, timeline, blocks, begin, end)
    pressure = memory_pressure(model, timeline, begin, end, memory_mb)
    active, asking = seen.active_s > 0, seen.asked > 0
    otf = float((seen.full_s[active] / seen.active_s[active]).mean()) if active.any() else 0.0
    pdm = float((seen.lost[asking] / seen.asked[asking]).mean()) if asking.any() else 0.0
    if energy_kwh is None:
        energy_kwh = score(model, timeline, blocks, power, window).energy_kwh
    stopped = sum(
        max(min(until, end) - max(since, begin), 0.0)
        for move in timeline.moves
        if move.running
        for since, until, share in move.losses()
        if share == 1.0
    )
    return ServiceLevel(
        otf=otf,
        pdm=pdm,
        slav=otf * pdm,
        esv=energy_kwh * otf * pdm,
        overload_min=float(seen.over_s.sum() / 60),
        memory_pressure_min=pressure.minutes,
        down_min=down_seconds(model, timeline, begin, end) / 60,
        migration_stop_min=stopped / 60,
        undelivered_vcpu_h=float(seen.undelivered.sum() / 3600),
        worst_undelivered=float((seen.undelivered[asking] / seen.asked[asking]).max()) if asking.any() else 0.0,
        memory_excess_gib_h=pressure.excess_gib_h,
    )


def down_seconds(model: ClusterModel, timeline: Timeline, start_s: float, end_s: float) -> float:
    """Instance-seconds in [start, end) in which an instance was on a host, should have run and did not."""
    state, wanted = timeline.at(start_s), np.isin(model.state, BURNS_CPU)
    for change in timeline.changes:
        if change.kind == INSTANCE and change.at <= start_s:
            wanted[change.row] = change.wanted
    down = wanted & (state.host_of >= 0) & ~state.running
    since, total = np.full(model.instances, start_s), 0.0
    for change in timeline.changes:
        if change.kind != INSTANCE or not start_s < change.at < end_s:
            continue
        row = change.row
        if down[row]:
            total += change.at - since[row]
        since[row], down[row] = change.at, change.wanted and change.to >= 0 and not change.flag
    return float(total + (end_s - since[down]).sum())


def contention(model: ClusterModel, timeline: Timeline, blocks: Blocks, start_s: float, end_s: float) -> Contention:
    """Who asked for CPU, who was on full hosts, and who did not get what it asked for, in [start, end)."""
    state = timeline.at(start_s)
    hosts, vcpus = model.hosts, model.demand[:, VCPU].copy()
    changes = [c for c in timeline.changes if start_s < c.at < end_s]
    times = np.array([c.at for c in changes], np.float64)
    codes = np.array([(c.kind, c.row, c.to, int(c.flag)) for c in changes], np.int64).reshape(-1, 4)
    head, after, before = _chains(hosts, state.host_of, state.running)
    parts = losses(timeline.moves, start_s, end_s)
    of_hosts, of_instances = np.zeros((3, hosts)), np.zeros((3, model.instances))
    cursor = np.zeros(1, np.int64)
    for given in blocks(start_s, end_s):
        block = given._replace(cpu_pct=as_shared(given.cpu_pct), fallback=as_shared(given.fallback))
        _walk(
            *block,
            start_s,
            end_s,
            vcpus,
            model.total[:, VCPU].copy(),
            state.host_of,
            state.running,
            state.up,
            head,
            after,
            before,
            times,
            codes,
            cursor,
            of_hosts,
            of_instances,
        )
        lost_work(*block, vcpus, parts, of_instances[2])
    return Contention(*of_hosts, *of_instances)


@njit(cache=True)
def fair_share(asks: Floats, weights: Floats, capacity: float) -> Floats:
    """What each of some guests gets of a host, same unit as `asks`: weighted max-min fair, [n].

    Nobody gets more than it asks for; those that get less all have the same level of share per weight, and nobody else
    has more. All of the capacity is given out while somebody wants it.
    """
    order = np.argsort(asks / np.maximum(weights, 1e-9))
    given = np.zeros(len(asks))
    left, weight = capacity, weights.sum()
    for position in range(len(order)):
        v = order[position]
        if weights[v] <= 0:
            continue
        given[v] = min(asks[v], max(left, 0.0) * weights[v] / weight)
        left -= given[v]
        weight -= weights[v]
    return given


@njit(cache=True)
def _chains(
    hosts: int, host_of: Ints, running: Bools
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Running instances of each host as doubly linked lists: first of each host, next and previous of each instance."""
    head = np.full(hosts, -1, np.int64)
    after, before = np.full(len(host_of), -1, np.int64), np.full(len(host_of), -1, np.int64)
    for v in range(len(host_of)):
        if running[v] and host_of[v] >= 0:
            _link(head, after, before, v, host_of[v])
    return head, after, before


@njit(cache=True, inline="always")
def _link(
    head: npt.NDArray[np.int64], after: npt.NDArray[np.int64], before: npt.NDArray[np.int64], v: int, h: int
) -> None:
    after[v], before[v] = head[h], -1
    if head[h] >= 0:
        before[head[h]] = v
    head[h] = v


@njit(cache=True, inline="always")
def _unlink(
    head: npt.NDArray[np.int64], after: npt.NDArray[np.int64], before: npt.NDArray[np.int64], v: int, h: int
) -> None:
    if before[v] >= 0:
        after[before[v]] = after[v]
    else:
        head[h] = after[v]
    if after[v] >= 0:
        before[after[v]] = before[v]


@njit(cache=True)
def _walk(
    start_s: float,
    step_s: float,
    cpu_pct: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    fallback: npt.NDArray[np.float32],
    begin: float,
    end: float,
    vcpus: Floats,
    host_vcpus: Floats,
    host_of: Ints,
    running: Bools,
    up: Bools,
    head: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    before: npt.NDArray[np.int64],
    times: Floats,
    codes: npt.NDArray[np.int64],
    cursor: npt.NDArray[np.int64],
    of_hosts: Floats,
    of_instances: Floats,
) -> None:
    """Walk one block: everything from `host_of` to `before`, `cursor` and the sums carry over to the next."""
    hosts = len(host_vcpus)
    since, asks = np.zeros(hosts), np.zeros(len(vcpus))
    touched = np.zeros(2, np.int64)
    for n in range(len(rows)):
        a, b = max(start_s + n * step_s, begin), min(start_s + (n + 1) * step_s, end)
        if b <= a:
            continue
        since[:] = a
        for v in range(len(vcpus)):
            pct = cpu_pct[rows[n], v] if rows[n] >= 0 else fallback[v]
            if np.isnan(pct):
                pct = fallback[v]
            asks[v] = pct * vcpus[v] / 100.0
        more = True
        while more:
            more = cursor[0] < len(times) and times[cursor[0]] < b
            now, item, to, count = b, -1, 0, hosts
            kind, flag = -1, False
            if more:
                now = max(times[cursor[0]], a)
                kind, item = codes[cursor[0], 0], codes[cursor[0], 1]
                to, flag = codes[cursor[0], 2], codes[cursor[0], 3] != 0
                if kind == INSTANCE:
                    touched[0], touched[1], count = host_of[item], to, 2
                else:
                    touched[0], count = item, 1
            for i in range(count):
                h = touched[i] if more else i
                if h < 0 or now <= since[h]:
                    continue
                _account(h, now - since[h], vcpus, asks, host_vcpus[h], up[h], head, after, of_hosts, of_instances)
                since[h] = now
            if not more:
                break
            if kind == INSTANCE:
                if running[item] and host_of[item] >= 0:
                    _unlink(head, after, before, item, host_of[item])
                host_of[item], running[item] = to, flag
                if flag and to >= 0:
                    _link(head, after, before, item, to)
            elif kind == HOST:
                up[item] = to == UP
            cursor[0] += 1


@njit(cache=True)
def _account(
    h: int,
    dt: float,
    vcpus: Floats,
    asks: Floats,
    capacity: float,
    up: bool,
    head: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    of_hosts: Floats,
    of_instances: Floats,
) -> None:
    """Book a piece of time of one host in which nothing changed."""
    demand, count, v = 0.0, 0, head[h]
    while v >= 0:
        demand += asks[v]
        of_instances[0, v] += dt * asks[v]
        count += 1
        v = after[v]
    if up and count > 0:
        of_hosts[0, h] += dt
        if demand >= capacity * (1.0 - NEARLY):
            of_hosts[1, h] += dt
    if demand > OVERLOADED * capacity * (1.0 + NEARLY):
        of_hosts[2, h] += dt
    if demand > capacity * (1.0 + NEARLY):
        who, v = np.zeros(count, np.int64), head[h]
        for i in range(count):
            who[i] = v
            v = after[v]
        given = fair_share(asks[who], vcpus[who], capacity)
        for i in range(count):
            of_instances[1, who[i]] += dt * (asks[who[i]] - given[i])
