"""Compiled: who gets how many MIPS, what is recorded, what it costs, and how migrations begin and end."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from trimtab.simulator.planetlab.fleet import Ints
from trimtab.simulator.planetlab.rules import Flags
from trimtab.simulator.planetlab.state import DOWN_COUNT, DOWN_SUM, ENERGY, SHORT_COUNT, SHORT_SUM, Bools, State


@njit(cache=True)
def watts_at(s: State, kind: int, share: float) -> float:
    """Power of a host of that kind, W; see `specpower.watts`, here with the slopes at hand."""
    tens = min(share, 1.0) * 10
    lower = int(tens)
    if tens == lower:
        return s.watts[kind, lower]
    return s.watts[kind, lower] + s.slope[kind, lower] * (share - lower / 10) * 100


@njit(cache=True)
def append(s: State, host: int, node: int) -> None:
    """Put a node at the end of a host's list."""
    last = s.tail[host]
    s.before[node], s.after[node] = last, -1
    if last >= 0:
        s.after[last] = node
    else:
        s.head[host] = node
    s.tail[host] = node
    s.residents[host] += 1


@njit(cache=True)
def remove(s: State, host: int, node: int) -> None:
    """Take a node out of a host's list."""
    ahead, behind = s.before[node], s.after[node]
    if ahead >= 0:
        s.after[ahead] = behind
    else:
        s.head[host] = behind
    if behind >= 0:
        s.before[behind] = ahead
    else:
        s.tail[host] = ahead
    s.residents[host] -= 1


@njit(cache=True)
def measure_demand(s: State, time: float) -> None:
    """Demand of every VM that is still there, MIPS."""
    first = int(math.floor(time / 300.0))
    last = int(math.ceil(time / 300.0))
    span = max((last - first) * 300.0, 1.0)
    late = time - first * 300.0
    for v in range(len(s.mips)):
        share = s.share[first, v]
        if last > first:
            share += (s.share[last, v] - share) / span * late
        s.demand[v] = share * s.mips[v]


@njit(cache=True)
def note_vm(s: State, v: int, time: float, given: float, moving: bool) -> None:
    """A new entry closes the one before; one of the same time replaces it."""
    at = s.vm_at[v]
    if at >= 0 and at != time:
        span, had, wanted = time - at, s.vm_given[v], s.vm_asked[v]
        s.given[v] += had * span
        s.asked[v] += wanted * span
        if had < wanted:
            s.sums[SHORT_SUM] += (wanted - had) / wanted
            s.sums[SHORT_COUNT] += 1
            if s.vm_moving[v]:
                s.lost[v] += (wanted - had) * span
    s.vm_at[v], s.vm_given[v], s.vm_asked[v], s.vm_moving[v] = time, given, s.demand[v], moving


@njit(cache=True)
def note_switch(s: State, host: int) -> None:
    """The latest entry of a host is final: was that a switch on or off?"""
    at, active = s.host_at[host], s.host_active[host]
    if s.was_active[host] and not active:
        s.sums[DOWN_COUNT] += 1
        s.sums[DOWN_SUM] += at - s.on_since[host]
    elif active and not s.was_active[host]:
        s.on_since[host] = at
    s.was_active[host] = active


@njit(cache=True)
def note_host(s: State, host: int, time: float, active: bool, short: bool) -> None:
    """As `note_vm`, for a host."""
    at = s.host_at[host]
    if at >= 0 and at != time:
        note_switch(s, host)
        if s.host_active[host]:
            s.active_s[host] += time - at
            if s.host_short[host]:
                s.short_s[host] += time - at
    s.host_at[host], s.host_active[host], s.host_short[host] = time, active, short


@njit(cache=True)
def settle(s: State, rules: Flags, host: int, time: float) -> None:
    """Share out the MIPS of one host and record it.

    A VM asks its demand, at most one core; where it is only arriving, a tenth. A VM that is leaving gets nine tenths.
    If not all fits, everybody gets the same part of what was asked.
    """
    vms = len(s.mips)
    total, core = s.total[host], s.core[host]
    free, wanted, fits = total, 0.0, True
    node = s.head[host]
    while node >= 0:
        ask = min(s.demand[node % vms], core)
        if node >= vms:
            ask *= 0.1
        if fits and free >= ask:
            free -= ask
        elif ask > 0:
            fits = False
        wanted += ask
        node = s.after[node]
    part = 1.0 if fits else total / wanted
    used, requested, short = 0.0, 0.0, not fits and wanted > total * (1 + 1e-9)
    node = s.head[host]
    while node >= 0:
        v = node % vms
        demand = s.demand[v]
        give = min(demand, core)
        if node >= vms:
            give *= 0.1
            if not fits:
                give *= part
                if rules.whole_mips:
                    give = math.floor(give)
        else:
            short = short or demand > core
            if not fits:
                give *= part
            if s.leaving[v]:
                give *= 0.9
            if not fits and rules.whole_mips:
                give = math.floor(give)
            note_vm(s, v, time, give, s.leaving[v])
            if s.leaving[v]:
                give /= 0.9
        used += give
        requested += demand
        node = s.after[node]
    s.used[host] = used
    share = used / total
    s.power[host] = watts_at(s, s.kind[host], share)
    active = used > 0 if rules.unused_is_off else s.residents[host] > 0
    note_host(s, host, time, active, used < requested if rules.artefacts_count else short)


@njit(cache=True)
def update(s: State, rules: Flags, time: float, span: float) -> None:
    """Full update: demands, shares and records of all hosts; energy of the `span` seconds before.

    Energy is the mean of the power then and the power now, times the span. Hosts that are and were empty are skipped.
    """
    measure_demand(s, time)
    frame = 0.0
    for host in range(len(s.used)):
        if s.residents[host] == 0 and s.used[host] == 0 and s.host_at[host] >= 0 and not s.host_active[host]:
            continue
        was_used, was_power, was_held = s.used[host], s.power[host], s.residents[host] > 0
        settle(s, rules, host, time)
        if was_used > 0 or (was_held and not rules.unused_is_off):
            joules = (was_power + (s.power[host] - was_power) / 2) * span
            s.energy[host] += joules
            frame += joules
    s.sums[ENERGY] += frame
    if rules.idle_vms_vanish:
        for v in range(len(s.mips)):
            if s.demand[v] == 0 and s.home[v] >= 0 and not s.leaving[v]:
                remove(s, s.home[v], v)
                s.home[v] = -1


@njit(cache=True)
def begin(s: State, rules: Flags, time: float, movers: Ints, targets: Ints) -> None:
    """Migrations start, in that order; sources and targets are shared out anew."""
    vms = len(s.mips)
    touched = np.zeros(len(s.used), np.bool_)
    for n in range(len(movers)):
        v = movers[n]
        touched[s.home[v]] = touched[targets[n]] = True
        s.coming[v] += 1
        s.leaving[v] = True
        append(s, targets[n], v + vms * s.coming[v])
    settle_some(s, rules, time, touched)


@njit(cache=True)
def end(s: State, rules: Flags, time: float, movers: Ints, nodes: Ints, targets: Ints) -> None:
    """Migrations end, in that order, after the full update of that time; then the hosts they touch are shared out."""
    touched = np.zeros(len(s.used), np.bool_)
    for n in range(len(movers)):
        v, target = movers[n], targets[n]
        touched[s.home[v]] = touched[target] = True
        remove(s, s.home[v], v)
        remove(s, target, nodes[n])
        append(s, target, v)
        s.home[v] = target
        s.leaving[v] = False
        s.coming[v] = 0
    settle_some(s, rules, time, touched)
    if rules.idle_vms_vanish:
        for v in movers:
            if s.demand[v] == 0 and s.home[v] >= 0:
                remove(s, s.home[v], v)
                s.home[v] = -1


@njit(cache=True)
def settle_some(s: State, rules: Flags, time: float, touched: Bools) -> None:
    """Share out anew on some hosts."""
    for host in range(len(touched)):
        if touched[host]:
            settle(s, rules, host, time)


@njit(cache=True)
def close(s: State) -> None:
    """The latest entries are the last ones: they have no duration, but may be a switch."""
    for host in range(len(s.used)):
        if s.host_at[host] >= 0:
            note_switch(s, host)
