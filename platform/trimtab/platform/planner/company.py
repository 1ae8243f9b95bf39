"""Continuous rules about who is with whom, for planning: who must have left first, who cannot go, where to wait."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Bools
from trimtab.platform.rules import Ban, Fence, Root, binding_rule, rulebook
from trimtab.platform.rules.book import AMONG, GATHER, LONELY, SPLIT, SPLIT_AMONG, SPREAD, Rulebook, host_mask
from trimtab.platform.rules.reach import always_allowed
from trimtab.platform.rules.replay import apart

if TYPE_CHECKING:
    from trimtab.platform.planner.jobs import Job


def pairs(model: ClusterModel, jobs: Sequence[Job]) -> Iterable[tuple[Job, Job]]:
    """(early, late): the late move must not arrive before the early one has left, or a rule is broken between."""
    book = rulebook(model)
    if not book.always.any():
        return
    leaving: dict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        if job.act is None:
            leaving[job.source].append(job)
    bound = np.isin(book.kind, (SPREAD, LONELY, SPLIT)) & book.always
    lonely = bool((bound & (book.kind == LONELY)).any())
    for job in jobs:
        if job.act is not None or job.destination < 0:
            continue
        if lonely or bound[book.entries(job.instance)[0]].any():
            for early in leaving.get(job.destination, ()):
                if early is not job and apart(book, early.instance, job.instance):
                    yield early, job
    yield from _into_parts(book, jobs)


def _into_parts(book: Rulebook, jobs: Sequence[Job]) -> Iterable[tuple[Job, Job]]:
    """A group comes into a part when the other groups of its rule have left it."""
    for relation in np.flatnonzero(book.always & (book.kind == SPLIT_AMONG)).tolist():
        part = book.parts[book.table[relation]]
        members, sides = book.members(relation)
        side = dict(zip(members.tolist(), sides.tolist(), strict=True))
        movers = [job for job in jobs if job.act is None and job.instance in side]
        for late in movers:
            for early in movers:
                apart_ = side[early.instance] != side[late.instance] and late.destination >= 0
                if apart_ and part[early.source] == part[late.destination] >= 0:
                    yield early, late


def hindered(model: ClusterModel, jobs: Sequence[Job]) -> dict[int, str]:
    """Numbers of moves that no order can do without breaking a continuous rule, and the rule's name.

    Of a gather, among or split_among rule those who leave the host or part where most of theirs are: on the way the
    others would be alone. Of a root rule everybody, of a fence or ban those who leave where they may be for where they
    may not. Of rules about who shares a host those who would come to somebody that stays; of several who come to one
    host, the first may.
    """
    book = rulebook(model)
    found: dict[int, str] = {}
    if book.empty:
        return found
    move_of = {job.instance: job for job in jobs if job.act is None}
    moving = np.zeros(model.instances, bool)
    moving[list(move_of)] = True
    for rule in book.rules:
        if not isinstance(rule, Root) and not (isinstance(rule, Fence | Ban) and rule.continuous):
            continue
        movers = [move_of[v] for v in rule.members[moving[rule.members]].tolist()]
        mask = host_mask(model, rule) if movers else None
        for mover in movers:
            if mask is None or (mover.destination >= 0 and mask[mover.source] and not mask[mover.destination]):
                found[mover.number] = rule.label
    for relation in np.flatnonzero(book.always & np.isin(book.kind, (GATHER, AMONG, SPLIT_AMONG))).tolist():
        members, sides = book.members(relation)
        if not any(v in move_of for v in members.tolist()):
            continue
        table = book.table[relation]
        part = book.parts[table] if table >= 0 else np.arange(model.hosts, dtype=np.int32)
        for side in np.unique(sides).tolist():
            group = members[sides == side]
            group = group[model.host_of[group] >= 0]
            at = part[model.host_of[group]]
            inside = at[at >= 0]
            if len(group) < 2 or not len(inside):
                continue
            values, count = np.unique(inside, return_counts=True)
            # Of equally full parts the one that most are on their way to.
            coming = [sum(_target(move_of.get(v), part) == value for v in group.tolist()) for value in values]
            home = int(values[np.lexsort((-np.array(coming), -count))[0]])
            for v, where in zip(group.tolist(), at.tolist(), strict=True):
                job = move_of.get(v)
                if job is not None and where == home and job.destination >= 0 and part[job.destination] != home:
                    found[job.number] = book.rule(relation).label
    return found | _met(model, book, [job for job in jobs if job.act is None and job.number not in found])


def _met(model: ClusterModel, book: Rulebook, moves: Sequence[Job]) -> dict[int, str]:
    """Numbers of moves to a host where there will be somebody whom a continuous rule keeps them apart from."""
    bound = np.isin(book.kind, (SPREAD, LONELY, SPLIT)) & book.always
    lonely = bool((bound & (book.kind == LONELY)).any())
    bound_moves = [
        job for job in moves if job.destination >= 0 and (lonely or bound[book.entries(job.instance)[0]].any())
    ]
    found: dict[int, str] = {}
    if not bound_moves:
        return found
    final = model.host_of.copy()
    final[[job.instance for job in moves]] = [job.destination for job in moves]
    order = np.argsort(final, kind="stable")
    start = np.searchsorted(final[order], np.arange(model.hosts + 1))
    coming = {job.instance: job for job in moves}
    for job in bound_moves:
        there = order[start[job.destination] : start[job.destination + 1]].tolist()
        for other in there:
            late = coming.get(other)
            if other == job.instance or (late is not None and (late.number > job.number or late.number in found)):
                continue
            if against := apart(book, other, job.instance):
                found[job.number] = book.rule(against[0]).label
                break
    return found


def chanced(model: ClusterModel, jobs: Sequence[Job]) -> list[tuple[int, str]]:
    """Instances that must not go where the cloud's scheduler likes, and why."""
    left = [job.instance for job in jobs if job.act is None and job.destination < 0]
    bound = [(instance, rule) for instance in left if (rule := binding_rule(model, instance)) is not None]
    return [(instance, f"the cloud's own choice does not know rule {rule.label}") for instance, rule in bound]


def resting(model: ClusterModel, job: Job, move_of: dict[int, Job], hosts: Bools) -> Bools:
    """Of some hosts those where a stay in between breaks no continuous rule, whatever else has happened by then."""
    book = rulebook(model)
    if book.empty:
        return hosts
    hosts = hosts & always_allowed(model, job.instance)
    mine = set()
    for relation, side in zip(*(part.tolist() for part in book.entries(job.instance)), strict=True):
        mine.add(relation)
        if not book.always[relation]:
            continue
        kind = book.kind[relation]
        members, sides = book.members(relation)
        if kind == LONELY:
            strange = np.ones(model.instances, bool)
            strange[members] = False
            hosts = hosts & ~_touched(model, np.flatnonzero(strange).tolist(), move_of)
        elif kind in {SPREAD, SPLIT}:
            others = members[(members != job.instance) & ((kind == SPREAD) | (sides != side))]
            hosts = hosts & ~_touched(model, others.tolist(), move_of)
        else:
            table = book.table[relation]
            part = book.parts[table] if table >= 0 else np.arange(model.hosts, dtype=np.int32)
            same = part[job.source] == part[job.destination]
            hosts = hosts & (part == part[job.source]) & same
    for relation in book.lonely.tolist():
        if relation not in mine and book.always[relation]:
            hosts = hosts & ~_touched(model, book.members(relation)[0].tolist(), move_of)
    return hosts


def between(model: ClusterModel, early: Job, late: Job) -> str:
    """The rule that lets one move arrive only after the other has left; "" when it is none of the rulebook's."""
    book = rulebook(model)
    if book.empty:
        return ""
    found = apart(book, early.instance, late.instance)
    if not found:
        both = set(book.entries(early.instance)[0].tolist()) & set(book.entries(late.instance)[0].tolist())
        found = [relation for relation in sorted(both) if book.kind[relation] == SPLIT_AMONG]
    return book.rule(found[0]).label if found else ""


def _target(job: Job | None, part: np.ndarray) -> int:
    return int(part[job.destination]) if job is not None and job.destination >= 0 else -1


def _touched(model: ClusterModel, instances: Sequence[int], move_of: dict[int, Job]) -> Bools:
    """Hosts where some instances are, come or stay in between, [H]."""
    mask = np.zeros(model.hosts + 1, bool)  # one more for -1
    mask[model.host_of[instances]] = True
    for job in (move_of[v] for v in instances if v in move_of):
        mask[[job.destination, job.came_by]] = True
    return mask[:-1]
