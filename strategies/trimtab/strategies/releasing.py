"""Releasing hosts one after another: the emptiest gives all its instances to the fullest that have room, or none.

The search Watcher's `basic` and `node_resource_consolidation` do host by host, with the first host that has room found
in a tree of maxima (a tournament tree over the receivers in their order) instead of by a walk over all of them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.strategies.feasibility import Field, may_join, put

REFRESHES = 16  # how often hosts are put in order anew at most: after every donor in a small cluster


@njit(cache=True)
def roomy(tree: Floats, node: int, field: Field, instance: int, least: float) -> bool:
    """Whether some host below a node may have the room; at a leaf: whether the host has it."""
    dimensions = field.need.shape[1]
    enough = tree[node, dimensions] >= least
    for r in range(dimensions):
        enough = enough and tree[node, r] >= field.need[instance, r] - ROUNDING
    return enough


@njit(cache=True)
def next_with_room(tree: Floats, leaves: int, field: Field, unit: Floats, instance: int, start: int) -> int:
    """The first position from `start` on whose host has room for an instance; -1 when there is none."""
    node = start + leaves
    if start >= leaves:
        return -1
    least = np.inf
    for r in range(unit.size):
        least = min(least, (field.need[instance, r] - ROUNDING) * unit[r])
    while True:
        if roomy(tree, node, field, instance, least):
            if node >= leaves:
                return node - leaves
            node *= 2
            continue
        while node & 1:
            node >>= 1
        if node == 0:
            return -1
        node += 1


@njit(cache=True)
def write_leaf(tree: Floats, node: int, field: Field, unit: Floats, used: Floats, host: int, open_: bool) -> None:
    """Write what a host has left in every dimension, and the least of the first few of these, each in its unit.

    The maximum of one dimension over many hosts says little where each lacks another: the last column does.
    """
    dimensions = field.need.shape[1]
    least = np.inf
    for r in range(dimensions):
        tree[node, r] = field.limit[host, r] - used[host, r] if open_ else -np.inf
        if r < unit.size:
            least = min(least, tree[node, r] * unit[r] if open_ else -np.inf)
    tree[node, dimensions] = least


@njit(cache=True)
def set_room(
    tree: Floats, leaves: int, position: int, field: Field, unit: Floats, used: Floats, host: int, open_: bool
) -> None:
    """Write what a host has left at its position and up to the root; nothing at all when it is closed."""
    node = position + leaves
    write_leaf(tree, node, field, unit, used, host, open_)
    node >>= 1
    while node:
        changed = False
        for r in range(tree.shape[1]):
            most = max(tree[2 * node, r], tree[2 * node + 1, r])
            if most != tree[node, r]:
                tree[node, r] = most
                changed = True
        if not changed:
            return
        node >>= 1


@njit(cache=True)
def units(field: Field) -> Floats:
    """One over the mean need of vCPUs and memory, [2]: what makes them comparable; 0 where nobody needs any."""
    unit = np.zeros(min(2, field.need.shape[1]))
    for r in range(unit.size):
        total = field.need[:, r].sum()
        unit[r] = field.need.shape[0] / total if total > 0 else 0.0
    return unit


@njit(cache=True)
def guests_by_host(host_of: Ints, size: Floats, hosts: int) -> tuple[Ints, Ints]:
    """Instances of every host, the largest first, ascending rows of equals, as CSR: `rows[start[h]:start[h + 1]]`."""
    start = np.zeros(hosts + 1, np.int32)
    for host in host_of:
        if host >= 0:
            start[host + 1] += 1
    for host in range(hosts):
        start[host + 1] += start[host]
    rows = np.empty(start[hosts], np.int32)
    end = start[:hosts].copy()
    for instance in range(host_of.size):
        host = host_of[instance]
        if host < 0:
            continue
        k = end[host]
        end[host] += 1
        while k > start[host] and size[rows[k - 1]] < size[instance]:
            rows[k] = rows[k - 1]
            k -= 1
        rows[k] = instance
    return start, rows


@njit(cache=True)
def fullness(used: Floats, worth: Floats, base: Floats) -> Floats:
    """How full hosts are, [H]: `base` plus what is used, each dimension times its worth on that host."""
    value = base.copy()
    for host in range(value.size):
        for r in range(worth.shape[1]):
            value[host] += worth[host, r] * used[host, r]
    return value


@njit(cache=True)
def release(
    field: Field,
    host_of: Ints,
    used: Floats,
    receives: Bools,
    donates: Bools,
    size: Floats,
    worth: Floats,
    base: Floats,
    first: Floats,
    attempts: int,
) -> tuple[Ints, Ints]:
    """Empty donors, the least full first; a host that cannot be emptied altogether stays as it is.

    A host that received keeps what it has; one that was emptied receives no more. So every instance moves at most once,
    and the moves hold in this order.

    Args:
        field: limits, needs and rules.
        host_of: who is where, [V]; changed in place.
        used: what is taken, [H, R]; changed in place.
        receives: hosts that may take instances, [H]; changed in place.
        donates: hosts that may be emptied, [H]: every instance on them may move.
        size: the largest instance of a host goes first, [V].
        worth: what a unit of each dimension adds to a host's fullness, [H, R].
        base: fullness of an empty host as a receiver, [H]; the fullest receiver is asked first.
        first: the same as a donor, [H]; the least full donor goes first, the last row of equals.
        attempts: give up after more than so many failures in a row; 0 = never.

    Returns:
        moves [K, 2] (instance, host) in order; emptied hosts in order.
    """
    hosts = receives.size
    start, rows = guests_by_host(host_of, size, hosts)
    waiting = np.zeros(hosts, np.bool_)
    count = 0
    for host in range(hosts):
        waiting[host] = donates[host] and start[host + 1] > start[host]
        count += waiting[host]
    batch = max(1, count // REFRESHES)
    leaves = 1
    while leaves < hosts:
        leaves *= 2
    unit = units(field)
    tree = np.full((2 * leaves, field.need.shape[1] + 1), -np.inf)
    position = np.zeros(hosts, np.int32)
    moves = np.empty((host_of.size, 2), np.int32)
    emptied = np.empty(hosts, np.int32)
    made, done, failures = 0, 0, 0
    while True:
        donors = np.argsort(-fullness(used, worth, first), kind="mergesort")[::-1]
        order = np.argsort(-fullness(used, worth, base), kind="mergesort")
        for k in range(hosts):
            position[order[k]] = k
            write_leaf(tree, leaves + k, field, unit, used, order[k], receives[order[k]])
        for node in range(leaves - 1, 0, -1):
            for r in range(tree.shape[1]):
                tree[node, r] = max(tree[2 * node, r], tree[2 * node + 1, r])
        tried = 0
        for donor in donors:
            if not waiting[donor]:
                continue
            if tried == batch:
                break
            tried += 1
            waiting[donor] = False
            if receives[donor]:
                set_room(tree, leaves, position[donor], field, unit, used, donor, False)
            began = made
            for k in range(start[donor], start[donor + 1]):
                guest = rows[k]
                found = next_with_room(tree, leaves, field, unit, guest, 0)
                while found >= 0 and not may_join(field, host_of, guest, order[found]):
                    found = next_with_room(tree, leaves, field, unit, guest, found + 1)
                if found < 0:
                    break
                host = order[found]
                put(field, host_of, used, guest, host)
                set_room(tree, leaves, found, field, unit, used, host, True)
                moves[made, 0], moves[made, 1] = guest, host
                made += 1
            if made - began < start[donor + 1] - start[donor]:
                while made > began:
                    made -= 1
                    guest, host = moves[made, 0], moves[made, 1]
                    put(field, host_of, used, guest, donor)
                    set_room(tree, leaves, position[host], field, unit, used, host, True)
                if receives[donor]:
                    set_room(tree, leaves, position[donor], field, unit, used, donor, True)
                failures += 1
                if attempts and failures > attempts:
                    return moves[:made], emptied[:done]
                continue
            failures = 0
            receives[donor] = False
            emptied[done] = donor
            done += 1
            for k in range(began, made):
                waiting[moves[k, 1]] = False
        if tried == 0:
            return moves[:made], emptied[:done]
