"""Exact search for an order without detours, for small groups of moves where taking the first that fits got stuck."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from trimtab.platform.planner.jobs import Job
from trimtab.platform.planner.rooms import R, Rooms

MOST_JOBS = 16  # at most 2^16 states
MOST_STATES = 10_000  # of all groups of one candidate together; about a quarter of a second


def orders(jobs: Sequence[Job], rooms: Rooms, stuck: Collection[int]) -> list[int]:
    """Numbers of jobs in an order in which each has room, for every small group that holds a stuck job.

    Groups are independent of each other: they share no host and no link. A group that is too large, or has no such
    order, contributes nothing.

    Args:
        jobs: all jobs, as they are before any detour.
        rooms: their rooms at the start, all arrivals announced and none planned.
        stuck: numbers of the jobs that a plain pass could not plan.
    """
    found: list[int] = []
    states = MOST_STATES
    for group in _groups(jobs):
        if len(group) <= MOST_JOBS and any(job.number in stuck for job in group):
            search = _Search(group, rooms, states)
            found += search.order()
            states = search.states
    return found


def _groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs joined by hosts and links."""
    root = list(range(len(jobs)))

    def find(n: int) -> int:
        while root[n] != n:
            root[n] = root[root[n]]
            n = root[n]
        return n

    by_host: dict[int, int] = {}
    for job in jobs:
        for host in (job.source, job.destination):
            if host >= 0:
                root[find(job.number)] = find(by_host.setdefault(host, job.number))
        for early in job.before():
            root[find(job.number)] = find(early.number)
    groups: dict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[find(job.number)].append(job)
    return list(groups.values())


class _Search:
    """Depth first over sets of jobs already done; what is done decides what has room, not the way there."""

    def __init__(self, jobs: Sequence[Job], rooms: Rooms, states: int) -> None:
        self.jobs = jobs
        self.states = states
        at = {job.number: n for n, job in enumerate(jobs)}
        self.before = [sum({1 << at[early.number] for early in job.before()}) for job in jobs]
        hosts = {host for job in jobs for host in (job.source, job.destination) if host >= 0}
        self.room = {host: rooms.room[host].tolist() for host in hosts}
        self.slack = {host: rooms.slack[host].tolist() for host in hosts}
        self.failed: set[int] = set()
        self.done: list[int] = []

    def order(self) -> list[int]:
        """Numbers of all jobs in a good order; empty when there is none or the states are used up."""
        return [self.jobs[n].number for n in self.done] if self._go(0) else []

    def _go(self, mask: int) -> bool:
        if len(self.done) == len(self.jobs):
            return True
        if mask in self.failed or self.states <= 0:
            return False
        self.states -= 1
        open_ = [n for n in range(len(self.jobs)) if not mask >> n & 1 and self.before[n] & ~mask == 0]
        open_ = [n for n in open_ if self._fits(self.jobs[n])]
        free = [n for n in open_ if self._harmless(self.jobs[n])]
        for n in free[:1] or open_:
            self._shift(self.jobs[n], 1)
            self.done.append(n)
            if self._go(mask | 1 << n):
                return True
            self.done.pop()
            self._shift(self.jobs[n], -1)
        self.failed.add(mask)
        return False

    def _fits(self, job: Job) -> bool:
        return job.destination < 0 or all(not job.need[r] or self.room[job.destination][r] >= job.need[r] for r in R)

    def _harmless(self, job: Job) -> bool:
        """Whether doing it now takes room from nobody: then no other choice has to be tried."""
        return job.destination < 0 or min(self.slack[job.destination]) >= 0

    def _shift(self, job: Job, sign: int) -> None:
        for r in R:
            amount = sign * job.need[r]
            if job.destination >= 0:
                self.room[job.destination][r] -= amount
            if job.source >= 0:
                self.room[job.source][r] += amount
                self.slack[job.source][r] += amount
