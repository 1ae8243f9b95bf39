"""Compiled: who gets how many MIPS, what is recorded, what it costs, and how migrations begin and end."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from trimtab.simulator.planetlab.fleet import Ints
from trimtab.simulator.planetlab.rules import Flags
from trimtab.simulator.planetlab.state import ENERGY, SHORT_COUNT, SHORT_SUM, Bools, State


@njit(cache=True, error_model="numpy")
def watts_at(s: State, kind: int, share: float) -> float:
    """Power of a host of that kind, W; see `specpower.watts`, here with the slopes at hand."""
    tens = min(share, 1.0) * 10
    lower = int(tens)
    if tens == lower:
        return s.watts[kind, lower]
    return s.watts[kind, lower] + s.slope[kind, lower] * (share - s.tenth[lower]) * 100


@njit(cache=True, error_model="numpy")
def append(s: State, host: int, node: int) -> None:
    """Put a node at the end of a host's list."""
    last = s.host[host].tail
    s.before[node], s.after[node] = last, -1
    if last >= 0:
        s.after[last] = node
    else:
        s.host[host].head = node
    s.host[host].tail = node
    s.host[host].residents += 1


@njit(cache=True, error_model="numpy")
def remove(s: State, host: int, node: int) -> None:
    """Take a node out of a host's list."""
    ahead, behind = s.before[node], s.after[node]
    if ahead >= 0:
        s.after[ahead] = behind
    else:
        s.host[host].head = behind
    if behind >= 0:
        s.before[behind] = ahead
    else:
        s.host[host].tail = ahead
    s.host[host].residents -= 1


@njit(cache=True, error_model="numpy")
def measure_demand(s: State, time: float) -> None:
    """Demand of every VM that is still there, MIPS."""
    first = math.floor(time / 300.0)
    late = time - first * 300.0
    for v in range(len(s.vm)):
        s.vm[v].demand = (s.share[first, v] + s.step[first, v] * late) * s.vm[v].mips


@njit(cache=True, error_model="numpy")
def vm_of(node: int, vms: int) -> int:
    """VM of a node; a division would take longer."""
    if node >= 2 * vms:
        return node - 2 * vms
    return node - vms if node >= vms else node


@njit(cache=True, error_model="numpy")
def note_vm(s: State, v: int, time: float, given: float, moving: bool) -> None:
    """A new entry closes the one before; one of the same time replaces it."""
    at = s.vm[v].at
    if at >= 0 and at != time:
        span, had, wanted = time - at, s.vm[v].had, s.vm[v].wanted
        s.vm[v].given += had * span
        s.vm[v].asked += wanted * span
        if had < wanted:
            s.sums[SHORT_SUM] += (wanted - had) / wanted
            s.sums[SHORT_COUNT] += 1
            if s.vm[v].moving:
                s.vm[v].lost += (wanted - had) * span
    s.vm[v].at, s.vm[v].had, s.vm[v].wanted, s.vm[v].moving = time, given, s.vm[v].demand, moving


@njit(cache=True, error_model="numpy")
def note_switch(s: State, host: int) -> None:
    """The latest entry of a host is final: was that a switch on or off?"""
    at, active = s.host[host].at, s.host[host].active
    if s.host[host].was_active and not active:
        s.host[host].downs += 1
        s.host[host].up_s += at - s.host[host].on_since
    elif active and not s.host[host].was_active:
        s.host[host].on_since = at
    s.host[host].was_active = active


@njit(cache=True, error_model="numpy")
def note_host(s: State, host: int, time: float, active: bool, short: bool) -> None:
    """As `note_vm`, for a host."""
    at = s.host[host].at
    if at >= 0 and at != time:
        note_switch(s, host)
        if s.host[host].active:
            s.host[host].active_s += time - at
            if s.host[host].short:
                s.host[host].short_s += time - at
    s.host[host].at, s.host[host].active, s.host[host].short = time, active, short


@njit(cache=True, error_model="numpy")
def settle(s: State, rules: Flags, host: int, time: float) -> None:
    """Share out the MIPS of one host and record it.

    A VM asks its demand, at most one core; where it is only arriving, a tenth. A VM that is leaving gets nine tenths.
    If not all fits, everybody gets the same part of what was asked.
    """
    vms = len(s.vm)
    total, core = s.host[host].total, s.host[host].core
    free, wanted, fits = total, 0.0, True
    node = s.host[host].head
    while node >= 0:
        ask = min(s.vm[vm_of(node, vms)].demand, core)
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
    node = s.host[host].head
    while node >= 0:
        v = vm_of(node, vms)
        demand = s.vm[v].demand
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
            if s.vm[v].leaving:
                give *= 0.9
            if not fits and rules.whole_mips:
                give = math.floor(give)
            note_vm(s, v, time, give, s.vm[v].leaving)
            if s.vm[v].leaving:
                give /= 0.9
        used += give
        requested += demand
        node = s.after[node]
    s.host[host].used = used
    share = used / total
    s.host[host].power = watts_at(s, s.host[host].kind, share)
    active = used > 0 if rules.unused_is_off else s.host[host].residents > 0
    note_host(s, host, time, active, used < requested if rules.artefacts_count else short)


@njit(cache=True, error_model="numpy")
def update(s: State, rules: Flags, time: float, span: float) -> None:
    """Full update: demands, shares and records of all hosts; energy of the `span` seconds before.

    Energy is the mean of the power then and the power now, times the span. Hosts that are and were empty are skipped.
    """
    measure_demand(s, time)
    frame = 0.0
    for host in range(len(s.host)):
        if s.host[host].residents == 0 and s.host[host].used == 0 and s.host[host].at >= 0 and not s.host[host].active:
            continue
        was_used, was_power, was_held = s.host[host].used, s.host[host].power, s.host[host].residents > 0
        settle(s, rules, host, time)
        if was_used > 0 or (was_held and not rules.unused_is_off):
            joules = (was_power + (s.host[host].power - was_power) / 2) * span
            s.host[host].energy += joules
            frame += joules
    s.sums[ENERGY] += frame
    if rules.idle_vms_vanish:
        for v in range(len(s.vm)):
            if s.vm[v].demand == 0 and s.vm[v].home >= 0 and not s.vm[v].leaving:
                remove(s, s.vm[v].home, v)
                s.vm[v].home = -1


@njit(cache=True, error_model="numpy")
def begin(s: State, rules: Flags, time: float, movers: Ints, targets: Ints) -> Ints:
    """Migrations start, in that order; sources and targets are shared out anew. Returns the new nodes."""
    vms = len(s.vm)
    nodes = np.empty(len(movers), np.int64)
    touched = np.zeros(len(s.host), np.bool_)
    for n in range(len(movers)):
        v = movers[n]
        touched[s.vm[v].home] = touched[targets[n]] = True
        s.vm[v].coming += 1
        s.vm[v].leaving = True
        nodes[n] = v + vms * s.vm[v].coming
        append(s, targets[n], nodes[n])
    settle_some(s, rules, time, touched)
    return nodes


@njit(cache=True, error_model="numpy")
def end(s: State, rules: Flags, time: float, span: float, movers: Ints, nodes: Ints, targets: Ints) -> None:
    """Full update; then migrations end, in that order, and the hosts they touch are shared out anew."""
    update(s, rules, time, span)
    touched = np.zeros(len(s.host), np.bool_)
    for n in range(len(movers)):
        v, target = movers[n], targets[n]
        touched[s.vm[v].home] = touched[target] = True
        remove(s, s.vm[v].home, v)
        remove(s, target, nodes[n])
        append(s, target, v)
        s.vm[v].home = target
        s.vm[v].leaving = False
        s.vm[v].coming = 0
    settle_some(s, rules, time, touched)
    if rules.idle_vms_vanish:
        for v in movers:
            if s.vm[v].demand == 0 and s.vm[v].home >= 0:
                remove(s, s.vm[v].home, v)
                s.vm[v].home = -1


@njit(cache=True, error_model="numpy")
def settle_some(s: State, rules: Flags, time: float, touched: Bools) -> None:
    """Share out anew on some hosts."""
    for host in range(len(touched)):
        if touched[host]:
            settle(s, rules, host, time)


@njit(cache=True, error_model="numpy")
def close(s: State) -> None:
    """The latest entries are the last ones: they have no duration, but may be a switch."""
    for host in range(len(s.host)):
        if s.host[host].at >= 0:
            note_switch(s, host)
