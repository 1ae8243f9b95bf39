"""Moving only what must move: relieve overloaded hosts with fewest moves, place the homeless, make room by one move.

Receivers are chosen by best fit (`draining.best_fit`), so every rule of the field holds for everybody who moves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.strategies.draining import best_fit, cover
from trimtab.strategies.feasibility import Field, fits, may_join, put

TRIES = 200  # guests looked at to make room for one instance: of so many that are large enough one can move


@njit(cache=True)
def place(field: Field, host_of: Ints, used: Floats, homeless: Ints, hosts: Ints, weight: Floats) -> Bools:
    """Put instances that are on no host somewhere, in the order given; which found a host, [len(homeless)]."""
    found = np.zeros(homeless.size, np.bool_)
    for k in range(homeless.size):
        host = best_fit(field, host_of, used, homeless[k], hosts, hosts.size, weight)
        if host >= 0:
            put(field, host_of, used, homeless[k], host)
            found[k] = True
    return found


@njit(cache=True)
def move(
    field: Field, host_of: Ints, used: Floats, movable: Bools, movers: Ints, most: int, hosts: Ints, weight: Floats
) -> int:
    """Move at most `most` of the movers, in the order given, to any of the hosts; returns how many moved."""
    moved = 0
    for k in range(movers.size):
        if moved == most:
            break
        if not movable[movers[k]]:
            continue
        host = best_fit(field, host_of, used, movers[k], hosts, hosts.size, weight)
        if host >= 0:
            put(field, host_of, used, movers[k], host)
            moved += 1
    return moved


@njit(cache=True)
def unload(
    field: Field,
    host_of: Ints,
    used: Floats,
    watched: Bools,
    movable: Bools,
    overloaded: Ints,
    hosts: Ints,
    weight: Floats,
    cost: Floats,
) -> npt.NDArray[np.int64]:
    """Bring overloaded hosts within their limits with the fewest moves; positions of those that stay overloaded.

    One move where one will do, the cheapest such; then two; beyond that whoever takes away most of the excess.

    Args:
        field: limits, needs and rules.
        host_of: who is where, [V]; changed in place.
        used: what is taken, [H, R]; changed in place.
        watched: limits whose excess counts, [H, R].
        movable: instances that may be moved, [V].
        overloaded: hosts to relieve, in this order.
        hosts: receivers.
        weight: worth of one unit of each dimension, [R].
        cost: what moving an instance costs, [V].
    """
    head = np.full(used.shape[0], -1, np.int32)
    following = np.full(host_of.size, -1, np.int32)
    for instance in range(host_of.size - 1, -1, -1):
        if host_of[instance] >= 0:
            following[instance] = head[host_of[instance]]
            head[host_of[instance]] = instance
    excess = np.empty(field.need.shape[1], np.float64)
    failed = np.empty(overloaded.size, np.int64)
    failures = 0
    guests = np.empty(host_of.size, np.int32)
    for n in range(overloaded.size):
        source = overloaded[n]
        count = 0
        instance = head[source]
        while instance >= 0:
            if movable[instance] and host_of[instance] == source:
                guests[count] = instance
                count += 1
            instance = following[instance]
        order = guests[:count][np.argsort(cost[guests[:count]], kind="mergesort")]
        if not _over(field, used, watched, source, excess):
            continue
        done = False
        for a in range(count):
            if cover(field, excess, order[a]) < 1.0:
                continue
            host = best_fit(field, host_of, used, order[a], hosts, hosts.size, weight)
            if host >= 0:
                put(field, host_of, used, order[a], host)
                done = True
                break
        if done:
            continue
        for a in range(count):
            for b in range(a + 1, count):
                if not _both_cover(field, excess, order[a], order[b]):
                    continue
                first = best_fit(field, host_of, used, order[a], hosts, hosts.size, weight)
                if first < 0:
                    break
                put(field, host_of, used, order[a], first)
                second = best_fit(field, host_of, used, order[b], hosts, hosts.size, weight)
                if second >= 0:
                    put(field, host_of, used, order[b], second)
                    done = True
                    break
                put(field, host_of, used, order[a], source)
            if done:
                break
        left = np.ones(count, np.bool_)
        while not done and _over(field, used, watched, source, excess):
            chosen, most = -1, 0.0
            for a in range(count):
                if left[a]:
                    share = cover(field, excess, order[a])
                    if share > most:
                        chosen, most = a, share
            if chosen < 0:
                failed[failures] = n
                failures += 1
                break
            left[chosen] = False
            host = best_fit(field, host_of, used, order[chosen], hosts, hosts.size, weight)
            if host >= 0:
                put(field, host_of, used, order[chosen], host)
    return failed[:failures]


@njit(cache=True)
def _over(field: Field, used: Floats, watched: Bools, host: int, excess: Floats) -> bool:
    heavy = False
    for r in range(excess.size):
        over = used[host, r] - field.limit[host, r]
        excess[r] = over if watched[host, r] and over > ROUNDING else 0.0
        heavy = heavy or excess[r] > 0
    return heavy


@njit(cache=True)
def _both_cover(field: Field, excess: Floats, a: int, b: int) -> bool:
    enough = True
    for r in range(excess.size):
        if excess[r] > 0 and field.need[a, r] + field.need[b, r] < excess[r] - ROUNDING:
            enough = False
    return enough


@njit(cache=True)
def make_room(
    field: Field, host_of: Ints, used: Floats, movable: Bools, instance: int, hosts: Ints, weight: Floats, cost: Floats
) -> bool:
    """Move the cheapest guest of some host elsewhere so that the instance has a place there, and put it there.

    False, with nothing changed, when no single move helps.
    """
    at = host_of[instance]
    receives = np.zeros(used.shape[0], np.bool_)
    receives[hosts] = True
    guests = np.flatnonzero(movable & (host_of >= 0)).astype(np.int32)
    tries = 0
    for guest in guests[np.argsort(cost[guests], kind="mergesort")]:
        source = host_of[guest]
        if guest == instance or source == at or not receives[source]:
            continue
        fit = True
        for r in range(field.need.shape[1]):
            room = field.limit[source, r] - used[source, r] + field.need[guest, r]
            fit = fit and field.need[instance, r] <= room + ROUNDING
        if not fit:
            continue
        tries += 1
        if tries > TRIES:
            break
        host = best_fit(field, host_of, used, guest, hosts, hosts.size, weight)
        if host < 0:
            continue
        put(field, host_of, used, guest, host)
        if fits(field, used, instance, source) and may_join(field, host_of, instance, source):
            put(field, host_of, used, instance, source)
            return True
        put(field, host_of, used, guest, source)
    return False


@njit(cache=True)
def in_order(field: Field, host_of: Ints, used: Floats, moved: Ints, target: Ints, most: int) -> tuple[Ints, int]:
    """Moves in an order in which each has room and is allowed, at most `most`; then those that have none.

    Args:
        field: limits, needs and rules, counted for `host_of`.
        host_of: who is where before the moves, [V]; changed in place to where the ordered ones lead.
        used: what is taken then, [H, R]; changed in place.
        moved: instances that move.
        target: host of every instance afterwards, [V].
        most: how many moves are ordered at most.

    Returns:
        all moves, and how many of them are in order.
    """
    order = moved.copy()
    count = 0
    progress = True
    while progress and count < min(most, order.size):
        progress = False
        for k in range(count, order.size):
            instance = order[k]
            host = target[instance]
            if count < most and fits(field, used, instance, host) and may_join(field, host_of, instance, host):
                put(field, host_of, used, instance, host)
                order[k] = order[count]
                order[count] = instance
                count += 1
                progress = True
    return order, count
