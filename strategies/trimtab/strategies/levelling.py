"""Levelling load over hosts: the steepest descent of the weighted standard deviation, one migration at a time.

A move of an instance from s to d changes n times the variance of a load x by
-2 a y_s + a^2 + 2 b y_d + b^2 - (b - a)^2 / n, where y is x less its mean, a and b what the instance adds to x on s
and on d, and n the number of hosts. So every pair costs a few operations, and an instance whose best imaginable
receiver (as cold as the coldest, of the best size) would not beat the best pair found is not looked at: the result is
the same as that of trying all pairs.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.strategies.feasibility import Field, fits, may_join, put

FULLSEARCH, RETRY, CYCLE = 0, 1, 2
LEAST_GAIN = 1e-6  # of the present value; below it is rounding, not balance


@njit(cache=True)
def spread(load: Floats, hosts: Ints, centred: Floats, squares: Floats) -> None:
    """Fill `centred` [M, H] (load less its mean over `hosts`) and `squares` [M] (sum of its squares)."""
    for m in range(load.shape[0]):
        total = 0.0
        for host in hosts:
            total += load[m, host]
        mean = total / hosts.size
        squares[m] = 0.0
        for host in hosts:
            centred[m, host] = load[m, host] - mean
            squares[m] += centred[m, host] ** 2


@njit(cache=True)
def weighted(squares: Floats, weight: Floats, count: int) -> float:
    """The weighted sum of standard deviations."""
    value = 0.0
    for m in range(weight.size):
        value += weight[m] * np.sqrt(max(squares[m], 0.0) / count)
    return value


@njit(cache=True)
def value_after(
    amount: Floats,
    scale: Floats,
    centred: Floats,
    squares: Floats,
    weight: Floats,
    count: int,
    instance: int,
    source: int,
    host: int,
) -> float:
    """The weighted sum of standard deviations if an instance moved from a source to a host."""
    value = 0.0
    for m in range(weight.size):
        a = amount[m, instance] / scale[m, source]
        b = amount[m, instance] / scale[m, host]
        change = -2 * a * centred[m, source] + a * a + 2 * b * centred[m, host] + b * b - (b - a) ** 2 / count
        value += weight[m] * np.sqrt(max(squares[m] + change, 0.0) / count)
    return value


@njit(cache=True)
def best_host(
    field: Field,
    host_of: Ints,
    used: Floats,
    amount: Floats,
    scale: Floats,
    centred: Floats,
    squares: Floats,
    weight: Floats,
    order: Ints,
    tries: int,
    instance: int,
) -> tuple[float, int]:
    """The best of the first `tries` hosts in `order` that may take the instance, and the value then; -1 for none."""
    best, least = -1, np.inf
    source = host_of[instance]
    for host in order:
        if host == source or not fits(field, used, instance, host):
            continue
        if not may_join(field, host_of, instance, host):
            continue
        value = value_after(amount, scale, centred, squares, weight, order.size, instance, source, host)
        if value < least:
            best, least = host, value
        tries -= 1
        if tries == 0:
            break
    return least, best


@njit(cache=True)
def bounds(
    host_of: Ints,
    free: Bools,
    amount: Floats,
    scale: Floats,
    centred: Floats,
    squares: Floats,
    weight: Floats,
    hosts: Ints,
    out: Floats,
) -> None:
    """Fill `out` [V] with values no move of an instance can get below; infinity for those that stay."""
    metrics = weight.size
    coldest = np.full(metrics, np.inf)
    small = np.full(metrics, np.inf)
    large = np.zeros(metrics)
    for m in range(metrics):
        for host in hosts:
            coldest[m] = min(coldest[m], centred[m, host])
            small[m] = min(small[m], scale[m, host])
            large[m] = max(large[m], scale[m, host])
    for instance in range(host_of.size):
        out[instance] = np.inf
        if not free[instance]:
            continue
        value = 0.0
        for m in range(metrics):
            a = amount[m, instance] / scale[m, host_of[instance]]
            low, high = amount[m, instance] / large[m], amount[m, instance] / small[m]
            b = min(max(-coldest[m], low), high)
            mean = max((low - a) ** 2, (high - a) ** 2) / hosts.size
            change = -2 * a * centred[m, host_of[instance]] + a * a + 2 * b * coldest[m] + b * b - mean
            value += weight[m] * np.sqrt(max(squares[m] + change, 0.0) / hosts.size)
        out[instance] = value * (1 - 1e-12)


@njit(cache=True)
def level(
    field: Field,
    host_of: Ints,
    used: Floats,
    load: Floats,
    amount: Floats,
    scale: Floats,
    weight: Floats,
    threshold: Floats,
    free: Bools,
    hosts: Ints,
    choice: int,
    tries: int,
    turn: int,
    most: int,
) -> tuple[Ints, int, bool]:
    """Move instances, the best first, until every load's standard deviation is at most its threshold.

    Args:
        field: limits, needs and rules.
        host_of: who is where, [V]; changed in place.
        used: what is taken, [H, R]; changed in place.
        load: load of the hosts by metric, [M, H]; changed in place.
        amount: what an instance adds to a host's load, times `scale`, [M, V].
        scale: size of the hosts by metric, [M, H].
        weight: of each metric, [M].
        threshold: of each metric's standard deviation, [M].
        free: instances that may move, [V]; one that moved may not move again (changed in place).
        hosts: hosts that take part, ascending; the free instances are on them.
        choice: FULLSEARCH looks at all hosts, RETRY at the `tries` least loaded ones that may take an instance, CYCLE
            lets the hosts receive in turn.
        tries: see RETRY.
        turn: position in `hosts` of the one whose turn it is.
        most: at most so many moves.

    Returns:
        moves [K, 2] (instance, host) in order; whose turn is next; whether there is nothing more to do.
    """
    moves = np.empty((most, 2), np.int32)
    centred = np.zeros(load.shape)
    squares = np.zeros(weight.size)
    bound = np.empty(host_of.size)
    pressure = np.empty(hosts.size)
    made, idle = 0, 0
    while made < most:
        spread(load, hosts, centred, squares)
        balanced = True
        for m in range(weight.size):
            balanced = balanced and np.sqrt(squares[m] / hosts.size) <= threshold[m]
        if balanced:
            return moves[:made], turn, True
        now = weighted(squares, weight, hosts.size)
        chosen, target, least = -1, -1, now * (1 - LEAST_GAIN)
        if choice == CYCLE:
            host = hosts[turn % hosts.size]
            turn = (turn + 1) % hosts.size
            for instance in range(host_of.size):
                if not free[instance] or host_of[instance] == host or not fits(field, used, instance, host):
                    continue
                value = value_after(
                    amount, scale, centred, squares, weight, hosts.size, instance, host_of[instance], host
                )
                if value < least and may_join(field, host_of, instance, host):
                    chosen, target, least = instance, host, value
            if chosen < 0:
                idle += 1
                if idle >= hosts.size:
                    return moves[:made], turn, True
                continue
            idle = 0
        else:
            order = hosts
            limit = hosts.size
            if choice == RETRY:
                limit = tries
                for k in range(hosts.size):
                    pressure[k] = 0.0
                    for m in range(weight.size):
                        pressure[k] += weight[m] * load[m, hosts[k]]
                order = hosts[np.argsort(pressure, kind="mergesort")]
            bounds(host_of, free, amount, scale, centred, squares, weight, hosts, bound)
            first = int(np.argmin(bound))
            for look in range(-1, host_of.size):
                instance = first if look < 0 else look
                if bound[instance] > least or (look == first) or not free[instance]:
                    continue
                value, host = best_host(
                    field, host_of, used, amount, scale, centred, squares, weight, order, limit, instance
                )
                if value < least or (value == least and chosen > instance):
                    chosen, target, least = instance, host, value
            if chosen < 0:
                return moves[:made], turn, True
        source = host_of[chosen]
        for m in range(weight.size):
            load[m, source] -= amount[m, chosen] / scale[m, source]
            load[m, target] += amount[m, chosen] / scale[m, target]
        put(field, host_of, used, chosen, target)
        free[chosen] = False
        moves[made] = chosen, target
        made += 1
    return moves[:made], turn, False
