"""Compiled: the first placement, and at every tick which VMs migrate where.

Decisions are made on a what-if copy of the placement: VMs are taken off overloaded hosts, placed where the power grows
least, and then hosts with little use are emptied as far as others can take everything. Sums of a host are kept in the
order of its list, and a VM that is tried comes last, so trying one needs no new sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from trimtab.simulator.planetlab.detect import overloaded
from trimtab.simulator.planetlab.fleet import HOST_NETWORK, VM_NETWORK, Floats, Ints
from trimtab.simulator.planetlab.flow import append, watts_at
from trimtab.simulator.planetlab.rules import IQR, LR, LRR, MAD, Flags
from trimtab.simulator.planetlab.select import pick
from trimtab.simulator.planetlab.state import WINDOW, Bools, State


class WhatIf(NamedTuple):
    """The what-if placement: hosts [H], and what was appended to their lists."""

    demand: Floats  # [H] MIPS, not capped
    free: Floats  # [H] MIPS not asked for
    used: Floats  # [H] MIPS allocated
    memory: Floats  # [H] MB free
    base: Floats  # [H] W that the power with one VM more is compared with
    length: Ints  # [H] samples of history that count
    tail: Floats  # [H, window] history, newest last
    residents: Ints  # [H]
    over: Bools  # [H] overloaded
    asleep: Bools  # [H] switched off
    off: Bools  # [V] taken off an overloaded host
    last: Ints  # [H] latest appended, -1: none
    added: Ints  # [4V] VM
    earlier: Ints  # [4V] appended before
    candidates: Ints  # [H] in the order of hosts
    work: Floats  # scratch


@njit(cache=True)
def place_first(s: State, rules: Flags, best_fit: bool) -> int:
    """Place every VM with its nominal size; returns the first that fits nowhere, or -1.

    First fit, or the host whose power grows least; the power before is that at no use, or that of the placement so far.
    """
    hosts = len(s.total)
    free, memory, network = s.total.copy(), s.host_memory.copy(), np.full(hosts, HOST_NETWORK)
    placed = np.zeros(hosts)
    for v in range(len(s.mips)):
        best, least = -1, np.inf
        for host in range(hosts):
            fits = s.core[host] >= s.mips[v] and free[host] >= s.mips[v]
            if not (fits and memory[host] >= s.memory[v] and network[host] >= VM_NETWORK):
                continue
            if not best_fit:
                best = host
                break
            before = 0.0
            if rules.power_against_measured:
                before = s.watts[s.kind[host], 0]
            elif s.residents[host] > 0:
                before = watts_at(s, s.kind[host], placed[host] / s.total[host])
            more = watts_at(s, s.kind[host], (placed[host] + s.mips[v]) / s.total[host]) - before
            if more < least:
                best, least = host, more
        if best < 0:
            return v
        free[best] -= s.mips[v]
        placed[best] += s.mips[v]
        memory[best] -= s.memory[v]
        network[best] -= VM_NETWORK
        s.home[v] = best
        append(s, best, v)
    return -1


@njit(cache=True)
def decide(
    s: State, rules: Flags, detection: int, selection: int, parameter: float, tick: int, movers: Ints, targets: Ints
) -> tuple[int, int]:
    """One consolidation step; returns how many migrations it filled in, and how many hosts were overloaded.

    Args:
        s: right after the full update of this tick; no migration is under way.
        rules: see `rules.Rules`.
        detection: row of `rules.DETECTIONS`.
        selection: row of `rules.SELECTIONS`.
        parameter: of the detection.
        tick: number, from 1.
        movers: VMs that migrate, [2V], filled in.
        targets: hosts, [2V], filled in.
    """
    hosts, vms = len(s.total), len(s.mips)
    w = what_if(s, rules, detection, tick)
    count_over = 0
    for host in range(hosts):
        if s.residents[host] > 0:
            add_up(s, w, host, tick)
            if is_over(s, w, rules, detection, parameter, host):
                w.over[host] = True
                count_over += 1
    taken, many = np.empty(vms, np.int64), 0
    list_of = np.empty(vms, np.int64)
    for host in range(hosts):
        while w.over[host]:
            count = residents_of(s, w, host, list_of)
            if count == 0:
                break
            v = list_of[pick(s, selection, tick, list_of, count)]
            taken[many] = v
            many += 1
            w.off[v] = True
            add_up(s, w, host, tick)
            if not is_over(s, w, rules, detection, parameter, host):
                break
    by_demand(s, taken, many)
    moves = relieve(s, w, rules, detection, parameter, tick, taken, many, movers, targets)
    moves = empty_out(s, w, rules, detection, parameter, tick, moves, movers, targets, list_of)
    return moves, count_over


@njit(cache=True)
def what_if(s: State, rules: Flags, detection: int, tick: int) -> WhatIf:
    """A what-if copy in which nothing has been tried."""
    hosts, vms = len(s.total), len(s.mips)
    window = 0
    if detection == LR or detection == LRR:  # noqa: PLR1714
        window = min(tick, 10)
    elif detection == IQR or detection == MAD:  # noqa: PLR1714
        window = min(tick, WINDOW)
    base = s.power.copy()
    asleep = s.used == 0
    if not rules.unused_is_off:
        asleep = s.residents == 0
    if not rules.power_against_measured:
        base[:] = 0.0
    return WhatIf(
        np.zeros(hosts),
        s.total.copy(),
        np.zeros(hosts),
        s.host_memory.copy(),
        base,
        np.zeros(hosts, np.int64),
        np.zeros((hosts, window)),
        s.residents.copy(),
        np.zeros(hosts, np.bool_),
        asleep,
        np.zeros(vms, np.bool_),
        np.full(hosts, -1, np.int64),
        np.empty(4 * vms, np.int64),
        np.empty(4 * vms, np.int64),
        np.empty(hosts, np.int64),
        np.empty(30),
    )


@njit(cache=True)
def residents_of(s: State, w: WhatIf, host: int, out: Ints) -> int:
    """What-if VMs of a host in the order of arrival; returns how many."""
    count = 0
    node = s.head[host]
    while node >= 0:
        if not w.off[node]:
            out[count] = node
            count += 1
        node = s.after[node]
    first, entry = count, w.last[host]
    while entry >= 0:
        out[count] = w.added[entry]
        count += 1
        entry = w.earlier[entry]
    out[first:count] = out[first:count][::-1].copy()
    return count


@njit(cache=True)
def add_up(s: State, w: WhatIf, host: int, tick: int) -> None:
    """Sums of a host without the VMs taken off, before anything is appended."""
    total, core, kind = s.total[host], s.core[host], s.kind[host]
    window = w.tail.shape[1]
    demand, free, used, fits, length, count = 0.0, total, 0.0, True, 0, 0
    memory = s.host_memory[host]
    tail = w.tail[host]
    tail[:] = 0.0
    node = s.head[host]
    while node >= 0:
        if not w.off[node]:
            ask = min(s.demand[node], core)
            demand += s.demand[node]
            if fits and free >= ask:
                free -= ask
            elif ask > 0:
                fits = False
            used += ask
            memory -= s.memory[node]
            length = max(length, known(s, node, tick))
            weight = s.weight[kind, node]
            for n in range(window):
                tail[n] += weight[tick - window + n]
            count += 1
        node = s.after[node]
    if not fits:
        free = 0.0
        part, used = total / used, 0.0
        node = s.head[host]
        while node >= 0:
            if not w.off[node]:
                ask = min(s.demand[node], core) * part
                used += np.floor(ask)
            node = s.after[node]
    w.demand[host], w.free[host], w.used[host], w.length[host] = demand, free, used, length
    w.memory[host], w.residents[host] = memory, count


@njit(cache=True)
def known(s: State, v: int, tick: int) -> int:
    """Samples of history up to the oldest that is not zero, at most the window."""
    first = max(tick - WINDOW, 0)
    return max(tick - s.next_busy[v, first], 0)


@njit(cache=True)
def is_over(s: State, w: WhatIf, rules: Flags, detection: int, parameter: float, host: int) -> bool:
    """Is a host overloaded in the what-if placement?"""
    share = w.demand[host] / s.total[host]
    return overloaded(detection, parameter, rules.unweighted_regression, share, w.tail[host], w.length[host], w.work)


@njit(cache=True)
def stays_well(
    s: State, w: WhatIf, rules: Flags, detection: int, parameter: float, tick: int, host: int, v: int, trial: Floats
) -> bool:
    """Would a host not be overloaded with one VM more?"""
    share = (w.demand[host] + s.demand[v]) / s.total[host]
    window = len(trial)
    weight = s.weight[s.kind[host], v]
    for n in range(window):
        trial[n] = w.tail[host, n] + weight[tick - window + n]
    length = max(w.length[host], known(s, v, tick))
    return not overloaded(detection, parameter, rules.unweighted_regression, share, trial, length, w.work)


@njit(cache=True)
def find_host(
    s: State, w: WhatIf, rules: Flags, detection: int, parameter: float, tick: int, v: int, count: int, trial: Floats
) -> tuple[int, float]:
    """Candidate whose power grows least with the VM, and by how much; -1: none. The first of equals."""
    demand, memory = s.demand[v], s.memory[v] if rules.memory_binds else -np.inf
    best, least = -1, np.inf
    for n in range(count):
        host = w.candidates[n]
        if w.free[host] < demand or s.core[host] < demand or w.memory[host] < memory:
            continue
        more = watts_at(s, s.kind[host], (w.used[host] + demand) / s.total[host]) - w.base[host]
        if more < least:
            occupied = w.used[host] != 0 if rules.unused_is_off else w.residents[host] > 0
            if occupied and not stays_well(s, w, rules, detection, parameter, tick, host, v, trial):
                continue
            best, least = host, more
    return best, least


@njit(cache=True)
def take(s: State, w: WhatIf, rules: Flags, tick: int, host: int, v: int, entry: int) -> None:
    """Append a VM to a what-if host."""
    demand, window = s.demand[v], w.tail.shape[1]
    w.added[entry], w.earlier[entry], w.last[host] = v, w.last[host], entry
    w.demand[host] += demand
    w.free[host] -= demand
    w.used[host] += demand
    w.memory[host] -= s.memory[v]
    w.length[host] = max(w.length[host], known(s, v, tick))
    w.residents[host] += 1
    weight = s.weight[s.kind[host], v]
    for n in range(window):
        w.tail[host, n] += weight[tick - window + n]
    if not rules.power_against_measured:
        w.base[host] = watts_at(s, s.kind[host], w.used[host] / s.total[host])


@njit(cache=True)
def relieve(
    s: State,
    w: WhatIf,
    rules: Flags,
    detection: int,
    parameter: float,
    tick: int,
    taken: Ints,
    many: int,
    movers: Ints,
    targets: Ints,
) -> int:
    """Place the VMs taken off overloaded hosts; returns how many found a place.

    Of the empty hosts of a kind only the first can be the best, so only that one is looked at.
    """
    hosts, kinds = len(s.total), len(s.watts)
    trial = np.empty(w.tail.shape[1])
    count = 0
    for host in range(hosts):
        if not w.over[host] and w.residents[host] > 0:
            w.candidates[count] = host
            count += 1
        if not rules.power_against_measured and w.residents[host] > 0:
            w.base[host] = watts_at(s, s.kind[host], w.used[host] / s.total[host])
    first_empty = np.zeros(kinds, np.int64)
    moves = 0
    for n in range(many):
        v = taken[n]
        best, least = find_host(s, w, rules, detection, parameter, tick, v, count, trial)
        for kind in range(kinds):
            host = first_empty[kind]
            while host < hosts and (s.kind[host] != kind or w.residents[host] > 0 or w.over[host]):
                host += 1
            first_empty[kind] = host
            if host == hosts or s.core[host] < s.demand[v] or s.total[host] < s.demand[v]:
                continue
            if rules.memory_binds and s.host_memory[host] < s.memory[v]:
                continue
            more = watts_at(s, kind, s.demand[v] / s.total[host]) - w.base[host]
            if more < least or (more == least and host < best):
                best, least = host, more
        if best < 0:
            continue
        if w.residents[best] == 0:
            at = np.searchsorted(w.candidates[:count], best)
            w.candidates[at + 1 : count + 1] = w.candidates[at:count].copy()
            w.candidates[at] = best
            count += 1
        take(s, w, rules, tick, best, v, moves)
        movers[moves], targets[moves] = v, best
        moves += 1
    return moves


@njit(cache=True)
def empty_out(
    s: State,
    w: WhatIf,
    rules: Flags,
    detection: int,
    parameter: float,
    tick: int,
    moves: int,
    movers: Ints,
    targets: Ints,
    list_of: Ints,
) -> int:
    """Empty hosts, the least used first, onto hosts that are on; returns the number of migrations so far.

    A host that cannot be emptied as a whole stays as it is, but takes nothing any more.
    """
    hosts = len(s.total)
    window = w.tail.shape[1]
    trial = np.empty(window)
    no_source = w.over | w.asleep
    if not rules.targets_may_be_emptied:
        for n in range(moves):
            no_source[targets[n]] = True
    count = 0
    for host in range(hosts):
        if not w.over[host] and not w.asleep[host]:
            w.candidates[count] = host
            count += 1
    sources = w.candidates[:count].copy()
    usage = np.minimum(s.used[sources] / s.total[sources], 1.0)
    sources = sources[np.argsort(usage, kind="mergesort")]
    kept = np.empty((7, 64))
    kept_tail = np.empty((64, window))
    for source in sources:
        if no_source[source] or s.used[source] / s.total[source] >= 1 or w.residents[source] == 0:
            continue
        at = np.searchsorted(w.candidates[:count], source)
        w.candidates[at : count - 1] = w.candidates[at + 1 : count].copy()
        count -= 1
        many = residents_of(s, w, source, list_of)
        by_demand(s, list_of, many)
        if many > kept.shape[1]:
            kept = np.empty((7, 2 * many))
            kept_tail = np.empty((2 * many, window))
        done = 0
        for n in range(many):
            v = list_of[n]
            best, _ = find_host(s, w, rules, detection, parameter, tick, v, count, trial)
            if best < 0:
                break
            keep(w, best, done, kept, kept_tail)
            take(s, w, rules, tick, best, v, moves + n)
            movers[moves + n], targets[moves + n] = v, best
            done += 1
        if done < many:
            for n in range(done - 1, -1, -1):
                put_back(w, targets[moves + n], n, kept, kept_tail)
        else:
            for n in range(many):
                no_source[targets[moves + n]] = True
            moves += many
    return moves


@njit(cache=True)
def keep(w: WhatIf, host: int, at: int, kept: Floats, kept_tail: Floats) -> None:
    """Remember the sums of a host before it takes a VM."""
    kept[0, at], kept[1, at], kept[2, at], kept[3, at] = w.demand[host], w.free[host], w.used[host], w.memory[host]
    kept[4, at], kept[5, at], kept[6, at] = w.base[host], w.length[host], w.last[host]
    kept_tail[at] = w.tail[host]


@njit(cache=True)
def put_back(w: WhatIf, host: int, at: int, kept: Floats, kept_tail: Floats) -> None:
    """Undo the latest `take` of a host."""
    w.demand[host], w.free[host], w.used[host], w.memory[host] = kept[0, at], kept[1, at], kept[2, at], kept[3, at]
    w.base[host], w.length[host], w.last[host] = kept[4, at], int(kept[5, at]), int(kept[6, at])
    w.tail[host] = kept_tail[at]
    w.residents[host] -= 1


@njit(cache=True)
def by_demand(s: State, vms: Ints, count: int) -> None:
    """Sort by demand, largest first; equals keep their order."""
    for n in range(1, count):
        v, at = vms[n], n
        while at > 0 and s.demand[vms[at - 1]] < s.demand[v]:
            vms[at] = vms[at - 1]
            at -= 1
        vms[at] = v
