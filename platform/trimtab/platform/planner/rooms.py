"""Exclusive room accounts: whose leaving makes room for whom, so that no host is overfull at any instant.

Every arrival reserves its room for good: first from what is free at the start, then from what departures planned
earlier set free, each unit once. An arrival waits for the departures it draws on and for nothing else; whatever
overlaps, what has started on a host is covered by what was free or has left, which is the proof.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trimtab.platform.model import RESOURCES, ClusterModel
from trimtab.platform.model.compute import Bools, Floats

if TYPE_CHECKING:
    from trimtab.platform.planner.jobs import Job

Amounts = tuple[int, int, int]  # vcpus, memory MB, disk GB, in millionths: sums and splits stay exact
R = range(len(RESOURCES))
LOOKAHEAD = 8  # departures looked at for one that covers an arrival alone, before several are put together
_MOST = 1e12
NO_CREDITS: tuple[deque[_Credit], ...] = tuple(deque() for _ in R)


def exact(values: Floats) -> npt.NDArray[np.int64]:
    """Amounts as whole millionths, so that 3 x 1.1 leaves room for exactly 3.3."""
    return np.rint(np.minimum(values, _MOST) * 1e6).astype(np.int64)


class _Credit:
    """Room that one departure sets free and nobody has reserved yet."""

    __slots__ = ("job", "left")

    def __init__(self, job: Job, left: list[int]) -> None:
        self.job = job
        self.left = left


class _Account:
    """One host: free at the start, debts, credits by resource, oldest first."""

    __slots__ = ("credits", "debt", "free", "payers")

    def __init__(self, free: list[int]) -> None:
        self.free = [max(amount, 0) for amount in free]
        self.debt = [max(-amount, 0) for amount in free]
        self.payers: list[list[Job]] = [[] for _ in R]
        # Made when the first departure comes: an empty deque takes 600 bytes, and most hosts have none.
        self.credits: tuple[deque[_Credit], ...] = NO_CREDITS


class Rooms:
    """Room of all hosts while a plan is made.

    `room` [H, 3] is what may still be reserved, `slack` [H, 3] is `room` less all arrivals not yet planned: a host
    with negative slack is short, some departure from it must be planned before all its arrivals can be. `spare` [H, 3]
    is what was free at the start and no arrival has reserved for sure: free whatever is carried out by then.
    """

    def __init__(self, model: ClusterModel) -> None:
        demand = exact(model.need)
        used = np.zeros((model.hosts, len(RESOURCES)), np.int64)
        placed = model.host_of >= 0
        np.add.at(used, model.host_of[placed], demand[placed])
        self.demand = demand
        self.room = exact(model.capacity) - used
        self.slack = self.room.copy()
        self.spare = np.maximum(self.room, 0)
        self._start = self.room.copy()
        self._accounts: dict[int, _Account] = {}

    def fits(self, host: int, need: Amounts) -> bool:
        """Whether the host has unreserved room; a resource that is not asked for may be overdrawn."""
        vcpus, memory, disk = self.room[host].tolist()
        return (
            (not need[0] or vcpus >= need[0])
            and (not need[1] or memory >= need[1])
            and (not need[2] or disk >= need[2])
        )

    def short(self, host: int) -> bool:
        """Whether arrivals still to be planned need departures still to be planned."""
        slack = self.slack[host]
        return bool(slack[0] < 0 or slack[1] < 0 or slack[2] < 0)

    def threatened(self, by: Amounts) -> Bools:
        """Hosts where so much more than what is reserved or announced may not be free at all times, [H]."""
        left = self.spare - (self.room - self.slack)
        asked = np.array(by) > 0
        found: Bools = (left[:, asked] < np.array(by)[asked]).any(axis=1)
        return found

    def announce(self, host: int, need: Amounts) -> None:
        """An arrival will have to be planned."""
        self.slack[host] -= need

    def forget(self, host: int, need: Amounts) -> None:
        """An announced arrival will not be planned."""
        self.slack[host] += need

    def leave(self, host: int, need: Amounts, job: Job) -> None:
        """A departure is planned: it pays the host's debts first, the rest may be reserved."""
        self.room[host] += need
        self.slack[host] += need
        account, left = self._account(host), list(need)
        for r in R:
            if account.debt[r] and left[r]:
                paid = min(account.debt[r], left[r])
                account.debt[r] -= paid
                left[r] -= paid
                account.payers[r].append(job)
        credit = _Credit(job, left)
        if account.credits is NO_CREDITS:
            account.credits = tuple(deque() for _ in R)
        for r in R:
            if left[r]:
                account.credits[r].append(credit)

    def arrive(self, host: int, need: Amounts, *, unsure: bool = False) -> list[Job]:
        """An announced arrival is planned: reserve its room; returns the departures it draws on.

        A host that was overfull at the start takes nobody in before its debt is paid, hence the payers. `unsure`: it
        may turn out to arrive elsewhere.
        """
        self.room[host] -= need
        account, rest = self._account(host), list(need)
        drawn: dict[Job, None] = {}
        for r in R:
            if need[r]:
                drawn.update(dict.fromkeys(account.payers[r]))
                taken = min(account.free[r], need[r])
                account.free[r] -= taken
                self.spare[host, r] -= 0 if unsure else taken
                rest[r] -= taken
        if any(rest):
            alone = self._covering(account, rest)
            if alone is not None:
                for r in R:
                    alone.left[r] -= rest[r]
                drawn[alone.job] = None
            else:
                for r in R:
                    _draw(account.credits[r], r, rest[r], drawn)
        return list(drawn)

    @staticmethod
    def _covering(account: _Account, rest: list[int]) -> _Credit | None:
        scarce = next(r for r in R if rest[r])
        credits_ = account.credits[scarce]
        while credits_ and not credits_[0].left[scarce]:
            credits_.popleft()
        for credit in islice(credits_, LOOKAHEAD):
            if all(credit.left[r] >= rest[r] for r in R):
                return credit
        return None

    def _account(self, host: int) -> _Account:
        account = self._accounts.get(host)
        if account is None:
            account = self._accounts[host] = _Account(self._start[host].tolist())
        return account


def _draw(credits_: deque[_Credit], r: int, rest: int, drawn: dict[Job, None]) -> None:
    while rest:
        credit = credits_[0]
        taken = min(credit.left[r], rest)
        if taken:
            credit.left[r] -= taken
            rest -= taken
            drawn[credit.job] = None
        if not credit.left[r]:
            credits_.popleft()
