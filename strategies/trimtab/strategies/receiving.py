"""Receivers for single instances: of all hosts that may take one the best by some key, over and over again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.strategies.feasibility import Field, fits, may_join, put

REMEMBERED = 32  # needs that found no host; whoever needs at least as much of everything finds none either


@njit(cache=True)
def lowest(field: Field, host_of: Ints, used: Floats, receives: Bools, key: Floats, instance: int) -> int:
    """Of the hosts that may take an instance the one with the lowest key, the first of equals; -1: there is none."""
    best, least = -1, np.inf
    for host in range(receives.size):
        if (
            receives[host]
            and key[host] < least
            and host != host_of[instance]
            and fits(field, used, instance, host)
            and may_join(field, host_of, instance, host)
        ):
            best, least = host, key[host]
    return best


@njit(cache=True)
def hopeless(field: Field, failed: Ints, count: int, instance: int) -> bool:
    """Whether an instance needs at least as much of everything as one that found no host among the same receivers."""
    for k in range(count):
        more = True
        for r in range(field.need.shape[1]):
            more = more and field.need[instance, r] >= field.need[failed[k], r]
        if more:
            return True
    return False


@njit(cache=True)
def remember(field: Field, failed: Ints, count: int, instance: int) -> int:
    """Note a need that found no host; how many are noted now. Who is bound by zone, group or rules is no example."""
    free = field.pinned[instance] < 0 and field.group[instance] < 0 and field.ties.klass.size == 0
    if count < failed.size and free:
        failed[count] = instance
        count += 1
    return count


@njit(cache=True)
def receive(
    field: Field,
    host_of: Ints,
    used: Floats,
    receives: Bools,
    key: Floats,
    adds: Floats,
    queue: Ints,
    batch: Ints,
    most: int,
    one_batch: bool,
) -> Ints:
    """Give each instance of a queue to the receiver with the lowest key; who finds none stays where it is.

    Args:
        field: limits, needs and rules.
        host_of: who is where, [V]; changed in place.
        used: what is taken, [H, R]; changed in place.
        receives: hosts that may take instances, [H]; no instance of the queue is on one of them.
        key: the lowest receives first, [H]; changed in place.
        adds: by how much an instance raises its receiver's key, [V].
        queue: instances in this order, [K].
        batch: which belong together, [K], ascending.
        most: at most so many moves.
        one_batch: stop after the first batch of which something moved.

    Returns:
        moves [M, 2] (instance, host) in order.
    """
    moves = np.empty((min(most, queue.size), 2), np.int32)
    failed = np.empty(REMEMBERED, np.int32)
    made, known = 0, 0
    for k in range(queue.size):
        if made == most or (one_batch and made and batch[k] != batch[k - 1]):
            break
        instance = queue[k]
        if hopeless(field, failed, known, instance):
            continue
        host = lowest(field, host_of, used, receives, key, instance)
        if host < 0:
            known = remember(field, failed, known, instance)
            continue
        put(field, host_of, used, instance, host)
        key[host] += adds[instance]
        moves[made, 0], moves[made, 1] = instance, host
        made += 1
    return moves[:made]


@njit(cache=True)
def even_out(
    field: Field,
    host_of: Ints,
    used: Floats,
    part: Bools,
    load: Floats,
    size: Floats,
    amount: Floats,
    free: Bools,
    threshold: float,
    most: int,
) -> Ints:
    """Take load off hosts at or above a threshold, one instance at a time, and give it to the least loaded.

    The most loaded host gives first: the instance that takes most of what the host has above the cluster's average and
    no more than that, else the smallest that takes more. Who finds no receiver that stays below the threshold is passed
    over, and so is a host nobody of which does.

    Args:
        field: limits (the last one of the load, strictly below the threshold), needs and rules.
        host_of: who is where, [V]; changed in place.
        used: what is taken, [H, R]; changed in place.
        part: hosts that take part, [H]; those below the threshold receive.
        load: measured load of the hosts, [H]; changed in place.
        size: what their load is a share of, [H]; above zero where `part`.
        amount: what an instance adds to the load, [V].
        free: instances that may move, [V]; changed in place.
        threshold: share of `size` at which a host gives.
        most: at most so many moves.

    Returns:
        moves [M, 2] (instance, host) in order.
    """
    hosts = load.size
    share = np.full(hosts, -np.inf)
    gives = np.zeros(hosts, np.bool_)
    receives = np.zeros(hosts, np.bool_)
    whole, there = 0.0, 0.0
    for host in range(hosts):
        if part[host]:
            whole += load[host]
            there += size[host]
            share[host] = load[host] / size[host]
            gives[host] = share[host] >= threshold
            receives[host] = not gives[host]
    average = whole / there if there > 0 else 0.0
    moves = np.empty((min(most, host_of.size), 2), np.int32)
    failed = np.empty(REMEMBERED, np.int32)
    made, known = 0, 0
    head = np.full(hosts, -1, np.int32)
    following = np.full(host_of.size, -1, np.int32)
    for instance in range(host_of.size - 1, -1, -1):
        host = host_of[instance]
        if host >= 0 and gives[host] and free[instance] and amount[instance] > 0:
            following[instance] = head[host]
            head[host] = instance
    guests = np.empty(host_of.size, np.int32)
    rank = np.empty(host_of.size, np.float64)
    while made < moves.shape[0]:
        source, highest = -1, -np.inf
        for host in range(hosts):
            if gives[host] and share[host] > highest:
                source, highest = host, share[host]
        if source < 0:
            break
        surplus = load[source] - average * size[source]
        count = 0
        instance = head[source]
        while instance >= 0:
            if free[instance]:
                guests[count] = instance
                rank[count] = (
                    surplus - amount[instance] if amount[instance] <= surplus else load[source] + amount[instance]
                )
                count += 1
            instance = following[instance]
        moved = False
        for k in np.argsort(rank[:count], kind="mergesort"):
            guest = guests[k]
            if hopeless(field, failed, known, guest):
                continue
            host = lowest(field, host_of, used, receives, share, guest)
            if host < 0:
                known = remember(field, failed, known, guest)
                continue
            put(field, host_of, used, guest, host)
            load[source] -= amount[guest]
            load[host] += amount[guest]
            share[source] = load[source] / size[source]
            share[host] = load[host] / size[host]
            free[guest] = False
            moves[made, 0], moves[made, 1] = guest, host
            made += 1
            moved = True
            break
        gives[source] = moved and share[source] >= threshold
    return moves[:made]


def in_rounds(host_of: Ints, host_key: Floats, order: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], Ints]:
    """A queue in which hosts take turns: everybody's first, then everybody's second, and so on.

    Args:
        host_of: host of each of K instances, [K].
        host_key: key of that host, [K]; within a round the lowest goes first.
        order: the K instances as they follow each other on their hosts.

    Returns:
        positions in the queue's order, [K], and the round each belongs to, [K].
    """
    by_host = order[np.argsort(host_of[order], kind="stable")]
    hosts = host_of[by_host]
    begins = np.ones(len(hosts), bool)
    begins[1:] = hosts[1:] != hosts[:-1]
    first = np.flatnonzero(begins)
    turn = np.empty(len(order), np.int32)
    turn[by_host] = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
    queue = order[np.lexsort((host_of[order], host_key[order], turn[order]))]
    return queue, turn[queue]
