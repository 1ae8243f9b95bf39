"""The most that limits of hosts can come to while a plan runs, in any order and overlap that its graph allows.

An arrival takes from what a limit has left, a departure gives back, and an arrival may count on a departure only when
it comes after it, and on each only once. If all arrivals can be covered so, by what is free at the start and by
departures, no moment exceeds the limit (Hall's theorem; found as a maximum flow).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Bools
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.proposal import Plan
from trimtab.platform.rules.book import ONLINE, Rulebook
from trimtab.platform.rules.kinds import HostLimit, ResourceCapacity

ONE = 1_000_000  # an instance or a host; amounts are in millionths


class _Take(NamedTuple):
    amount: int
    after: int  # actions that are over by then, as bits
    action: int


class _Give(NamedTuple):
    amount: int
    when: int  # actions that must be over, as bits


def overdrawn(model: ClusterModel, book: Rulebook, plan: Plan, before: Sequence[int]) -> list[tuple[int, int]]:
    """(position of the rule, action) of continuous limits that some execution exceeds, each with one of its arrivals.

    An instance under way counts at both ends. What is exceeded today may stay so, not grow. Exact for instances and
    resources; for hosts that hold instances a plan is refused, too, in which a host is opened by several arrivals that
    wait for different departures, or emptied only by several departures that different arrivals wait for.

    Args:
        model: the model.
        book: its rules.
        plan: the plan.
        before: all actions before each, as bits.
    """
    found = []
    for k, n in enumerate(book.limits):
        rule = book.rules[n]
        if not rule.continuous or not isinstance(rule, HostLimit):
            continue
        books = _hosts if book.measure[k] == ONLINE else _guests
        action = _uncovered(*books(model, rule, book.on(k), plan, before))
        if action >= 0:
            found.append((n, action))
    return found


def _guests(
    model: ClusterModel, rule: HostLimit, on: Bools, plan: Plan, before: Sequence[int]
) -> tuple[list[_Take], list[_Give], int]:
    need = np.full(model.instances, ONE, np.int64)
    if isinstance(rule, ResourceCapacity):
        need = np.rint(model.need[:, rule.resource] * ONE).astype(np.int64)
    takes, gives = [], []
    for n, action in enumerate(plan.actions):
        if action.instance < 0 or action.destination < 0 or on[action.source] == on[action.destination]:
            continue
        amount = int(need[action.instance])
        if on[action.destination]:
            takes.append(_Take(amount, before[n], n))
        else:
            gives.append(_Give(amount, 1 << n))
    held = int(need[(model.host_of >= 0) & on[model.host_of]].sum())
    return takes, gives, max(round((rule.most + ROUNDING) * ONE) - held, 0)


def _hosts(
    model: ClusterModel, rule: HostLimit, on: Bools, plan: Plan, before: Sequence[int]
) -> tuple[list[_Take], list[_Give], int]:
    came, left = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    place = model.host_of.copy()
    for n, action in enumerate(plan.actions):
        if action.instance >= 0 and action.destination not in {-1, action.source}:
            came[action.destination].append(n)
            left[action.source].append(n)
            place[action.instance] = action.destination
    held = np.bincount(model.host_of[model.host_of >= 0], minlength=model.hosts) > 0
    kept = np.bincount(place[place >= 0], minlength=model.hosts) > 0
    takes = [
        _Take(ONE, int(np.bitwise_and.reduce(np.array([before[n] for n in actions], object))), actions[0])
        for host, actions in came.items()
        if on[host] and not held[host]
    ]
    gives = [_Give(ONE, sum(1 << n for n in actions)) for host, actions in left.items() if on[host] and not kept[host]]
    return takes, gives, max(round((rule.most + ROUNDING) * ONE) - int(np.count_nonzero(held & on)) * ONE, 0)


def _uncovered(takes: Sequence[_Take], gives: Sequence[_Give], free: int) -> int:
    """An arrival that nothing covers; -1 when all are covered."""
    if sum(take.amount for take in takes) <= free:
        return -1
    reach = [sum(1 << j for j, give in enumerate(gives) if not give.when & ~take.after) for take in takes]
    spare = [give.amount for give in gives]
    drawn = [defaultdict[int, int](int) for _ in gives]
    for i, take in enumerate(takes):
        want = take.amount
        while want and (got := _augment(i, want, reach, spare, drawn)):
            want -= got
        free -= want
        if free < 0:
            return take.action
    return -1


def _augment(start: int, want: int, reach: Sequence[int], spare: list[int], drawn: list[defaultdict[int, int]]) -> int:
    """Cover one arrival more, others changing to other departures where that helps; how much was covered."""
    seen, queue = 0, [start]
    by: dict[int, int] = {}  # departure -> who came to it
    displaced: dict[int, int] = {}  # arrival -> the departure it would leave
    for taker in queue:  # grows while it is walked
        fresh = reach[taker] & ~seen
        seen |= fresh
        while fresh:
            j = (fresh & -fresh).bit_length() - 1
            fresh &= fresh - 1
            by[j] = taker
            if spare[j]:
                return _shift(start, j, min(want, spare[j]), by, displaced, spare, drawn)
            for other, amount in drawn[j].items():
                if amount and other != start and other not in displaced:
                    displaced[other] = j
                    queue.append(other)
    return 0


def _shift(
    start: int,
    last: int,
    amount: int,
    by: dict[int, int],
    displaced: dict[int, int],
    spare: list[int],
    drawn: list[defaultdict[int, int]],
) -> int:
    way = [last]
    while (taker := by[way[-1]]) != start:
        amount = min(amount, drawn[displaced[taker]][taker])
        way.append(displaced[taker])
    spare[last] -= amount
    for j in way:
        taker = by[j]
        drawn[j][taker] += amount
        if taker != start:
            drawn[displaced[taker]][taker] -= amount
    return amount
