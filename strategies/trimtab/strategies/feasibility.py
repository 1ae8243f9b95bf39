"""Where an instance may go, for compiled searches: room in every dimension, zone, server group, every extra rule.

The same rules as `trimtab.platform.rules.destinations`, written for numba; strategies add dimensions of their own, such
as measured CPU, behind the three that are allocated. One rule is stricter: a member of an affinity group leaves its
peers only for a host where at least as many will be together, so that no plan makes a group worse on its way.

Extra rules count who is where. The counts belong to the field and follow one search at a time: `used_of` begins a
search, `put` and `lift` keep the counts; who changes `host_of` in another way calls `recount`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from trimtab.platform.model import ClusterModel, GroupPolicy
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.strategies.ties import NO_TIES, Ties, begin, join, leave, obeys, ties_of

AFFINITY = int(GroupPolicy.AFFINITY)
ANTI_AFFINITY = int(GroupPolicy.ANTI_AFFINITY)


NO_RULES = np.zeros(0, bool)


class Field(NamedTuple):
    """What a search moves about in: H hosts, V instances, R dimensions, G server groups; only `ties` counts along."""

    limit: Floats  # [H, R] what each host may hold
    need: Floats  # [V, R] what each instance takes
    zone: Ints  # [H] code of the host's zone
    pinned: Ints  # [V] code of the zone an instance is bound to; -1 = any
    group: Ints  # [V] server group; -1 = none
    start: Ints  # [G + 1] members of g are members[start[g]:start[g + 1]]
    members: Ints
    policy: npt.NDArray[np.int8]  # [G]
    ruled: Bools = NO_RULES  # [1] when there are extra rules, else [0]: cheaper to ask than `ties`
    ties: Ties = NO_TIES


def field_of(model: ClusterModel, limit: Floats, need: Floats) -> Field:
    """The search field of a model with the given dimensions; copies, so that compiled code always sees one type.

    The first three dimensions of `need` are raised to what the model's rules want preserved.
    """
    start, members = model.group_members
    taken = np.array(need, np.float64, order="C")
    if model.rules:
        taken[:, : model.need.shape[1]] = np.maximum(taken[:, : model.need.shape[1]], model.need)
    field = Field(
        np.array(limit, np.float64, order="C"),
        taken,
        np.array(model.zone.codes, np.int32),
        np.array(model.pinned_zone, np.int32),
        np.array(model.group, np.int32),
        np.array(start, np.int32),
        np.array(members, np.int32),
        np.array(model.group_policy, np.int8),
        np.ones(1, bool) if model.rules else np.zeros(0, bool),
        ties_of(model),
    )
    recount(field, np.array(model.host_of, np.int32))
    return field


def used_of(field: Field, host_of: Ints) -> Floats:
    """What the placed instances take on each host, [H, R]; begins a search, see above."""
    used = np.zeros_like(field.limit)
    placed = host_of >= 0
    for r in range(field.need.shape[1]):
        used[:, r] = np.bincount(host_of[placed], field.need[placed, r], len(field.limit))
    recount(field, host_of)
    return used


@njit(cache=True)
def fits(field: Field, used: Floats, instance: int, host: int) -> bool:
    """Whether a host has room for one more instance in every dimension."""
    for r in range(field.need.shape[1]):
        if used[host, r] + field.need[instance, r] > field.limit[host, r] + ROUNDING:
            return False
    return True


@njit(cache=True)
def unbound(field: Field, instance: int) -> bool:
    """Whether `may_join` is true for every host: asked once before a loop over hosts it saves a call for each."""
    return field.ruled.size == 0 and field.pinned[instance] < 0 and field.group[instance] < 0


@njit(cache=True)
def may_join(field: Field, host_of: Ints, instance: int, host: int) -> bool:
    """Whether zone, server group and rules let an instance move from where it is to a host."""
    if field.pinned[instance] >= 0 and field.zone[host] != field.pinned[instance]:
        return False
    if field.ruled.size > 0 and not obeys(field.ties, host_of, instance, host):
        return False
    group = field.group[instance]
    if group < 0:
        return True
    policy = field.policy[group]
    if policy not in (AFFINITY, ANTI_AFFINITY):
        return True
    here, there, others = 0, 0, 0
    for k in range(field.start[group], field.start[group + 1]):
        peer = field.members[k]
        if peer == instance or host_of[peer] < 0:
            continue
        others += 1
        if host_of[peer] == host:
            there += 1
        elif host_of[peer] == host_of[instance]:
            here += 1
    if policy == ANTI_AFFINITY:
        return there == 0
    return others == 0 or (there > 0 and there >= here)


def recount(field: Field, host_of: Ints) -> None:
    """Count anew who is where; nothing to do without extra rules."""
    if field.ruled.size:
        begin(field.ties, np.array(host_of, np.int32))


@njit(cache=True)
def lift(field: Field, host_of: Ints, used: Floats, instance: int) -> None:
    """Take an instance off its host."""
    source = host_of[instance]
    if source < 0:
        return
    for r in range(field.need.shape[1]):
        used[source, r] -= field.need[instance, r]
    if field.ruled.size > 0:
        leave(field.ties, instance, source)
    host_of[instance] = -1


@njit(cache=True)
def put(field: Field, host_of: Ints, used: Floats, instance: int, host: int) -> None:
    """Move an instance to a host, wherever it is."""
    source = host_of[instance]
    for r in range(field.need.shape[1]):
        if source >= 0:
            used[source, r] -= field.need[instance, r]
        used[host, r] += field.need[instance, r]
    if field.ruled.size > 0:
        if source >= 0:
            leave(field.ties, instance, source)
        join(field.ties, instance, host)
    host_of[instance] = host
