"""The rules of the field as data: who is bound, to which hosts, at the end only or at every step.

The catalogue is BtrPlace's (Hermenier, Lawall, Muller, "BtrPlace: A Flexible Consolidation Manager for Highly Available
Applications", IEEE TDSC 2013). Rules hold rows of one model; `docs/rules.md` defines each in one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from trimtab.platform.errors import RulesError
from trimtab.platform.model import RESOURCES, ClusterModel
from trimtab.platform.model.compute import Bools, Floats, Ints

NOBODY: Ints = np.empty(0, np.int32)


class Disjoint(tuple[Ints, ...]):
    """Groups of rows that are known to be distinct, ascending and disjoint; rules may share one."""

    __slots__ = ()


def rows(values: Any) -> Ints:
    """Distinct rows, ascending."""
    return np.unique(np.asarray(values, np.int32))


@dataclass(frozen=True, eq=False, kw_only=True)
class Rule:
    """What all rules have in common. `continuous`: holds at every step of a plan, not only at its end.

    `beyond`: the model is a part of another one, and some of whom or what the rule is about are outside.
    """

    kind: ClassVar[str]

    name: str = ""
    continuous: bool = True
    members: Ints = field(default_factory=lambda: NOBODY)
    hosts: Ints = field(default_factory=lambda: NOBODY)
    beyond: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", rows(self.members))
        object.__setattr__(self, "hosts", rows(self.hosts))

    @property
    def label(self) -> str:
        """What people call it: its name and its kind."""
        return f"{self.name} ({self.kind})" if self.name else self.kind

    def stays(self) -> Ints:
        """Instances that must not be moved at all."""
        return NOBODY

    def raises(self, need: Floats) -> None:
        """Raise what instances need, [V, 3], where the rule says so."""

    def within(self, model: ClusterModel, hosts: Ints, instances: Ints) -> Rule | None:  # noqa: ARG002
        """The rule in a part of the model, given the new row of every old host and instance (-1: gone).

        None when nobody it binds is left. What the hosts outside hold goes on counting against limits.
        """
        members = _kept(self.members, instances)
        return replace(self, members=members, hosts=_kept(self.hosts, hosts)) if len(members) else None


class Spread(Rule):
    """No two members share a host (anti-affinity)."""

    kind = "spread"


class Gather(Rule):
    """All members are on one host (affinity)."""

    kind = "gather"


class Fence(Rule):
    """Members are on `hosts` only."""

    kind = "fence"


class Ban(Rule):
    """Members are on none of `hosts`."""

    kind = "ban"


class Root(Rule):
    """Members stay where they are."""

    kind = "root"

    def stays(self) -> Ints:
        """All members."""
        return self.members


class Lonely(Rule):
    """Members share their hosts with nobody but members."""

    kind = "lonely"

    def within(self, model: ClusterModel, hosts: Ints, instances: Ints) -> Rule | None:  # noqa: ARG002
        """See `Rule`; members outside still keep others away from their hosts."""
        members = _kept(self.members, instances)
        beyond = self.beyond or len(members) < len(self.members)
        return replace(self, members=members, hosts=_kept(self.hosts, hosts), beyond=beyond)


@dataclass(frozen=True, eq=False, kw_only=True)
class Among(Rule):
    """All members are inside one of the host groups, which are disjoint."""

    kind = "among"

    host_groups: Sequence[Ints] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _disjoint(self, "host_groups", "host")

    def within(self, model: ClusterModel, hosts: Ints, instances: Ints) -> Rule | None:
        """Groups keep their numbers, so that members outside still tell which one is taken."""
        members = _kept(self.members, instances)
        groups = tuple(_kept(group, hosts) for group in self.host_groups)
        outside = self.members[(instances[self.members] < 0) & (model.host_of[self.members] >= 0)]
        taken = [n for n, group in enumerate(self.host_groups) if np.isin(model.host_of[outside], group).any()]
        if len(taken) == 1:  # those outside cannot follow: the others stay with them
            groups = tuple(group if n == taken[0] else NOBODY for n, group in enumerate(groups))
        return replace(self, members=members, host_groups=groups) if len(members) else None


@dataclass(frozen=True, eq=False, kw_only=True)
class Split(Rule):
    """Instances of different groups share no host; no instance is in two groups."""

    kind = "split"

    groups: Sequence[Ints] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _disjoint(self, "groups", "instance")
        object.__setattr__(self, "members", rows(np.concatenate([NOBODY, *self.groups])))

    def within(self, model: ClusterModel, hosts: Ints, instances: Ints) -> Rule | None:  # noqa: ARG002
        """Members outside are on hosts outside and meet nobody."""
        groups = tuple(_kept(group, instances) for group in self.groups)
        return replace(self, groups=groups) if any(len(group) for group in groups) else None


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitAmong(Split):
    """Every group of instances is inside one of the host groups, and no two of them inside the same."""

    kind = "split_among"

    host_groups: Sequence[Ints] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _disjoint(self, "host_groups", "host")

    def within(self, model: ClusterModel, hosts: Ints, instances: Ints) -> Rule | None:
        """Host groups that hold members outside are theirs alone, unless their own group goes on inside."""
        if not (instances[self.members] >= 0).any():
            return None
        part = np.full(model.hosts, -1)
        for number, group in enumerate(self.host_groups):
            part[group] = number
        owner: dict[int, set[int]] = {}
        for number, group in enumerate(self.groups):
            away = group[(instances[group] < 0) & (model.host_of[group] >= 0)]
            for there in np.unique(part[model.host_of[away]]).tolist():
                owner.setdefault(there, set()).add(number)
        inside = {n for n, group in enumerate(self.groups) if (instances[group] >= 0).any()}
        left = tuple(
            _kept(group, hosts) if owner.get(n, set()) <= inside else NOBODY for n, group in enumerate(self.host_groups)
        )
        return replace(self, groups=tuple(_kept(group, instances) for group in self.groups), host_groups=left)


@dataclass(frozen=True, eq=False, kw_only=True)
class HostLimit(Rule):
    """At most `most` of something on `hosts` together."""

    kind = "host_limit"

    most: float = 0.0

    def load(self, model: ClusterModel, host_of: Ints) -> float:
        """How much there is on the hosts in a placement."""
        raise NotImplementedError

    def within(self, model: ClusterModel, hosts: Ints, instances: Ints) -> Rule | None:  # noqa: ARG002
        """The limit less what the hosts outside hold."""
        outside = replace(self, hosts=self.hosts[hosts[self.hosts] < 0])
        kept = _kept(self.hosts, hosts)
        left = self.most - outside.load(model, model.host_of)
        beyond = self.beyond or len(kept) < len(self.hosts)
        # Without hosts there is nothing inside to limit, but the cloud may still choose a host outside.
        return replace(self, hosts=kept, most=left if len(kept) else max(left, 0.0), beyond=beyond)

    def _inside(self, model: ClusterModel, host_of: Ints) -> Bools:
        mask = np.zeros(model.hosts + 1, bool)  # one more for -1
        mask[self.hosts] = True
        return mask[host_of]


class MaxOnline(HostLimit):
    """At most `most` of `hosts` hold instances."""

    kind = "max_online"

    def load(self, model: ClusterModel, host_of: Ints) -> float:
        """Hosts that hold instances."""
        return float(len(np.unique(host_of[self._inside(model, host_of)])))


class RunningCapacity(HostLimit):
    """At most `most` instances on `hosts` together."""

    kind = "running_capacity"

    def load(self, model: ClusterModel, host_of: Ints) -> float:
        """Instances on the hosts."""
        return float(np.count_nonzero(self._inside(model, host_of)))


@dataclass(frozen=True, eq=False, kw_only=True)
class ResourceCapacity(HostLimit):
    """The instances on `hosts` together need at most `most` of a resource (vcpus, memory MB, disk GB)."""

    kind = "resource_capacity"

    resource: int = 0

    def load(self, model: ClusterModel, host_of: Ints) -> float:
        """What the instances on the hosts need."""
        return float(model.need[self._inside(model, host_of), self.resource].sum())


@dataclass(frozen=True, eq=False, kw_only=True)
class Preserve(Rule):
    """Every member can have at least `least` of a resource: it counts with so much wherever it is."""

    kind = "preserve"

    resource: int = 0
    least: float = 0.0

    def raises(self, need: Floats) -> None:
        """At least so much for every member."""
        need[self.members, self.resource] = np.maximum(need[self.members, self.resource], self.least)

    def within(self, model: ClusterModel, hosts: Ints, instances: Ints) -> Rule | None:
        """See `Rule`; members outside still want room on their hosts, where they do not have it anyway."""
        members = _kept(self.members, instances)
        gone = self.members[instances[self.members] < 0]
        beyond = self.beyond or bool((model.demand[gone, self.resource] < self.least).any())
        return replace(self, members=members, hosts=_kept(self.hosts, hosts), beyond=beyond)


KINDS: Mapping[str, type[Rule]] = {
    one.kind: one
    for one in (
        Spread, Gather, Fence, Ban, Root, Lonely, Among, Split, SplitAmong, MaxOnline, ResourceCapacity,
        RunningCapacity, Preserve,
    )
}  # fmt: skip


def resource_row(name: str) -> int:
    """Column of a resource.

    Raises:
        RulesError: there is no such resource.
    """
    if name not in RESOURCES:
        raise RulesError(f"there is no resource {name!r}: use {', '.join(RESOURCES)}")
    return RESOURCES.index(name)


def _kept(old: Ints, position: Ints) -> Ints:
    new = position[old]
    return new[new >= 0]


def _disjoint(rule: Rule, attribute: str, what: str) -> None:
    if isinstance(getattr(rule, attribute), Disjoint):
        return
    groups = Disjoint(rows(group) for group in getattr(rule, attribute))
    object.__setattr__(rule, attribute, groups)
    together = np.concatenate([NOBODY, *groups])
    found, count = np.unique(together, return_counts=True)
    if (count > 1).any():
        raise RulesError(
            f"rule {rule.label}: {what} row {found[count > 1][0]} is in two of its {attribute}; make them disjoint"
        )
