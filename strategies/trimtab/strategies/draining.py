"""Emptying hosts: relieve the overloaded ones, then drain as many as possible into the others.

Vector bin packing in the manner of best-fit decreasing with the L2 rule of Panigrahy, Talwar, Uyeda and Wieder,
"Heuristics for Vector Bin Packing" (Microsoft Research, 2011): of all hosts with room take the one whose room left
over, weighted by how scarce each resource is in the whole cluster, is smallest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.strategies.feasibility import Field, fits, may_join, put, unbound

ROUNDS = 3  # hosts that could not be emptied are tried again so often: others may have gone by then


def scarcity(field: Field, receivers: Bools) -> Floats:
    """Weight of one unit of each dimension, [R]: share of it in demand over all there is of it; 0 where none exists."""
    whole = field.limit[receivers].sum(axis=0)
    share = np.divide(field.need.sum(axis=0), whole, out=np.zeros_like(whole), where=whole > 0)
    return np.divide(share, whole, out=np.zeros_like(whole), where=whole > 0)


@njit(cache=True)
def best_fit(field: Field, host_of: Ints, used: Floats, instance: int, hosts: Ints, count: int, weight: Floats) -> int:
    """Of the first `count` hosts the allowed one with the least weighted room left over; -1 when there is none."""
    best, least = -1, np.inf
    at = host_of[instance]
    anywhere = unbound(field, instance)
    for k in range(count):
        host = hosts[k]
        if host == at:
            continue
        rest = 0.0
        for r in range(weight.size):
            room = field.limit[host, r] - used[host, r] - field.need[instance, r]
            if room < -ROUNDING:
                rest = np.inf
                break
            rest += (weight[r] * room) ** 2
            if rest >= least:
                break
        if rest < least and (anywhere or may_join(field, host_of, instance, host)):
            best, least = host, rest
    return best


@njit(cache=True)
def drain(field: Field, host_of: Ints, used: Floats, receives: Bools, donors: Ints, weight: Floats) -> int:
    """Empty donors in the order given; a host that cannot be emptied altogether stays as it is.

    Args:
        field: limits, needs and rules.
        host_of: who is where, [V]; changed in place.
        used: what is taken, [H, R]; changed in place.
        receives: hosts that may take instances, [H]; a host that was emptied does so no more (changed in place).
        donors: hosts to empty, in this order; every instance on them must be movable.
        weight: worth of one unit of each dimension, [R].

    Returns:
        how many hosts were emptied.
    """
    head = np.full(receives.size, -1, np.int32)
    following = np.full(host_of.size, -1, np.int32)
    for instance in range(host_of.size - 1, -1, -1):
        host = host_of[instance]
        if host >= 0:
            following[instance] = head[host]
            head[host] = instance
    alive = np.flatnonzero(receives).astype(np.int32)
    count = alive.size
    guests = np.empty(host_of.size, np.int32)
    size = np.empty(host_of.size, np.float64)
    emptied = 0
    for _ in range(ROUNDS):
        before = emptied
        for donor in donors:
            number = 0
            instance = head[donor]
            while instance >= 0:
                guests[number] = instance
                size[number] = 0.0
                for r in range(weight.size):
                    size[number] -= weight[r] * field.need[instance, r]
                number += 1
                instance = following[instance]
            if number == 0:
                continue
            order = np.argsort(size[:number], kind="mergesort")
            placed = 0
            for k in order:
                host = best_fit(field, host_of, used, guests[k], alive, count, weight)
                if host < 0:
                    break
                put(field, host_of, used, guests[k], host)
                placed += 1
            if placed < number:
                for k in order[:placed]:
                    put(field, host_of, used, guests[k], donor)
                continue
            for k in order:
                guest = guests[k]
                following[guest] = head[host_of[guest]]
                head[host_of[guest]] = guest
            head[donor] = -1
            emptied += 1
            if receives[donor]:
                receives[donor] = False
                kept = 0
                for k in range(count):
                    if alive[k] != donor:
                        alive[kept] = alive[k]
                        kept += 1
                count = kept
        if emptied == before:
            break
    return emptied


@njit(cache=True)
def cover(field: Field, excess: Floats, instance: int) -> float:
    """How much of a host's excess an instance takes away with it: 1 = all of it, in the worst dimension."""
    least = 1.0
    for r in range(excess.size):
        if excess[r] > 0:
            least = min(least, field.need[instance, r] / excess[r])
    return least


@njit(cache=True)
def relieve(
    field: Field,
    host_of: Ints,
    used: Floats,
    watched: Bools,
    tier: npt.NDArray[np.int8],
    movable: Bools,
    overloaded: Ints,
    weight: Floats,
    cost: Floats,
) -> None:
    """Take instances off overloaded hosts until they are within their limits or nothing more can be done.

    The instance that takes away most of the excess goes first, the cheapest of equals: one move where one will do.

    Args:
        field: limits, needs and rules.
        host_of: who is where, [V]; changed in place.
        used: what is taken, [H, R]; changed in place.
        watched: limits whose excess counts as overload, [H, R].
        tier: which receivers are taken first, [H]: 1 before 2 before 3, 0 never; a host that receives becomes 1.
        movable: instances that may be moved, [V].
        overloaded: hosts to relieve, in this order; none of them may be a receiver.
        weight: worth of one unit of each dimension, [R].
        cost: what moving an instance costs, [V].
    """
    hosts = np.empty(tier.size, np.int32)
    excess = np.empty(weight.size, np.float64)
    for source in overloaded:
        guests = np.flatnonzero((host_of == source) & movable).astype(np.int32)
        left = np.ones(guests.size, np.bool_)
        while True:
            heavy = False
            for r in range(excess.size):
                over = used[source, r] - field.limit[source, r]
                excess[r] = over if watched[source, r] and over > ROUNDING else 0.0
                heavy = heavy or excess[r] > 0
            if not heavy:
                break
            chosen, most = -1, 0.0
            for k in range(guests.size):
                if left[k]:
                    share = cover(field, excess, guests[k])
                    if share > most or (chosen >= 0 and share == most and cost[guests[k]] < cost[guests[chosen]]):
                        chosen, most = k, share
            if chosen < 0:
                break
            left[chosen] = False
            for level in range(1, 4):
                count = 0
                for host in range(tier.size):
                    if tier[host] == level:
                        hosts[count] = host
                        count += 1
                target = best_fit(field, host_of, used, guests[chosen], hosts, count, weight)
                if target >= 0:
                    put(field, host_of, used, guests[chosen], target)
                    tier[target] = 1
                    break


__all__ = ["ROUNDS", "best_fit", "cover", "drain", "fits", "relieve", "scarcity"]
