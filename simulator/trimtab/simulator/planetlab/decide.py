"""Compiled: the first placement, and at every tick which VMs migrate where.

Decisions are made on a what-if copy of the placement: VMs are taken off overloaded hosts, placed where the power grows
least, and then hosts with little use are emptied as far as others can take everything. Sums of a host are kept in the
order of its list, and a VM that is tried comes last, so trying one needs no new sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from trimtab.simulator.planetlab.detect import REGRESSED, overloaded
from trimtab.simulator.planetlab.fleet import HOST_NETWORK, VM_NETWORK, Floats, Ints
from trimtab.simulator.planetlab.flow import append, watts_at
from trimtab.simulator.planetlab.rules import IQR, LR, LRR, MAD, Flags, Policy
from trimtab.simulator.planetlab.select import pick
from trimtab.simulator.planetlab.state import WINDOW, Bools, Records, State

TRIED = np.dtype(
    [
        ("demand", np.float64),  # MIPS, not capped
        ("free", np.float64),  # MIPS not asked for
        ("used", np.float64),  # MIPS allocated
        ("memory", np.float64),  # MB free
        ("core", np.float64),  # these three as in the state, to have all in one place
        ("total", np.float64),
        ("kind", np.int64),
        ("base", np.float64),  # W that the power with one VM more is compared with
        ("length", np.int64),  # samples of history that count
        ("residents", np.int64),
        ("last", np.int64),  # latest appended, -1: none
        ("over", np.bool_),  # overloaded
        ("asleep", np.bool_),  # switched off
    ],
    align=True,
)


class WhatIf(NamedTuple):
    """The what-if placement: sums of hosts, and what was appended to their lists."""

    host: Records  # [H] of TRIED
    tail: Floats  # [H, window] history, newest last
    off: Bools  # [V] taken off an overloaded host
    added: Ints  # [4V] VM
    earlier: Ints  # [4V] appended before
    candidates: Ints  # [H] in the order of hosts
    work: Floats  # scratch


@njit(cache=True, error_model="numpy")
def place_first(s: State, rules: Flags, best_fit: bool) -> int:
    """Place every VM with its nominal size; returns the first that fits nowhere, or -1.

    First fit, or the host whose power grows least; the power before is that at no use, or that of the placement so far.
    """
    hosts = len(s.host)
    free, memory, network, placed = np.empty(hosts), np.empty(hosts), np.full(hosts, HOST_NETWORK), np.zeros(hosts)
    for host in range(hosts):
        free[host], memory[host] = s.host[host].total, s.host[host].memory
    for v in range(len(s.vm)):
        best, least = -1, np.inf
        for host in range(hosts):
            fits = s.host[host].core >= s.vm[v].mips and free[host] >= s.vm[v].mips
            if not (fits and memory[host] >= s.vm[v].memory and network[host] >= VM_NETWORK):
                continue
            if not best_fit:
                best = host
                break
            before = 0.0
            if rules.power_against_measured:
                before = s.watts[s.host[host].kind, 0]
            elif s.host[host].residents > 0:
                before = watts_at(s, s.host[host].kind, placed[host] / s.host[host].total)
            more = watts_at(s, s.host[host].kind, (placed[host] + s.vm[v].mips) / s.host[host].total) - before
            if more < least:
                best, least = host, more
        if best < 0:
            return v
        free[best] -= s.vm[v].mips
        placed[best] += s.vm[v].mips
        memory[best] -= s.vm[v].memory
        network[best] -= VM_NETWORK
        s.vm[v].home = best
        append(s, best, v)
    return -1


def decide(s: State, rules: Flags, policy: Policy, tick: int, movers: Ints, targets: Ints) -> tuple[int, int]:
    """One consolidation step; returns how many migrations it filled in, and how many hosts were overloaded.

    Args:
        s: right after the full update of this tick; no migration is under way.
        rules: see `rules.Rules`.
        policy: one that moves VMs.
        tick: number, from 1.
        movers: VMs that migrate, [2V], filled in.
        targets: hosts, [2V], filled in.
    """
    w, (detection, parameter) = what_if(s, policy.detection, tick), (policy.detection, policy.parameter)
    taken = np.empty(len(s.vm), np.int64)
    over, many = unload(s, w, rules, detection, parameter, policy.selection, tick, taken)
    moves = 0
    if many:
        moves = relieve(s, w, rules, detection, parameter, tick, taken[:many], movers, targets)
    return empty_out(s, w, rules, detection, parameter, tick, moves, movers, targets), over


def what_if(s: State, detection: int, tick: int) -> WhatIf:
    """Room for a what-if copy."""
    hosts, vms = len(s.host), len(s.vm)
    window = 0
    if detection in {LR, LRR}:
        window = min(tick, REGRESSED)
    elif detection in {IQR, MAD}:
        window = min(tick, WINDOW)
    return WhatIf(
        np.zeros(hosts, TRIED),
        np.zeros((hosts, window)),
        np.zeros(vms, np.bool_),
        np.empty(4 * vms, np.int64),
        np.empty(4 * vms, np.int64),
        np.empty(hosts, np.int64),
        np.empty(WINDOW),
    )


@njit(cache=True, error_model="numpy")
def unload(
    s: State, w: WhatIf, rules: Flags, detection: int, parameter: float, selection: int, tick: int, taken: Ints
) -> tuple[int, int]:
    """Sum up all hosts and take VMs off those that are overloaded; returns how many hosts and VMs that were.

    `taken`, [V], is filled with the VMs, those with the largest demand first.
    """
    hosts = len(s.host)
    for host in range(hosts):
        now, own = s.host[host], w.host[host]
        own.free, own.memory, own.residents, own.last = now.total, now.memory, now.residents, -1
        own.core, own.total, own.kind = now.core, now.total, now.kind
        own.base = now.power if rules.power_against_measured else 0.0
        own.asleep = now.used == 0 if rules.unused_is_off else now.residents == 0
    over = many = 0
    for host in range(hosts):
        if s.host[host].residents > 0:
            add_up(s, w, rules, host, tick)
            if not rules.power_against_measured:
                w.host[host].base = watts_at(s, s.host[host].kind, w.host[host].used / s.host[host].total)
            if is_over(s, w, rules, detection, parameter, host):
                w.host[host].over = True
                over += 1
    list_of = np.empty(len(s.vm), np.int64)
    for host in range(hosts):
        overloaded_still = w.host[host].over
        while overloaded_still:
            count = residents_of(s, w, host, list_of)
            if count == 0:
                break
            v = list_of[pick(s, selection, tick, list_of, count)]
            taken[many] = v
            many += 1
            w.off[v] = True
            add_up(s, w, rules, host, tick)
            overloaded_still = is_over(s, w, rules, detection, parameter, host)
    by_demand(s, taken, many)
    return over, many


@njit(cache=True, error_model="numpy")
def residents_of(s: State, w: WhatIf, host: int, out: Ints) -> int:
    """What-if VMs of a host in the order of arrival; returns how many."""
    count = 0
    node = s.host[host].head
    while node >= 0:
        if not w.off[node]:
            out[count] = node
            count += 1
        node = s.after[node]
    first, entry = count, w.host[host].last
    while entry >= 0:
        out[count] = w.added[entry]
        count += 1
        entry = w.earlier[entry]
    for n in range((count - first) // 2):
        out[first + n], out[count - 1 - n] = out[count - 1 - n], out[first + n]
    return count


@njit(cache=True, error_model="numpy")
def add_up(s: State, w: WhatIf, rules: Flags, host: int, tick: int) -> None:
    """Sums of a host without the VMs taken off, before anything is appended."""
    total, core, kind = s.host[host].total, s.host[host].core, s.host[host].kind
    window = w.tail.shape[1]
    demand, free, used, fits, length, count = 0.0, total, 0.0, True, 0, 0
    memory = s.host[host].memory
    tail = w.tail[host]
    tail[:] = 0.0
    node = s.host[host].head
    while node >= 0:
        if not w.off[node]:
            ask = min(s.vm[node].demand, core)
            demand += s.vm[node].demand
            if fits and free >= ask:
                free -= ask
            elif ask > 0:
                fits = False
            used += ask
            memory -= s.vm[node].memory
            length = max(length, known(s, node, tick))
            weight = s.weight[kind, node]
            for n in range(window):
                tail[n] += weight[tick - window + n]
            count += 1
        node = s.after[node]
    if not fits:
        free = 0.0
        part, used = total / used, 0.0
        node = s.host[host].head
        while node >= 0:
            if not w.off[node]:
                ask = min(s.vm[node].demand, core) * part
                used += np.floor(ask) if rules.whole_mips else ask
            node = s.after[node]
    w.host[host].demand, w.host[host].free, w.host[host].used, w.host[host].length = demand, free, used, length
    w.host[host].memory, w.host[host].residents = memory, count


@njit(cache=True, error_model="numpy")
def known(s: State, v: int, tick: int) -> int:
    """Samples of history up to the oldest that is not zero, at most the window."""
    first = max(tick - WINDOW, 0)
    return max(tick - s.next_busy[v, first], 0)


@njit(cache=True, error_model="numpy")
def is_over(s: State, w: WhatIf, rules: Flags, detection: int, parameter: float, host: int) -> bool:
    """Is a host overloaded in the what-if placement?"""
    share = w.host[host].demand / s.host[host].total
    return overloaded(
        detection, parameter, rules.unweighted_regression, share, w.tail[host], w.host[host].length, w.work
    )


@njit(cache=True, error_model="numpy")
def stays_well(
    s: State, w: WhatIf, rules: Flags, detection: int, parameter: float, tick: int, host: int, v: int, trial: Floats
) -> bool:
    """Would a host not be overloaded with one VM more?"""
    share = (w.host[host].demand + s.vm[v].demand) / s.host[host].total
    window = len(trial)
    weight = s.weight[s.host[host].kind, v]
    for n in range(window):
        trial[n] = w.tail[host, n] + weight[tick - window + n]
    length = max(w.host[host].length, known(s, v, tick))
    return not overloaded(detection, parameter, rules.unweighted_regression, share, trial, length, w.work)


@njit(cache=True, error_model="numpy")
def find_host(
    s: State, w: WhatIf, rules: Flags, detection: int, parameter: float, tick: int, v: int, count: int, trial: Floats
) -> tuple[int, float]:
    """Candidate whose power grows least with the VM, and by how much; -1: none. The first of equals."""
    demand, memory = s.vm[v].demand, s.vm[v].memory if rules.memory_binds else -np.inf
    best, least = -1, np.inf
    for n in range(count):
        host = w.candidates[n]
        own = w.host[host]
        if own.free < demand or own.core < demand or own.memory < memory:
            continue
        more = watts_at(s, own.kind, (own.used + demand) / own.total) - own.base
        if more < least:
            occupied = own.used != 0 if rules.unused_is_off else own.residents > 0
            if occupied and not stays_well(s, w, rules, detection, parameter, tick, host, v, trial):
                continue
            best, least = host, more
    return best, least


@njit(cache=True, error_model="numpy")
def take(s: State, w: WhatIf, rules: Flags, tick: int, host: int, v: int, entry: int) -> None:
    """Append a VM to a what-if host."""
    demand, window = s.vm[v].demand, w.tail.shape[1]
    w.added[entry], w.earlier[entry], w.host[host].last = v, w.host[host].last, entry
    w.host[host].demand += demand
    w.host[host].free -= demand
    w.host[host].used += demand
    w.host[host].memory -= s.vm[v].memory
    w.host[host].length = max(w.host[host].length, known(s, v, tick))
    w.host[host].residents += 1
    weight = s.weight[s.host[host].kind, v]
    for n in range(window):
        w.tail[host, n] += weight[tick - window + n]
    if not rules.power_against_measured:
        w.host[host].base = watts_at(s, s.host[host].kind, w.host[host].used / s.host[host].total)


@njit(cache=True, error_model="numpy")
def relieve(
    s: State,
    w: WhatIf,
    rules: Flags,
    detection: int,
    parameter: float,
    tick: int,
    taken: Ints,
    movers: Ints,
    targets: Ints,
) -> int:
    """Place the VMs taken off overloaded hosts; returns how many found a place.

    Of the empty hosts of a kind only the first can be the best, so only that one is looked at.
    """
    hosts, kinds = len(s.host), len(s.watts)
    trial = np.empty(w.tail.shape[1])
    count = 0
    for host in range(hosts):
        if not w.host[host].over and w.host[host].residents > 0:
            w.candidates[count] = host
            count += 1
    first_empty = np.zeros(kinds, np.int64)
    moves = 0
    for v in taken:
        best, least = find_host(s, w, rules, detection, parameter, tick, v, count, trial)
        for kind in range(kinds):
            host = first_empty[kind]
            while host < hosts and (s.host[host].kind != kind or w.host[host].residents > 0 or w.host[host].over):
                host += 1
            first_empty[kind] = host
            if host == hosts or s.host[host].core < s.vm[v].demand or s.host[host].total < s.vm[v].demand:
                continue
            if rules.memory_binds and s.host[host].memory < s.vm[v].memory:
                continue
            more = watts_at(s, kind, s.vm[v].demand / s.host[host].total) - w.host[host].base
            if more < least or (more == least and host < best):
                best, least = host, more
        if best < 0:
            continue
        if w.host[best].residents == 0:
            at = count
            while at > 0 and w.candidates[at - 1] > best:
                w.candidates[at] = w.candidates[at - 1]
                at -= 1
            w.candidates[at] = best
            count += 1
        take(s, w, rules, tick, best, v, moves)
        movers[moves], targets[moves] = v, best
        moves += 1
    return moves


@njit(cache=True, error_model="numpy")
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
) -> int:
    """Empty hosts, the least used first, onto hosts that are on; returns the number of migrations so far.

    A host that cannot be emptied as a whole stays as it is, but takes nothing any more.
    """
    hosts = len(s.host)
    window = w.tail.shape[1]
    trial = np.empty(window)
    no_source = np.zeros(hosts, np.bool_)
    list_of = np.empty(len(s.vm), np.int64)
    if not rules.targets_may_be_emptied:
        for n in range(moves):
            no_source[targets[n]] = True
    count = 0
    usage = np.empty(hosts)
    for host in range(hosts):
        if not w.host[host].over and not w.host[host].asleep:
            w.candidates[count] = host
            usage[count] = min(s.host[host].used / s.host[host].total, 1.0)
            count += 1
    sources = least_first(w.candidates, usage, count)
    kept = np.zeros(64, TRIED)
    kept_tail = np.empty((64, window))
    for source in sources:
        if no_source[source] or s.host[source].used / s.host[source].total >= 1 or w.host[source].residents == 0:
            continue
        kept_count = 0
        for n in range(count):
            if w.candidates[n] != source:
                w.candidates[kept_count] = w.candidates[n]
                kept_count += 1
        count = kept_count
        many = residents_of(s, w, source, list_of)
        by_demand(s, list_of, many)
        if many > len(kept):
            kept = np.zeros(2 * many, TRIED)
            kept_tail = np.empty((2 * many, window))
        done = 0
        for n in range(many):
            v = list_of[n]
            best, _ = find_host(s, w, rules, detection, parameter, tick, v, count, trial)
            if best < 0:
                break
            kept[n] = w.host[best]
            kept_tail[n] = w.tail[best]
            take(s, w, rules, tick, best, v, moves + n)
            movers[moves + n], targets[moves + n] = v, best
            done += 1
        if done < many:
            for n in range(done - 1, -1, -1):
                w.host[targets[moves + n]] = kept[n]
                w.tail[targets[moves + n]] = kept_tail[n]
        else:
            for n in range(many):
                no_source[targets[moves + n]] = True
            moves += many
    return moves


@njit(cache=True, error_model="numpy")
def by_demand(s: State, vms: Ints, count: int) -> None:
    """Sort by demand, largest first; equals keep their order."""
    for n in range(1, count):
        v, at = vms[n], n
        while at > 0 and s.vm[vms[at - 1]].demand < s.vm[v].demand:
            vms[at] = vms[at - 1]
            at -= 1
        vms[at] = v


@njit(cache=True, error_model="numpy")
def least_first(hosts: Ints, usage: Floats, count: int) -> Ints:
    """The first `count` hosts in the order of `usage`, equals as they stand; merge sort."""
    order, spare = np.arange(count), np.empty(count, np.int64)
    width = 1
    while width < count:
        for start in range(0, count, 2 * width):
            middle, stop = min(start + width, count), min(start + 2 * width, count)
            left, right = start, middle
            for n in range(start, stop):
                if left < middle and (right >= stop or usage[order[left]] <= usage[order[right]]):
                    spare[n] = order[left]
                    left += 1
                else:
                    spare[n] = order[right]
                    right += 1
        order, spare = spare, order
        width *= 2
    for n in range(count):
        spare[n] = hosts[order[n]]
    return spare
