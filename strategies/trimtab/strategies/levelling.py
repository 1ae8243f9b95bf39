"""Levelling load over hosts: the steepest descent of the weighted standard deviation, one migration at a time.

A move of an instance from s to d changes n times the variance of a load x by
-2 a y_s + a^2 + 2 b y_d + b^2 - (b - a)^2 / n, where y is x less its mean, a and b what the instance adds to x on s
and on d, and n the number of hosts. So every pair costs a few operations, and an instance whose best imaginable
receiver (as cold as the coldest, of the best size) would not beat the best pair found is not looked at: the result is
the same as that of trying all pairs. With several metrics the bound is loose, and gains known from earlier moves serve
instead.
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
    least: float,
) -> tuple[float, int]:
    """Of the first `tries` hosts in `order` that may take the instance the best one, and the value then.

    -1 when none brings the value to `least` or below. With one metric `order` must be by ascending load: the search
    ends where even a host of the best size would be too warm.
    """
    best = -1
    source = host_of[instance]
    one = weight.size == 1
    a, low, high, reach = 0.0, 0.0, 0.0, 0.0
    if one:
        a = amount[0, instance] / scale[0, source]
        low, high = np.inf, 0.0
        for host in order:
            low, high = min(low, scale[0, host]), max(high, scale[0, host])
        low, high = amount[0, instance] / high, amount[0, instance] / low
        reach = squares[0] - 2 * a * centred[0, source] + a * a - max((low - a) ** 2, (high - a) ** 2) / order.size
    for host in order:
        if one:
            b = min(max(-centred[0, host], low), high)
            change = reach + 2 * b * centred[0, host] + b * b
            if weight[0] * np.sqrt(max(change, 0.0) / order.size) * (1 - 1e-12) > least:
                break
        if host == source or not fits(field, used, instance, host):
            continue
        if not may_join(field, host_of, instance, host):
            continue
        value = value_after(amount, scale, centred, squares, weight, order.size, instance, source, host)
        if value < least or (best < 0 and value == least):
            best, least = host, value
        tries -= 1
        if tries == 0:
            break
    return least, best


@njit(cache=True)
def coldest_of(field: Field, used: Floats, centred: Floats, order: Ints, size: Ints, out: Floats) -> None:
    """Fill `out` [C, M]: for every size of instance the lowest loads (less the mean) of hosts with room for it.

    `size` [C] holds one instance of each size; with one metric `order` must be by ascending load.
    """
    metrics = out.shape[1]
    out[:] = np.inf
    for c in range(size.size):
        for host in order:
            if not fits(field, used, size[c], host):
                continue
            for m in range(metrics):
                out[c, m] = min(out[c, m], centred[m, host])
            if metrics == 1:
                break


@njit(cache=True)
def bounds(
    host_of: Ints,
    free: Bools,
    kind: Ints,
    coldest: Floats,
    amount: Floats,
    scale: Floats,
    centred: Floats,
    squares: Floats,
    weight: Floats,
    hosts: Ints,
    out: Floats,
) -> None:
    """Fill `out` [V] with values no move of an instance can get below; infinity for those that cannot move."""
    metrics = weight.size
    small = np.full(metrics, np.inf)
    large = np.zeros(metrics)
    for m in range(metrics):
        for host in hosts:
            small[m] = min(small[m], scale[m, host])
            large[m] = max(large[m], scale[m, host])
    for instance in range(host_of.size):
        out[instance] = np.inf
        if not free[instance] or coldest[kind[instance], 0] == np.inf:
            continue
        value = 0.0
        for m in range(metrics):
            a = amount[m, instance] / scale[m, host_of[instance]]
            low, high = amount[m, instance] / large[m], amount[m, instance] / small[m]
            cold = coldest[kind[instance], m]
            b = min(max(-cold, low), high)
            mean = max((low - a) ** 2, (high - a) ** 2) / hosts.size
            change = -2 * a * centred[m, host_of[instance]] + a * a + 2 * b * cold + b * b - mean
            value += weight[m] * np.sqrt(max(squares[m] + change, 0.0) / hosts.size)
        out[instance] = value * (1 - 1e-12)


@njit(cache=True)
def steepest(
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
    bound: Floats,
    least: float,
) -> tuple[int, int]:
    """The instance and host of the best of all moves below `least`; (-1, -1) when there is none."""
    chosen, target = -1, -1
    first = int(np.argmin(bound))
    for look in range(-1, host_of.size):
        instance = first if look < 0 else look
        if bound[instance] > least or look == first or bound[instance] == np.inf:
            continue
        value, host = best_host(
            field, host_of, used, amount, scale, centred, squares, weight, order, tries, instance, least
        )
        if host >= 0 and (value < least or chosen > instance):
            chosen, target, least = instance, host, value
    return chosen, target


@njit(cache=True)
def lazy(
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
    gain: Floats,
    now: float,
    floor: float,
) -> tuple[int, int]:
    """The instance and host of a best move, trusting that gains known from earlier moves have hardly grown since.

    `gain` [V] holds what is known of each instance's best move (changed in place). Minoux, "Accelerated greedy
    algorithms for maximizing submodular set functions" (1978).
    """
    while True:
        instance = int(np.argmax(gain))
        if gain[instance] <= floor:
            return -1, -1
        value, host = best_host(
            field, host_of, used, amount, scale, centred, squares, weight, order, tries, instance, np.inf
        )
        known = gain[instance]
        gain[instance] = now - value if host >= 0 else -np.inf
        if gain[instance] > floor and (gain[instance] >= known or int(np.argmax(gain)) == instance):
            return instance, host


@njit(cache=True)
def in_turn(
    field: Field,
    host_of: Ints,
    used: Floats,
    amount: Floats,
    scale: Floats,
    centred: Floats,
    squares: Floats,
    weight: Floats,
    count: int,
    free: Bools,
    host: int,
    least: float,
) -> int:
    """The instance that a host had best take; -1 when none brings the value below `least`."""
    chosen = -1
    for instance in range(host_of.size):
        if not free[instance] or host_of[instance] == host or not fits(field, used, instance, host):
            continue
        value = value_after(amount, scale, centred, squares, weight, count, instance, host_of[instance], host)
        if value < least and may_join(field, host_of, instance, host):
            chosen, least = instance, value
    return chosen


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
    kind: Ints,
    size: Ints,
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
        kind: instances of the same kind need the same of everything, [V].
        size: one instance of each kind, [C].
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
    coldest = np.empty((size.size, weight.size))
    gain = np.empty(host_of.size)
    made, idle = 0, 0
    while made < most:
        spread(load, hosts, centred, squares)
        balanced = True
        for m in range(weight.size):
            balanced = balanced and np.sqrt(squares[m] / hosts.size) <= threshold[m]
        if balanced:
            return moves[:made], turn, True
        now = weighted(squares, weight, hosts.size)
        least = now * (1 - LEAST_GAIN)
        if choice == CYCLE:
            target = hosts[turn % hosts.size]
            turn = (turn + 1) % hosts.size
            chosen = in_turn(
                field, host_of, used, amount, scale, centred, squares, weight, hosts.size, free, target, least
            )
            idle = idle + 1 if chosen < 0 else 0
            if idle >= hosts.size:
                return moves[:made], turn, True
            if chosen < 0:
                continue
        else:
            for k in range(hosts.size):
                pressure[k] = 0.0
                for m in range(weight.size):
                    pressure[k] += (weight[m] if weight.size > 1 else 1.0) * load[m, hosts[k]]
            order = hosts[np.argsort(pressure, kind="mergesort")]
            limit = tries if choice == RETRY else hosts.size
            anew = weight.size == 1 or made == 0
            while True:
                if anew:
                    coldest_of(field, used, centred, order, size, coldest)
                    bounds(host_of, free, kind, coldest, amount, scale, centred, squares, weight, hosts, bound)
                if weight.size == 1:
                    chosen, target = steepest(
                        field, host_of, used, amount, scale, centred, squares, weight, order, limit, bound, least
                    )
                    break
                if anew:
                    gain[:] = now - bound
                chosen, target = lazy(
                    field, host_of, used, amount, scale, centred, squares, weight, order, limit, gain, now, now - least
                )
                if chosen >= 0 or anew:
                    break
                anew = True  # what is known may be out of date: look at everything before giving up
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
        if choice != CYCLE and weight.size > 1:
            spread(load, hosts, centred, squares)
            now = weighted(squares, weight, hosts.size)
            for instance in range(host_of.size):
                if not free[instance]:
                    gain[instance] = -np.inf
                elif host_of[instance] == source or host_of[instance] == target:
                    gain[instance] = np.inf
                elif fits(field, used, instance, source):
                    at = host_of[instance]
                    value = value_after(amount, scale, centred, squares, weight, hosts.size, instance, at, source)
                    gain[instance] = max(gain[instance], now - value)
    return moves[:made], turn, False
