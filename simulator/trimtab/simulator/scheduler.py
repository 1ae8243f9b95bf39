"""Which host an instance is put on: filters and weighers of Nova's FilterScheduler, all hosts at once.

Filters: ComputeFilter (the caller's `candidates`), AvailabilityZoneFilter, the capacity check of Placement, and
ServerGroup(Anti)AffinityFilter. Weighers: nova/scheduler/weights/{ram,cpu,disk,affinity}.py, normalised and summed as
in nova/weights.py. Of equal hosts the first wins, as with Nova's defaults (host_subset_size 1, no shuffling).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import DISK, MEMORY, VCPU, ClusterModel, GroupPolicy, Placement
from trimtab.platform.model.compute import Bools, Floats
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.rules import destinations


class Weights(NamedTuple):
    """Multipliers, as `[filter_scheduler] *_weight_multiplier` of nova.conf; negative ones stack instead of spread."""

    ram: float = 1.0
    cpu: float = 1.0
    disk: float = 1.0
    soft_affinity: float = 1.0
    soft_anti_affinity: float = 1.0


DEFAULT = Weights()


def choose_host(place: Placement, instance: int, candidates: Bools, weights: Weights = DEFAULT) -> int:
    """Row of the host that an instance goes to, never the one where it is; -1 when no host is valid.

    Args:
        place: who is where, and what is taken.
        instance: row of the instance.
        candidates: hosts that are up and enabled, [H]; narrow them with `in_aggregate` and `with_traits`.
        weights: multipliers of the weighers.
    """
    rows = np.flatnonzero(valid_hosts(place, instance, candidates))
    if not len(rows):
        return -1
    return int(rows[np.argmax(weigh(place, instance, rows, weights))])


def valid_hosts(place: Placement, instance: int, candidates: Bools) -> Bools:
    """Hosts that pass all filters, [H].

    Placement refuses, besides what does not fit, what is larger than the whole host (`max_unit` is the physical total,
    whatever the allocation ratio).
    """
    model = place.model
    fits_at_all = (model.demand[instance] <= model.total + ROUNDING).all(axis=1)
    return np.asarray(destinations(place, instance, candidates) & fits_at_all)


def weigh(place: Placement, instance: int, rows: np.ndarray, weights: Weights = DEFAULT) -> Floats:
    """Sum of the weighers for some hosts, [len(rows)]; the largest wins. Normalised among these hosts only."""
    model, used = place.model, place.used
    total, reserved = model.total[rows], model.reserved[rows]
    free = total - reserved - used[:, rows].T
    cpu = total[:, VCPU] * model.ratio[rows, VCPU] - reserved[:, VCPU] - used[VCPU, rows]
    weight = (
        weights.ram * _from_zero(free[:, MEMORY])
        + weights.cpu * _from_zero(cpu)
        + weights.disk * _from_zero(free[:, DISK])
    )
    group = int(model.group[instance])
    if group >= 0 and model.group_policy[group] in {GroupPolicy.SOFT_AFFINITY, GroupPolicy.SOFT_ANTI_AFFINITY}:
        start, members = model.group_members
        peers = members[start[group] : start[group + 1]]
        at = place.host_of[peers[peers != instance]]
        there = np.bincount(at[at >= 0], minlength=model.hosts)[rows].astype(np.float64)
        if model.group_policy[group] == GroupPolicy.SOFT_AFFINITY:
            weight += weights.soft_affinity * _min_max(there)
        else:
            weight += weights.soft_anti_affinity * _min_max(-there)
    return np.asarray(weight)


def in_aggregate(model: ClusterModel, name: str) -> Bools:
    """Hosts of an aggregate, [H].

    Raises:
        InvalidInput: the model knows no such aggregate.
    """
    if name not in model.aggregate_names:
        raise InvalidInput(
            f"no host is in an aggregate {name!r}: there are {', '.join(model.aggregate_names) or 'none'}"
        )
    return np.asarray(model.aggregates[:, model.aggregate_names.index(name)])


def with_traits(model: ClusterModel, required: Sequence[str] = (), forbidden: Sequence[str] = ()) -> Bools:
    """Hosts that have all required traits and none of the forbidden, [H]; a trait that no host has is had by none."""
    ok = np.ones(model.hosts, bool)
    for names, wanted in ((required, True), (forbidden, False)):
        for name in names:
            has = (
                model.traits[:, model.trait_names.index(name)]
                if name in model.trait_names
                else np.zeros(model.hosts, bool)
            )
            ok &= has == wanted
    return ok


def _from_zero(values: Floats) -> Floats:
    """Nova's normalisation with `minval` 0: what is below counts as 0, the largest as 1."""
    values = np.maximum(values, 0.0)
    most = values.max()
    return values / most if most > 0 else values


def _min_max(values: Floats) -> Floats:
    """Nova's normalisation from the smallest (0) to the largest (1); all 0 where they are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
