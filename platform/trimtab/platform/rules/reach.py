"""Where an instance may go: all rules at once, vectorised over hosts."""

from __future__ import annotations

import numpy as np

from trimtab.platform.model import ClusterModel, GroupPolicy, Placement
from trimtab.platform.model.compute import Bools, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.rules.book import (
    AMONG,
    AMOUNT,
    GATHER,
    LONELY,
    ONLINE,
    SPLIT,
    SPLIT_AMONG,
    SPREAD,
    Rulebook,
    host_mask,
    rulebook,
)


def destinations(placement: Placement, instance: int, receivers: Bools | None = None) -> Bools:
    """Hosts that may receive an instance now, [H]: room, receiving, every rule; never where it is.

    Args:
        placement: who is where at this point of the search.
        instance: row of the instance.
        receivers: hosts that take instances at all; the model's usable ones unless a strategy enables more.
    """
    model = placement.model
    ok = placement.fits(instance) & (model.usable if receivers is None else receivers)
    if placement.host_of[instance] >= 0:
        ok[placement.host_of[instance]] = False
    if (zone := model.pinned_zone[instance]) >= 0:
        ok &= model.zone.codes == zone
    group = int(model.group[instance])
    if group >= 0:
        start, rows = model.group_members
        peers = rows[start[group] : start[group + 1]]
        taken = placement.host_of[peers[(peers != instance) & (placement.host_of[peers] >= 0)]]
        policy = model.group_policy[group]
        if policy == GroupPolicy.ANTI_AFFINITY:
            ok[taken] = False
        elif policy == GroupPolicy.AFFINITY and len(taken):
            only = np.zeros(model.hosts, bool)
            only[taken] = True
            ok &= only
    if model.rules:
        ok &= obeying(model, placement.host_of, instance)
    return ok


def obeying(model: ClusterModel, host_of: Ints, instance: int, *, at_every_step: bool = False) -> Bools:
    """Hosts where an instance would obey the rules its model carries, [H], given who is where.

    An instance joins only hosts where it is itself not against a rule; where a rule is broken today it may move so
    that the rule gets no worse. `at_every_step`: only what continuous rules ask for.
    """
    book = rulebook(model)
    ok = np.ones(model.hosts, bool)
    if book.empty:
        return ok
    if at_every_step:
        ok &= always_allowed(model, instance)
    elif book.klass[instance] >= 0:
        ok &= book.allowed[book.klass[instance]]
    in_lonely: list[int] = []
    for relation, side in zip(*(part.tolist() for part in book.entries(instance)), strict=True):
        if at_every_step and not book.always[relation]:
            continue
        if book.kind[relation] == LONELY:
            in_lonely.append(relation)
        _relate(book, host_of, instance, relation, side, ok)
    for relation in book.lonely.tolist():
        if relation not in in_lonely and not (at_every_step and not book.always[relation]):
            ok[_hosts(host_of, book.members(relation)[0])] = False
    if book.limits:
        _limit(model, book, host_of, instance, ok, at_every_step=at_every_step)
    return ok


def _relate(book: Rulebook, host_of: Ints, instance: int, relation: int, side: int, ok: Bools) -> None:
    """Take away the hosts where a member of a relation would be against it."""
    kind = book.kind[relation]
    members, sides = book.members(relation)
    others = members != instance
    members, sides = members[others], sides[others]
    if kind == SPREAD:
        ok[_hosts(host_of, members)] = False
    elif kind == LONELY:
        strange = host_of >= 0
        strange[members] = False
        strange[instance] = False
        ok[host_of[strange]] = False
    elif kind == SPLIT:
        ok[_hosts(host_of, members[sides != side])] = False
    elif kind == GATHER:
        _together(
            _hosts(host_of, members),
            int(host_of[instance]),
            int(host_of[instance]) < 0,
            np.arange(len(ok), dtype=np.int32),
            len(ok),
            ok,
        )
    elif kind in {AMONG, SPLIT_AMONG}:
        part = book.parts[book.table[relation]]
        ok &= part >= 0
        mine = part[_hosts(host_of, members[sides == side])]
        here = int(part[host_of[instance]]) if host_of[instance] >= 0 else -1
        _together(mine[mine >= 0], here, int(host_of[instance]) < 0, part, int(part.max(initial=-1)) + 1, ok)
        if kind == SPLIT_AMONG:
            theirs = part[_hosts(host_of, members[sides != side])]
            ok &= ~np.isin(part, theirs[theirs >= 0])


def _together(others: Ints, here: int, homeless: bool, part: Ints, parts: int, ok: Bools) -> None:
    """Only parts where others are, at least as many as where it is: nobody leaves the many for the few.

    One that comes from no host joins the many.
    """
    if not len(others):
        return
    count = np.bincount(others, minlength=parts + 1)  # one more for -1
    least = int(count.max()) if homeless else max(1, int(count[here]) if here >= 0 else 0)
    ok &= (count >= least)[part]


def _limit(
    model: ClusterModel, book: Rulebook, host_of: Ints, instance: int, ok: Bools, *, at_every_step: bool
) -> None:
    """Take away the hosts of full groups of hosts, unless the instance is in the group already."""
    guests = np.bincount(host_of[host_of >= 0], minlength=model.hosts)
    source = int(host_of[instance])
    for k in range(len(book.limits)):
        rule = book.rules[book.limits[k]]
        if at_every_step and not rule.continuous:
            continue
        on = book.on(k)
        inside = source >= 0 and bool(on[source])
        if book.measure[k] == ONLINE:
            before = np.count_nonzero(guests[rule.hosts])
            after = before + 1 - int(inside and guests[source] == 1)
            if after > max(book.most[k] + ROUNDING, before):
                ok &= ~on | (guests > 0)
            continue
        if inside:
            continue
        held = on[host_of[host_of >= 0]]
        if book.measure[k] == AMOUNT:
            need = model.need[:, book.resource[k]]
            full = need[instance] > 0 and need[host_of >= 0][held].sum() + need[instance] > book.most[k] + ROUNDING
        else:
            full = np.count_nonzero(held) + 1 > book.most[k] + ROUNDING
        if full:
            ok &= ~on


def always_allowed(model: ClusterModel, instance: int) -> Bools:
    """Hosts that the continuous rules which name hosts let an instance be on, [H]."""
    ok = np.ones(model.hosts, bool)
    for members, mask in model.derived("continuous masks", _continuous_masks):
        if instance in members:
            ok &= mask
    return ok


def _continuous_masks(model: ClusterModel) -> list[tuple[frozenset[int], Bools]]:
    masks = ((rule, host_mask(model, rule)) for rule in rulebook(model).rules if rule.continuous)
    return [(frozenset(rule.members.tolist()), mask) for rule, mask in masks if mask is not None]


def _hosts(host_of: Ints, members: Ints) -> Ints:
    where = host_of[members]
    return where[where >= 0]
