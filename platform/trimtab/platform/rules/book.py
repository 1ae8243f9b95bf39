"""Rules of one model compiled into flat arrays: allowed-host classes, memberships, limits of groups of hosts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.rules.kinds import (
    Among,
    Ban,
    Fence,
    Gather,
    HostLimit,
    Lonely,
    MaxOnline,
    ResourceCapacity,
    Rule,
    Split,
    SplitAmong,
    Spread,
)

SPREAD, GATHER, LONELY, AMONG, SPLIT, SPLIT_AMONG = range(6)
RELATIONS: dict[type[Rule], int] = {
    Spread: SPREAD,
    Gather: GATHER,
    Lonely: LONELY,
    Among: AMONG,
    Split: SPLIT,
    SplitAmong: SPLIT_AMONG,
}
ONLINE, RUNNING, AMOUNT = range(3)


@dataclass(frozen=True, eq=False)
class Rulebook:
    """All extra rules of a model, H hosts, V instances; zones, server groups and capacity are the model's own columns.

    An entry is one membership (instance in relation); entries of an instance are `of_start[v]:of_start[v + 1]`,
    of a relation `in_start[n]:in_start[n + 1]`.
    """

    rules: tuple[Rule, ...]
    klass: Ints  # [V] class of allowed hosts; -1 = all
    allowed: Bools  # [C, H]
    relations: tuple[int, ...]  # N positions in `rules`
    kind: npt.NDArray[np.int8]  # [N] SPREAD .. SPLIT_AMONG
    always: Bools  # [N] continuous
    table: Ints  # [N] row of `parts`; -1 = none
    parts: Ints  # [P, H] host group a host is in; -1 = none
    of_start: Ints  # [V + 1]
    of_relation: Ints
    of_side: Ints  # group of the member (split, split_among), else 0
    in_start: Ints  # [N + 1]
    in_member: Ints
    in_side: Ints
    limits: tuple[int, ...]  # K positions in `rules`
    measure: npt.NDArray[np.int8]  # [K] ONLINE, RUNNING, AMOUNT
    resource: Ints  # [K]
    most: Floats  # [K]
    at_start: Ints  # [H + 1] limits of host h: at_limit[at_start[h]:at_start[h + 1]]
    at_limit: Ints
    lonely: Ints  # relations of kind LONELY

    @property
    def empty(self) -> bool:
        """Whether there is nothing to obey beside the model's own columns."""
        return not self.rules

    def entries(self, instance: int) -> tuple[Ints, Ints]:
        """Relations an instance is in, and on which side."""
        part = slice(self.of_start[instance], self.of_start[instance + 1])
        return self.of_relation[part], self.of_side[part]

    def members(self, relation: int) -> tuple[Ints, Ints]:
        """Members of a relation, and on which side."""
        part = slice(self.in_start[relation], self.in_start[relation + 1])
        return self.in_member[part], self.in_side[part]

    def rule(self, relation: int) -> Rule:
        """The rule behind a relation."""
        return self.rules[self.relations[relation]]

    def on(self, limit: int) -> Bools:
        """Hosts of a limit, [H]."""
        rule = self.rules[self.limits[limit]]
        mask = np.zeros(len(self.at_start) - 1, bool)
        mask[rule.hosts] = True
        return mask


def rulebook(model: ClusterModel) -> Rulebook:
    """The rules a model carries, compiled; made once per model."""
    return model.derived("rulebook", _compile)


def with_rules(model: ClusterModel, rules: Iterable[Rule]) -> ClusterModel:
    """The model with more rules to obey."""
    more = tuple(rules)
    return model.with_changes(rules=(*model.rules, *more)) if more else model


def _compile(model: ClusterModel) -> Rulebook:
    rules: tuple[Rule, ...] = tuple(rule for rule in model.rules if isinstance(rule, Rule))
    klass, allowed = _classes(model, rules)
    related = [(n, rule) for n, rule in enumerate(rules) if type(rule) in RELATIONS]
    table, parts = _parts(model, [rule for _, rule in related])
    sides = [rule.groups if isinstance(rule, Split) else (rule.members,) for _, rule in related]
    member = _joined([group for groups in sides for group in groups])
    side = np.repeat(
        np.array([s for groups in sides for s in range(len(groups))], np.int32),
        [len(group) for groups in sides for group in groups],
    )
    sizes = np.array([sum(len(group) for group in groups) for groups in sides], np.int64)
    relation = np.repeat(np.arange(len(related), dtype=np.int32), sizes)
    order = np.argsort(member, kind="stable")
    bounds = [(n, rule) for n, rule in enumerate(rules) if isinstance(rule, HostLimit)]
    at_host = _joined([rule.hosts for _, rule in bounds])
    at_limit = np.repeat(np.arange(len(bounds), dtype=np.int32), [len(rule.hosts) for _, rule in bounds])
    by_host = np.argsort(at_host, kind="stable")
    kind = np.array([RELATIONS[type(rule)] for _, rule in related], np.int8)
    return Rulebook(
        rules=rules,
        klass=klass,
        allowed=allowed,
        relations=tuple(n for n, _ in related),
        kind=kind,
        always=np.array([rule.continuous for _, rule in related], bool),
        table=table,
        parts=parts,
        of_start=_starts(np.bincount(member, minlength=model.instances)),
        of_relation=relation[order],
        of_side=side[order],
        in_start=_starts(sizes),
        in_member=member,
        in_side=side,
        limits=tuple(n for n, _ in bounds),
        measure=np.array([_measure(rule) for _, rule in bounds], np.int8),
        resource=np.array([rule.resource if isinstance(rule, ResourceCapacity) else 0 for _, rule in bounds], np.int32),
        most=np.array([rule.most for _, rule in bounds], np.float64),
        at_start=_starts(np.bincount(at_host, minlength=model.hosts)),
        at_limit=at_limit[by_host],
        lonely=np.flatnonzero(kind == LONELY).astype(np.int32),
    )


def _measure(rule: HostLimit) -> int:
    if isinstance(rule, ResourceCapacity):
        return AMOUNT
    return ONLINE if isinstance(rule, MaxOnline) else RUNNING


def host_mask(model: ClusterModel, rule: Rule) -> Bools | None:
    """Hosts a rule lets its members be on, [H]; None when it does not name any."""
    if isinstance(rule, Fence | Ban):
        mask = np.full(model.hosts, isinstance(rule, Ban))
        mask[rule.hosts] = isinstance(rule, Fence)
        return mask
    if isinstance(rule, Among | SplitAmong):
        mask = np.zeros(model.hosts, bool)
        mask[_joined(rule.host_groups)] = True
        return mask
    return None


def _classes(model: ClusterModel, rules: Iterable[Rule]) -> tuple[Ints, Bools]:
    """Class of every instance and allowed hosts of every class; instances with the same masks share a class."""
    klass = np.full(model.instances, -1, np.int32)
    masks: list[Bools] = []
    known: dict[bytes, int] = {}
    met: dict[tuple[int, int], int] = {}
    shared: dict[int, int] = {}  # rules made of one tuple of host groups
    for rule in rules:
        groups = id(rule.host_groups) if isinstance(rule, Among | SplitAmong) else 0
        if groups not in shared:
            mask = host_mask(model, rule)
            if mask is None:
                continue
            shared[groups] = _number(mask, masks, known)
        number = shared[groups] if groups else shared.pop(0)
        if len(rule.members) <= 64:  # most rules: cheaper than asking for distinct classes
            for v in rule.members.tolist():
                klass[v] = _both(int(klass[v]), number, masks, known, met)
            continue
        old, of = np.unique(klass[rule.members], return_inverse=True)
        new = [_both(int(one), number, masks, known, met) for one in old]
        klass[rule.members] = np.array(new, np.int32)[of]
    allowed = np.stack(masks) if masks else np.empty((0, model.hosts), bool)
    return klass, allowed


def _number(mask: Bools, masks: list[Bools], known: dict[bytes, int]) -> int:
    key = np.packbits(mask).tobytes()
    if key not in known:
        known[key] = len(masks)
        masks.append(mask)
    return known[key]


def _both(a: int, b: int, masks: list[Bools], known: dict[bytes, int], met: dict[tuple[int, int], int]) -> int:
    if a < 0:
        return b
    if (a, b) not in met:
        met[a, b] = _number(masks[a] & masks[b], masks, known)
    return met[a, b]


def _parts(model: ClusterModel, related: list[Rule]) -> tuple[Ints, Ints]:
    """Row of the host groups of every relation, and the group of every host, each partition kept once."""
    table = np.full(len(related), -1, np.int32)
    parts: list[Ints] = []
    known: dict[bytes, int] = {}
    shared: dict[int, int] = {}  # rules made of one tuple of host groups
    for n, rule in enumerate(related):
        if not isinstance(rule, Among | SplitAmong):
            continue
        if id(rule.host_groups) in shared:
            table[n] = shared[id(rule.host_groups)]
            continue
        part = np.full(model.hosts, -1, np.int32)
        for number, group in enumerate(rule.host_groups):
            part[group] = number
        key = part.tobytes()
        if key not in known:
            known[key] = len(parts)
            parts.append(part)
        table[n] = shared[id(rule.host_groups)] = known[key]
    return table, np.stack(parts) if parts else np.empty((0, model.hosts), np.int32)


def _joined(arrays: Iterable[Ints]) -> Ints:
    return np.concatenate([np.empty(0, np.int32), *arrays]).astype(np.int32)


def _starts(counts: npt.NDArray[Any]) -> Ints:
    start = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=start[1:])
    return start
