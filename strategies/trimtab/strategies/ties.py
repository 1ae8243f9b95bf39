"""Extra rules for compiled searches: a rulebook's flat arrays with counts of who is where, and what they allow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.rules import rulebook
from trimtab.platform.rules.book import (
    AMONG,
    AMOUNT,
    GATHER,
    LONELY,
    ONLINE,
    RUNNING,
    SPLIT,
    SPLIT_AMONG,
    SPREAD,
)


class Ties(NamedTuple):
    """A rulebook for compiled code (see `Rulebook` for the shapes), and counts of who is where; empty without rules."""

    klass: Ints
    allowed: Bools
    kind: npt.NDArray[np.int8]
    table: Ints
    parts: Ints
    of_start: Ints
    of_relation: Ints
    of_side: Ints
    in_start: Ints
    in_member: Ints
    in_side: Ints
    measure: npt.NDArray[np.int8]
    resource: Ints
    most: Floats
    at_start: Ints
    at_limit: Ints
    need: Floats  # [V, 3] what the limits count
    lonely: Bools  # [V] members of lonely rules
    head: Ints  # [H] first guest of each host; -1 = none
    following: Ints  # [V] next guest on the same host
    ahead: Ints  # [V] guest before on the same host
    guests: Ints  # [H]
    tally: Floats  # [K] what each limit has reached


def _nothing() -> Ties:
    kinds = {"allowed": np.bool_, "kind": np.int8, "measure": np.int8, "most": np.float64, "need": np.float64}
    kinds |= {"lonely": np.bool_, "tally": np.float64}
    flat = ("allowed", "parts", "need")
    return Ties(*(np.empty((0, 0) if n in flat else 0, kinds.get(n, np.int32)) for n in Ties._fields))


NO_TIES = _nothing()


def ties_of(model: ClusterModel) -> Ties:
    """The model's rulebook for compiled code, nothing counted yet."""
    book = rulebook(model)
    if book.empty:
        return NO_TIES
    given = {name: np.array(getattr(book, name)) for name in Ties._fields if hasattr(book, name) and name != "lonely"}
    lonely = np.zeros(model.instances, bool)
    for relation in book.lonely.tolist():
        lonely[book.members(relation)[0]] = True
    return Ties(
        **given,
        need=np.array(model.need, np.float64, order="C"),
        lonely=lonely,
        head=np.empty(model.hosts, np.int32),
        following=np.empty(model.instances, np.int32),
        ahead=np.empty(model.instances, np.int32),
        guests=np.empty(model.hosts, np.int32),
        tally=np.empty(len(book.limits)),
    )


@njit(cache=True)
def obeys(ties: Ties, host_of: Ints, instance: int, host: int) -> bool:
    """Whether the extra rules let an instance move from where it is to a host."""
    if ties.klass[instance] >= 0 and not ties.allowed[ties.klass[instance], host]:
        return False
    first, last = ties.of_start[instance], ties.of_start[instance + 1]
    for e in range(first, last):
        relation = ties.of_relation[e]
        kind = ties.kind[relation]
        if kind in (GATHER, AMONG, SPLIT_AMONG) and not _joins(
            ties, host_of, instance, host, relation, ties.of_side[e]
        ):
            return False
    guest = ties.head[host]
    while guest >= 0:
        if guest != instance and (first < last or ties.lonely[guest]) and _apart(ties, instance, guest):
            return False
        guest = ties.following[guest]
    source = host_of[instance]
    for e in range(ties.at_start[host], ties.at_start[host + 1]):
        limit = ties.at_limit[e]
        measure = ties.measure[limit]
        if measure == ONLINE and ties.guests[host] > 0:
            continue
        inside = source >= 0 and _limited(ties, limit, source)
        if measure == ONLINE:
            closes = 1 if inside and ties.guests[source] == 1 else 0
            grown = 1.0 - closes
        elif inside:
            continue
        elif measure == RUNNING:
            grown = 1.0
        else:
            grown = ties.need[instance, ties.resource[limit]]
        if grown > 0 and ties.tally[limit] + grown > ties.most[limit] + ROUNDING:
            return False
    return True


@njit(cache=True)
def _apart(ties: Ties, a: int, b: int) -> bool:
    """Whether two instances must not share a host: spread, split, or a lonely rule that holds one of them only."""
    for e in range(ties.of_start[a], ties.of_start[a + 1]):
        relation = ties.of_relation[e]
        kind = ties.kind[relation]
        if kind not in (SPREAD, LONELY, SPLIT):
            continue
        both = False
        for f in range(ties.of_start[b], ties.of_start[b + 1]):
            if ties.of_relation[f] == relation:
                both = True
                if kind == SPREAD or (kind == SPLIT and ties.of_side[e] != ties.of_side[f]):
                    return True
        if kind == LONELY and not both:
            return True
    if ties.lonely[b]:
        for f in range(ties.of_start[b], ties.of_start[b + 1]):
            if ties.kind[ties.of_relation[f]] == LONELY:
                both = False
                for e in range(ties.of_start[a], ties.of_start[a + 1]):
                    both = both or ties.of_relation[e] == ties.of_relation[f]
                if not both:
                    return True
    return False


@njit(cache=True)
def _joins(ties: Ties, host_of: Ints, instance: int, host: int, relation: int, side: int) -> bool:
    """Whether an instance comes to where most of its own are (gather, among), and to nobody else's part (split)."""
    tabled = ties.table[relation] >= 0
    part = ties.parts[ties.table[relation], host] if tabled else host
    if part < 0:
        return False
    source = host_of[instance]
    home = -1
    if source >= 0:
        home = ties.parts[ties.table[relation], source] if tabled else source
    here, there, others = 0, 0, 0
    for k in range(ties.in_start[relation], ties.in_start[relation + 1]):
        peer = ties.in_member[k]
        if peer == instance or host_of[peer] < 0:
            continue
        at = ties.parts[ties.table[relation], host_of[peer]] if tabled else host_of[peer]
        if ties.in_side[k] != side:
            if at == part:
                return False
            continue
        if at >= 0:
            others += 1
            if at == part:
                there += 1
            if at == home:
                here += 1
    if others in (0, there):
        return True
    if source < 0:
        here = _most(ties, host_of, instance, relation, side)
    return there > 0 and there >= here


@njit(cache=True)
def _most(ties: Ties, host_of: Ints, instance: int, relation: int, side: int) -> int:
    """How many of an instance's own are in the fullest part."""
    tabled = ties.table[relation] >= 0
    most = 0
    for k in range(ties.in_start[relation], ties.in_start[relation + 1]):
        peer = ties.in_member[k]
        if peer == instance or host_of[peer] < 0 or ties.in_side[k] != side:
            continue
        part = ties.parts[ties.table[relation], host_of[peer]] if tabled else host_of[peer]
        count = 0
        for j in range(ties.in_start[relation], ties.in_start[relation + 1]):
            other = ties.in_member[j]
            if other != instance and host_of[other] >= 0 and part >= 0 and ties.in_side[j] == side:
                at = ties.parts[ties.table[relation], host_of[other]] if tabled else host_of[other]
                count += 1 if at == part else 0
        most = max(most, count)
    return most


@njit(cache=True)
def _limited(ties: Ties, limit: int, host: int) -> bool:
    found = False
    for e in range(ties.at_start[host], ties.at_start[host + 1]):
        found = found or ties.at_limit[e] == limit
    return found


@njit(cache=True)
def leave(ties: Ties, instance: int, host: int) -> None:
    """Count an instance out of a host."""
    ahead, following = ties.ahead[instance], ties.following[instance]
    if ahead >= 0:
        ties.following[ahead] = following
    else:
        ties.head[host] = following
    if following >= 0:
        ties.ahead[following] = ahead
    ties.guests[host] -= 1
    _count(ties, instance, host, -1.0, ties.guests[host] == 0)


@njit(cache=True)
def join(ties: Ties, instance: int, host: int) -> None:
    """Count an instance in on a host."""
    first = ties.head[host]
    ties.following[instance], ties.ahead[instance] = first, -1
    if first >= 0:
        ties.ahead[first] = instance
    ties.head[host] = instance
    ties.guests[host] += 1
    _count(ties, instance, host, 1.0, ties.guests[host] == 1)


@njit(cache=True)
def _count(ties: Ties, instance: int, host: int, sign: float, turns: bool) -> None:
    for e in range(ties.at_start[host], ties.at_start[host + 1]):
        limit = ties.at_limit[e]
        if ties.measure[limit] == RUNNING:
            ties.tally[limit] += sign
        elif ties.measure[limit] == AMOUNT:
            ties.tally[limit] += sign * ties.need[instance, ties.resource[limit]]
        elif turns:
            ties.tally[limit] += sign


@njit(cache=True)
def begin(ties: Ties, host_of: Ints) -> None:
    """Count anew who is where; nothing to do without rules."""
    if ties.klass.size == 0:
        return
    ties.head[:] = -1
    ties.guests[:] = 0
    ties.tally[:] = 0.0
    for instance in range(host_of.size):
        if host_of[instance] >= 0:
            join(ties, instance, host_of[instance])
