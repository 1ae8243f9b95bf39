"""Exclusive accounts of groups of hosts under a continuous limit: whose leaving lets whom come in.

Like `rooms`: an arrival that adds to a limit reserves for good what is free at the start or what an earlier departure
sets free, and waits for the departures it draws on; so no order and no overlap that the graph allows exceeds a limit.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Bools, Ints
from trimtab.platform.planner.rooms import exact
from trimtab.platform.rules import ResourceCapacity, rulebook
from trimtab.platform.rules.book import ONLINE
from trimtab.platform.rules.kinds import HostLimit

if TYPE_CHECKING:
    from trimtab.platform.planner.jobs import Job

ONE = 1_000_000  # an instance or a host, in the millionths of `rooms`


class _Account:
    """One limit: free at the start, debts of one exceeded before, credits with who must have left, oldest first."""

    def __init__(self, model: ClusterModel, rule: HostLimit, on: Bools, online: bool) -> None:
        self.label, self.on, self.online = rule.label, on, online
        self.need = exact(model.need[:, rule.resource]) if isinstance(rule, ResourceCapacity) else None
        if self.need is None:
            left = round((rule.most - rule.load(model, model.host_of)) * ONE)
        else:  # summed exactly, as it is drawn on
            inside = (model.host_of >= 0) & on[model.host_of]
            left = int(exact(np.array([rule.most]))[0] - self.need[inside].sum())
        self.free, self.debt = max(left, 0), max(-left, 0)
        self.room = left
        self.payers: list[Job] = []
        self.credits: deque[tuple[int, tuple[Job, ...]]] = deque()
        self.opened: dict[int, tuple[Job, ...]] = {}  # online: hosts that were empty at the start -> who had to leave

    def amount(self, instance: int) -> int:
        return ONE if self.need is None else int(self.need[instance])

    def pay_in(self, amount: int, jobs: tuple[Job, ...]) -> None:
        self.room += amount
        paid = min(self.debt, amount)
        if paid:
            self.debt -= paid
            self.payers += jobs
        if amount > paid:
            self.credits.append((amount - paid, jobs))

    def draw(self, amount: int) -> dict[Job, None]:
        self.room -= amount
        drawn = dict.fromkeys(self.payers)
        taken = min(self.free, amount)
        self.free -= taken
        rest = amount - taken
        while rest:
            left, jobs = self.credits.popleft()
            drawn.update(dict.fromkeys(jobs))
            if left > rest:
                self.credits.appendleft((left - rest, jobs))
            rest -= min(left, rest)
        return drawn


class Budgets:
    """All continuous limits of a model's rules while a plan is made; costs nothing where there are none."""

    def __init__(self, model: ClusterModel, jobs: Sequence[Job]) -> None:
        book = rulebook(model)
        self.accounts: list[_Account] = []
        for k, n in enumerate(book.limits):
            rule = book.rules[n]
            if rule.continuous and isinstance(rule, HostLimit):
                self.accounts.append(_Account(model, rule, book.on(k), bool(book.measure[k] == ONLINE)))
        self._guests: Ints = np.zeros(0, np.int32)
        self._leavers: dict[int, list[Job]] = defaultdict(list)
        self._pending: Counter[int] = Counter()
        self._open: Bools = np.zeros(0, bool)
        self._stays: Bools = np.zeros(0, bool)
        if self.accounts:
            placed = model.host_of[model.host_of >= 0]
            self._guests = np.bincount(placed, minlength=model.hosts).astype(np.int32)
            self._open = self._guests > 0
            movers = np.array([job.instance for job in jobs if job.act is None], np.int32)
            resting = model.host_of.copy()
            resting[movers] = -1
            self._stays = np.bincount(resting[resting >= 0], minlength=model.hosts) > 0
            self._pending.update(job.destination for job in jobs if job.act is None and job.destination >= 0)

    def lacking(self, job: Job) -> list[int]:
        """Positions of the accounts that have too little for an arrival."""
        prices = [self._price(one, job) for one in self.accounts]
        return [k for k, price in enumerate(prices) if price > max(self.accounts[k].room, 0)]

    def gives(self, job: Job, k: int) -> bool:
        """Whether a departure may set something free in an account."""
        one = self.accounts[k]
        return bool(one.on[job.source]) and job.destination >= 0 and (one.online or not one.on[job.destination])

    def generous(self, job: Job) -> bool:
        """Whether a departure may set something free anywhere."""
        return any(self.gives(job, k) for k in range(len(self.accounts)))

    def plan(self, job: Job) -> tuple[list[Job], Bools | None]:
        """A move is planned: the departures it draws on, and hosts whose waiting arrivals may now be let in."""
        if not self.accounts:
            return [], None
        drawn: dict[Job, None] = {}
        for one in self.accounts:
            price = self._price(one, job)
            if price or job.destination in one.opened:
                jobs = tuple(one.draw(price)) if price else one.opened[job.destination]
                drawn.update(dict.fromkeys(jobs))
                if price and one.online:
                    one.opened[job.destination] = jobs
        before = [one.room for one in self.accounts]
        for k, one in enumerate(self.accounts):
            if not one.online and self.gives(job, k):
                one.pay_in(one.amount(job.instance), (job,))
        if job.destination < 0:  # the cloud may open another host of the group: nothing is given back
            return list(drawn), self._eased(before)
        self._guests[job.destination] += 1
        self._pending[job.destination] -= 1
        self._open[job.destination] = True
        self._guests[job.source] -= 1
        self._leavers[job.source].append(job)
        self._close(job.source)
        return list(drawn), self._eased(before)

    def announce(self, host: int) -> None:
        """One more arrival will come."""
        self._pending[host] += 1

    def forget(self, host: int) -> Bools | None:
        """An arrival will not come; hosts as in `plan`."""
        if not self.accounts:
            return None
        before = [one.room for one in self.accounts]
        self._pending[host] -= 1
        self._close(host)
        return self._eased(before)

    def resting(self, source: int, destination: int, hosts: Bools) -> Bools:
        """Of some hosts those where a stay in between draws on no account."""
        for one in self.accounts:
            if one.online:
                hosts = hosts & (~one.on | self._stays)
            elif not one.on[source]:
                hosts = hosts & ~one.on
            elif one.on[destination]:
                hosts = hosts & one.on
        return hosts

    def _price(self, one: _Account, job: Job) -> int:
        if job.act is not None or job.destination < 0 or not one.on[job.destination]:
            return 0
        if one.online:
            return 0 if self._open[job.destination] else ONE
        return 0 if one.on[job.source] else one.amount(job.instance)

    def _close(self, host: int) -> None:
        """A host that is empty when everything planned is done, with nobody to come, is given back."""
        if self._guests[host] or self._pending[host] > 0 or not self._leavers[host]:
            return
        self._open[host] = False
        for one in self.accounts:
            if one.online and one.on[host]:
                one.pay_in(ONE, tuple(self._leavers[host]))
                one.opened.pop(host, None)
        self._leavers[host] = []

    def _eased(self, before: Iterable[int]) -> Bools | None:
        better = [one.on for one, room in zip(self.accounts, before, strict=True) if one.room > room]
        return np.logical_or.reduce(better) if better else None
