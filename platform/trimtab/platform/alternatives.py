"""Where else an instance could be in the end: how many hosts, the best two of them, and what rules the others out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from trimtab.platform import rules
from trimtab.platform.model import RESOURCES, VCPU, ClusterModel, GroupPolicy
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING

OVERLOAD_PCT = 90.0  # CPU above which work is late (docs/scores.md)
ALIKE_PCT = 0.5  # closer than this two hosts are equally good
BEST = 2
CPU, ALLOCATED = 0, slice(1, 4)
# Why a host is out of the question, in this order: the first that holds counts.
EXCLUDED = ("state", "emptied", "zone", "group", "rule", *RESOURCES)


class Alternative(NamedTuple):
    """Another host that would do: its load with the instance, and how the chosen one compares.

    `cpu_pct` and `allocated_pct` (the scarcest resource) are after its arrival; `chosen_is` better | equal | worse.
    """

    host: int
    cpu_pct: float
    allocated_pct: float
    chosen_is: str
    text: str


class Elsewhere(NamedTuple):
    """All other hosts: how many would do, the best of them, and how many are out for which reason."""

    feasible: int
    ruled_out: Mapping[str, int]
    best: tuple[Alternative, ...]


class Field:
    """Hosts as they are when a plan is done, to be asked about one of its moves after the other.

    Args:
        model: hosts, instances, rules.
        place: who is where in the end, [V].
        cores: CPU that instances use, [V].
        opened: hosts that the plan enables, [H]; `closed`: those that it disables, turns off or empties.
        packing: whether fuller hosts are better (else cooler ones).
    """

    def __init__(
        self, model: ClusterModel, place: Ints, cores: Floats, opened: Bools, closed: Bools, *, packing: bool
    ) -> None:
        self.model, self.place, self.cores, self.packing = model, place.copy(), cores, packing
        self.used = model.used(place)
        placed = place >= 0
        self.load: Floats = np.bincount(place[placed], cores[placed], model.hosts).astype(np.float64)
        self.guests = np.bincount(place[placed], minlength=model.hosts)
        self.receives = model.up & (model.enabled | opened)
        self.closed = closed
        self._vcpus = np.maximum(model.total[:, VCPU], 1e-9)
        self._capacity = np.where(model.capacity > 0, model.capacity, np.inf)

    def elsewhere(self, instance: int, chosen: int) -> Elsewhere:
        """Other hosts for a moved instance, all else being as planned; never where it was at the start."""
        model = self.model
        source = int(model.host_of[instance])
        open_ = np.ones(model.hosts, bool)
        open_[[source, chosen]] = False
        need = model.need[instance]
        self.place[instance] = source
        counts: dict[str, int] = {}
        for reason, may in self._tests(instance, need):
            out = open_ & ~may
            if count := int(np.count_nonzero(out)):
                counts[reason] = count
                open_ &= may
        self.place[instance] = chosen
        return Elsewhere(int(np.count_nonzero(open_)), counts, self._best(instance, chosen, open_))

    def _tests(self, instance: int, need: Floats) -> list[tuple[str, Bools]]:
        model = self.model
        tests = [("state", self.receives), ("emptied", ~self.closed)]
        if (zone := int(model.pinned_zone[instance])) >= 0:
            tests.append(("zone", model.zone.codes == zone))
        if (group := int(model.group[instance])) >= 0:
            tests.append(("group", self._company(instance, group)))
        if model.rules:
            tests.append(("rule", rules.obeying(model, self.place, instance)))
        free = model.capacity - self.used + ROUNDING
        tests += [(name, free[:, r] >= need[r]) for r, name in enumerate(RESOURCES) if need[r] > 0]
        return tests

    def _company(self, instance: int, group: int) -> Bools:
        model = self.model
        start, rows = model.group_members
        peers = rows[start[group] : start[group + 1]]
        where = self.place[peers[peers != instance]]
        where = where[where >= 0]
        there = np.zeros(model.hosts, bool)
        there[where] = True
        policy = model.group_policy[group]
        if policy == GroupPolicy.ANTI_AFFINITY:
            return ~there
        return there if policy == GroupPolicy.AFFINITY and len(where) else np.ones(model.hosts, bool)

    def _best(self, instance: int, chosen: int, open_: Bools) -> tuple[Alternative, ...]:
        hosts = np.flatnonzero(open_)
        if not len(hosts):
            return ()
        need, cores = self.model.need[instance], self.cores[instance]
        cpu = (self.load[hosts] + cores) / self._vcpus[hosts] * 100
        full = ((self.used[hosts] + need) / self._capacity[hosts]).max(axis=1) * 100
        fresh = self.guests[hosts] == 0
        mine = self._figures(chosen)
        # Lowest first: overloaded hosts are worst, then (packing) those that would have to be opened.
        value = np.where(cpu > OVERLOAD_PCT, 1e6, 0.0)
        value += np.where(fresh, 1e4, 0.0) - full if self.packing else cpu
        order = np.argsort(value, kind="stable")[:BEST] if len(hosts) <= BEST else _lowest(value)
        return tuple(
            Alternative(int(hosts[n]), float(cpu[n]), float(full[n]), *self._compare(mine, (cpu[n], full[n], fresh[n])))
            for n in order.tolist()
        )

    def _figures(self, chosen: int) -> tuple[float, float, bool]:
        cpu = self.load[chosen] / self._vcpus[chosen] * 100
        return float(cpu), float((self.used[chosen] / self._capacity[chosen]).max() * 100), self.guests[chosen] == 1

    def _compare(self, mine: tuple[float, float, bool], other: tuple[float, float, bool]) -> tuple[str, str]:
        """What the chosen host is against another, each as (CPU %, allocated %, empty but for this instance)."""
        hot, hotter = mine[0] > OVERLOAD_PCT, other[0] > OVERLOAD_PCT
        if hot != hotter:
            text = f"it would run at {other[0]:.0f} % CPU, the chosen one at {mine[0]:.0f} %"
            return ("better" if hotter else "worse"), text
        if self.packing:
            if mine[2] != other[2]:
                return ("better", "it is empty") if other[2] else ("worse", "it is in use, the chosen one is empty")
            gap, what, words = mine[1] - other[1], 1, "allocated"
        else:
            gap, what, words = other[0] - mine[0], 0, "CPU"
        text = f"{words} {other[what]:.1f} % there, {mine[what]:.1f} % on the chosen one"
        if abs(gap) < ALIKE_PCT:
            return "equal", text
        return ("better", text) if gap > 0 else ("worse", f"{text}: by this figure alone it would be better")


def _lowest(value: Floats) -> Ints:
    """Positions of the `BEST` lowest, lowest first; the earlier of equals."""
    cut = np.partition(value, BEST - 1)[BEST - 1]
    found = np.flatnonzero(value <= cut)
    return found[np.argsort(value[found], kind="stable")][:BEST].astype(np.int32)
