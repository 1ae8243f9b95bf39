"""The worklist: plan whatever has room, take detours out of circles of full hosts, leave out what cannot be done."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum

import numpy as np

from trimtab.platform.model import MEMORY, ClusterModel, GroupPolicy
from trimtab.platform.model.compute import Bools
from trimtab.platform.planner import company
from trimtab.platform.planner.budgets import Budgets
from trimtab.platform.planner.courtesy import courteous
from trimtab.platform.planner.jobs import Fate, Job
from trimtab.platform.planner.knots import knots
from trimtab.platform.planner.rooms import Amounts, Rooms

CLOSING = ("disabled", "off")  # what must not happen to a host that keeps an instance it should have lost


class Force(Enum):
    """How hard to try to open a circle."""

    SPARE = 0  # detours to hosts with room that nobody counts on
    BORROW = 1  # detours to any host that has room now
    GIVE_UP = 2  # leave moves out


class Sequencer:
    """Plans the jobs of one candidate; `planned` is an order in which everybody's parents come first.

    Moves that nobody waits for ("lazy": their source has room for all its arrivals without them) go last, so that
    they never take room from a move that others wait for; for the rest the candidate's order decides. What goes where
    the cloud's scheduler chooses (moves without a destination, resizes) is planned when all else is, or when its
    leaving lets somebody in; see `courtesy`.
    """

    def __init__(
        self,
        model: ClusterModel,
        jobs: list[Job],
        rooms: Rooms,
        *,
        script: Iterable[int] = (),
        straight: Collection[int] = (),
        without: Mapping[int, str] | None = None,
    ) -> None:
        """Everything is set up, nothing planned but the script.

        Args:
            model: hosts, instances and rules.
            jobs: what is to be planned.
            rooms: all arrivals announced, none planned.
            script: numbers of jobs to plan first, in this order.
            straight: instances that take no detour.
            without: instances that stay, and why.
        """
        self.model, self.jobs, self.rooms = model, jobs, rooms
        self.planned: list[Job] = []
        self.straight = straight
        self._ready: deque[Job] = deque()
        self._dirty: dict[int, None] = {}
        self._waiting: dict[int, dict[Amounts, deque[Job]]] = defaultdict(dict)
        self._lowest: dict[int, list[int]] = {}
        self._lazy: list[Job] = []
        self._leaving: dict[int, list[Job]] = defaultdict(list)
        self._move_of = {job.instance: job for job in jobs if job.act is None}
        self._resting = model.usable.copy()  # hosts where a detour may stay: those that no act concerns
        for job in jobs:
            if job.act is None:
                self._leaving[job.source].append(job)
            elif job.act.host >= 0:
                self._resting[job.act.host] = False
        self._budgets = Budgets(model, jobs)
        self._pool: list[Job] = []  # ready, and the cloud chooses where
        for number, rule in company.hindered(model, jobs).items():
            jobs[number].against = rule
            self._leave_out(jobs[number])
        for instance, why in [*company.chanced(model, jobs), *(without or {}).items()]:
            self._move_of[instance].why = why
            self._leave_out(self._move_of[instance])
        for number in script:
            open_ = not jobs[number].waits and jobs[number].fate is Fate.PENDING
            if open_ and self._has_room(jobs[number]):
                self._plan(jobs[number])
        self._ready.extend(job for job in jobs if not job.waits and job.fate is Fate.PENDING)

    # -- planning what can be planned --------------------------------------------------------------------------

    def settle(self) -> None:
        """Plan until nothing more has room; of what the cloud places only those that others need to have gone."""
        self._flow()
        again = bool(self._pool)
        while again:
            again = False
            for job in list(self._pool):
                if job in self._pool and self._lets_go_on(job):
                    self._pool.remove(job)
                    self._plan(job)
                    self._flow()
                    again = True

    def _lets_go_on(self, job: Job) -> bool:
        source = job.source if job.act is None else self._host_of(job)
        if source >= 0 and self.rooms.short(source):
            return True
        return any(late.act is None and late.fate is Fate.PENDING for late in job.after())

    def _flow(self) -> None:
        while self._ready or self._dirty:
            while self._ready:
                job = self._ready.popleft()
                if job.fate is not Fate.PENDING:
                    continue
                if job.by_cloud:
                    self._pool.append(job)
                elif job.act is not None:
                    self._plan(job)
                else:
                    self._wait(job)
            if self._dirty:
                host = next(iter(self._dirty))
                del self._dirty[host]
                self._serve(host)

    def run(self) -> None:
        """Plan everything that can be planned."""
        while True:
            self.settle()
            if not self.blocked():
                self._serve_lazy(short_too=not self._pool)
                self.settle()
                if not self.blocked():
                    if not self._pool:
                        break
                    self._plan_pool()
                    continue
            if self._untangle(Force.SPARE) or self._untangle(Force.BORROW) or self._serve_lazy():
                continue
            if self._pool:
                self._plan_pool()
                continue
            self._untangle(Force.GIVE_UP)
        for job in self.jobs:
            if job.fate is Fate.PENDING:
                self._leave_out(job)
        self.settle()
        self.planned = courteous(self.model, self.planned, self.rooms)

    def stuck(self) -> list[Job]:
        """Pending jobs that others wait for or that wait for others; empty when only lazy moves remain."""
        back = [job for job in self._lazy if job.fate is Fate.PENDING and self._awaited(job)]
        if back:
            self._lazy = [job for job in self._lazy if job.fate is Fate.PENDING and not self._awaited(job)]
            for job in back:
                job.lazy = False
                self._wait(job)
            self.settle()
        return [job for job in self.jobs if job.fate is Fate.PENDING and not job.lazy]

    def blocked(self) -> list[Job]:
        """Those of the stuck that wait for other things than what the cloud places."""
        stuck = self.stuck()
        behind = set(self._pool)
        ahead = list(self._pool)
        while ahead:
            for late in ahead.pop().after():
                if late not in behind:
                    behind.add(late)
                    ahead.append(late)
        return [job for job in stuck if job not in behind] if behind else stuck

    def _plan_pool(self) -> None:
        pool, self._pool = self._pool, []
        for job in sorted(pool, key=lambda job: job.number):
            if job.fate is Fate.PENDING:
                self._plan(job)

    def _has_room(self, job: Job) -> bool:
        if job.destination < 0:
            return True
        return self.rooms.fits(job.destination, job.need) and not self._budgets.lacking(job)

    def _awaited(self, job: Job) -> bool:
        if self._budgets.generous(job):
            return True
        return self.rooms.short(job.source) or any(late.fate is Fate.PENDING for late in job.after())

    def _wait(self, job: Job) -> None:
        self._waiting[job.destination].setdefault(job.need, deque()).append(job)
        lowest = self._lowest.setdefault(job.destination, list(job.need))
        for r, amount in enumerate(job.need):
            lowest[r] = min(lowest[r], amount)
        self._dirty[job.destination] = None

    def _serve(self, host: int) -> None:
        """Plan the arrivals a host has room for; lazy ones are put aside."""
        lowest = self._lowest.get(host)
        if lowest is None or not self.rooms.fits(host, (lowest[0], lowest[1], lowest[2])):
            return
        waiting = self._waiting[host]
        for need in list(waiting):
            queue = waiting[need]
            held: list[Job] = []
            while queue and self.rooms.fits(host, need):
                job = queue.popleft()
                if job.fate is not Fate.PENDING:
                    continue
                if self._budgets.lacking(job):
                    held.append(job)
                elif self._awaited(job):
                    self._plan(job)
                else:
                    job.lazy = True
                    self._lazy.append(job)
            queue.extendleft(reversed(held))
            if not queue:
                del waiting[need]
        if waiting:
            self._lowest[host] = [min(amounts) for amounts in zip(*waiting, strict=True)]
        else:
            del self._lowest[host]

    def _serve_lazy(self, *, detours: bool = False, short_too: bool = False) -> bool:
        """Plan lazy moves to hosts that are not short (`short_too`: any), or only second halves of detours."""
        kept: list[Job] = []
        before = len(self.planned)
        for job in sorted(self._lazy, key=lambda job: job.number):
            if job.fate is not Fate.PENDING:
                continue
            wanted = (job.came_by >= 0 or not detours) and (short_too or not self.rooms.short(job.destination))
            if wanted and self._has_room(job):
                self._plan(job)
            else:
                kept.append(job)
        self._lazy = kept
        return len(self.planned) > before

    def _plan(self, job: Job) -> None:
        job.fate = Fate.PLANNED
        parents = {early: None for early in job.before() if early.fate is Fate.PLANNED}
        room_of = {peer: None for peer in job.peers if peer.fate is Fate.PLANNED}
        if job.act is None:
            if job.destination >= 0:
                room_of.update(dict.fromkeys(self.rooms.arrive(job.destination, job.need)))
            drawn, eased = self._budgets.plan(job)
            room_of.update(dict.fromkeys(drawn))
            self._stir(eased)
            self.rooms.leave(job.source, job.leaves or job.need, job)
            self._dirty[job.source] = None
        elif job.old is not None:
            room_of.update(dict.fromkeys(self._grow(job, job.old)))
        job.room_of = list(room_of)
        job.parents = list(parents | room_of)
        self.planned.append(job)
        self._release(job.after())

    def _host_of(self, resize: Job) -> int:
        """Where an instance is when it is resized; -1 when the cloud has chosen."""
        move = self._move_of.get(resize.instance)
        gone = move is not None and move.rank < resize.rank and move.fate is Fate.PLANNED
        return move.destination if move is not None and gone else int(self.model.host_of[resize.instance])

    def _grow(self, resize: Job, old: Amounts) -> list[Job]:
        """Reserve room for a resize on its host; the departures that it draws on.

        Clouds take the new size beside the old one until the resize is confirmed, so all of it is reserved where there
        is room; where there is not, what it grows by, for those that grow in place. Else it can only go elsewhere.
        """
        host, new = self._host_of(resize), resize.need
        move = self._move_of.get(resize.instance)
        later = move if move is not None and move.rank > resize.rank else None
        more = _minus(new, old)
        takes, gives = (new, old) if host >= 0 and self.rooms.fits(host, new) else (more, _minus(old, new))
        if host < 0 or not self.rooms.fits(host, takes):
            if later is not None:
                later.leaves = _amounts(map(min, old, new))
            return []
        self.rooms.announce(host, takes)
        drawn = self.rooms.arrive(host, takes, unsure=True)
        self.rooms.leave(host, gives, resize)
        self._dirty[host] = None
        return drawn

    def _stir(self, eased: Bools | None) -> None:
        """Look again at the arrivals of hosts whose limits have got room."""
        if eased is not None:
            self._dirty.update((host, None) for host in self._waiting if eased[host])

    def _release(self, jobs: Iterable[Job]) -> None:
        for late in jobs:
            late.waits -= 1
            if not late.waits and late.fate is Fate.PENDING:
                self._ready.append(late)

    def _leave_out(self, job: Job) -> None:
        """Leave a job out, with the arrivals and the closing acts that make no sense without it."""
        gone = [job]
        while gone:
            job = gone.pop()
            if job.fate is not Fate.PENDING:
                continue
            job.against = job.against or self._rule_against(job)
            job.fate = Fate.LEFT_OUT
            if job.act is None and job.destination >= 0:
                self.rooms.forget(job.destination, job.need)
                self._stir(self._budgets.forget(job.destination))
            if job.act is None:
                gone += [late for late in job.after_leaving if job in late.peers or _closes(late, job.source)]
            self._release(job.after())

    def _rule_against(self, job: Job) -> str:
        """The rule because of which a job is left out, if it is one."""
        if job.act is not None or job.destination < 0:
            return ""
        lacking = self._budgets.lacking(job)
        if lacking and self.rooms.fits(job.destination, job.need):
            return self._budgets.accounts[lacking[0]].label
        left = (peer for peer in job.peers if peer.fate is not Fate.PLANNED)
        return next((rule for peer in left if (rule := company.between(self.model, peer, job))), "")

    # -- circles -----------------------------------------------------------------------------------------------

    def _untangle(self, force: Force) -> bool:
        """Open circles of waits: by detours, or by leaving moves out; True when anything changed.

        Works on the circles that wait for nobody else: opening those may open the others.
        """
        jobs = self.stuck()
        waits = self._waits(jobs)
        component = [0] * len(waits)
        found = knots(waits)
        for number, members in enumerate(found):
            for node in members:
                component[node] = number
        dead = [False] * len(found)
        changed = False
        for number, members in enumerate(found):
            circle = [jobs[node] for node in members if node < len(jobs)]
            if any(job.fate is not Fate.PENDING for job in circle):
                continue
            if any(
                not dead[component[after]] for node in members for after in waits[node] if component[after] != number
            ):
                continue
            if len(members) == 1:
                # A host nobody leaves any more, or a job that waits for such a host.
                dead[number] = not circle or self._drop(circle[0])
                changed |= bool(circle) and dead[number]
            elif self._detour(circle, force):
                changed = True
            elif force is Force.GIVE_UP:
                changed = True
                dead[number] = self._give_up(circle)
        return changed

    def _drop(self, job: Job) -> bool:
        if job.act is not None or self._has_room(job):
            return False
        self._leave_out(job)
        return True

    def _waits(self, jobs: Sequence[Job]) -> list[list[int]]:
        """The graph of waits: a job waits for jobs, and for a host without room; a host for who shall leave it."""
        node = {job: n for n, job in enumerate(jobs)}
        hosts: dict[int, int] = {}
        waits: list[list[int]] = []
        for job in jobs:
            ahead = [node[early] for early in job.before() if early in node]
            arrives = job.act is None and job.destination >= 0
            if arrives and not self.rooms.fits(job.destination, job.need):
                ahead.append(hosts.setdefault(job.destination, len(jobs) + len(hosts)))
            if arrives:  # limits are numbered behind the hosts
                limits = (self.model.hosts + k for k in self._budgets.lacking(job))
                ahead += [hosts.setdefault(limit, len(jobs) + len(hosts)) for limit in limits]
            waits.append(ahead)
        for host in hosts:
            if host >= self.model.hosts:
                givers = (job for job in jobs if job.act is None and self._budgets.gives(job, host - self.model.hosts))
                waits.append([node[job] for job in givers])
                continue
            self._leaving[host] = [j for j in self._leaving[host] if j.fate is Fate.PENDING and j.source == host]
            waits.append([node[job] for job in self._leaving[host] if job in node])
        return waits

    def _give_up(self, circle: Sequence[Job]) -> bool:
        """Leave out what cannot be done; True when nobody of the circle is left.

        Leaving a move out gives nobody room. It helps only jobs that wait for it in another way, so while there are
        such jobs one move goes at a time.
        """
        moves = sorted((job for job in circle if job.act is None), key=_cost)
        awaited = [job for job in moves if any(late.fate is Fate.PENDING for late in job.after())]
        for job in awaited[:1] or moves:
            self._leave_out(job)
        return not awaited

    def _detour(self, circle: Sequence[Job], force: Force) -> bool:
        """Take the cheapest moves of a circle by way of a third host; True when there was one.

        First choice are moves whose leaving lets somebody in at once. Large circles get several detours a time.
        """
        able = [job for job in circle if self._may_detour(job)]
        able.sort(key=_cost)
        allowed = 1 + len(circle) // 32
        taken = 0
        nowhere: set[tuple[Amounts, int]] = set()
        for wanted in (self._lets_in, lambda _: True):
            for job in able:
                kind = (job.need, int(self.model.pinned_zone[job.instance]))
                if kind in nowhere or not self._may_detour(job) or not wanted(job):
                    continue
                third = self._third_host(job, force)
                if third < 0 and self._serve_lazy(detours=True):  # earlier ones may end now
                    self.settle()
                    third = self._third_host(job, force) if self._may_detour(job) else -1
                if third < 0:
                    if self.model.group[job.instance] < 0 and not self.model.rules:
                        nowhere.add(kind)
                    continue
                self._go_by(job, third)
                self.settle()
                taken += 1
                if taken == allowed:
                    return True
            if taken:
                return True
        return False

    def _may_detour(self, job: Job) -> bool:
        return (
            job.act is None
            and job.fate is Fate.PENDING
            and job.came_by < 0
            and job.destination >= 0
            and job.instance not in self.straight
            and all(early.fate is not Fate.PENDING for early in job.to_leave)
        )

    def _lets_in(self, job: Job) -> bool:
        if any(late.fate is Fate.PENDING for late in job.after_leaving):
            return True
        room = (self.rooms.room[job.source] + job.need).tolist()
        return any(
            all(not need[r] or room[r] >= need[r] for r in range(len(room)))
            for need in self._waiting.get(job.source, ())
        )

    def _third_host(self, job: Job, force: Force) -> int:
        """Where an instance can stay in between: the host with the most memory free; -1 when there is none."""
        model, need = self.model, np.array(job.need)
        asked = need > 0
        free = self.rooms.room if force is not Force.SPARE else np.minimum(self.rooms.room, self.rooms.slack)
        ok: Bools = self._resting & (free[:, asked] >= need[asked]).all(axis=1)
        if (zone := model.pinned_zone[job.instance]) >= 0:
            ok &= model.zone.codes == zone
        if (group := int(model.group[job.instance])) >= 0:
            ok &= self._away_from_peers(job.instance, group)
        ok = company.resting(model, job, self._move_of, ok)
        ok = self._budgets.resting(job.source, job.destination, ok)
        ok[[job.source, job.destination]] = False
        best = int(np.argmax(np.where(ok, free[:, MEMORY], np.iinfo(np.int64).min)))
        return best if ok[best] else -1

    def _away_from_peers(self, instance: int, group: int) -> Bools:
        """Hosts where a stay in between breaks no hard policy: no peer was, is or comes there."""
        model, away = self.model, np.ones(self.model.hosts, bool)
        policy = model.group_policy[group]
        if policy not in {GroupPolicy.AFFINITY, GroupPolicy.ANTI_AFFINITY}:
            return away
        start, rows = model.group_members
        peers = [peer for peer in rows[start[group] : start[group + 1]].tolist() if peer != instance]
        theirs = {int(model.host_of[peer]) for peer in peers}
        for job in (self._move_of[peer] for peer in peers if peer in self._move_of):
            theirs |= {job.destination, job.came_by}
        theirs.discard(-1)
        if policy == GroupPolicy.AFFINITY:
            return np.full(model.hosts, not theirs)
        away[list(theirs)] = False
        return away

    def _go_by(self, job: Job, third: int) -> None:
        """Cut a move in two: to the third host now, from there later; whoever waited for it to leave waits no more."""
        hop = Job(len(self.jobs), job.rank, job.first, instance=job.instance, source=job.source, destination=third)
        hop.live, hop.need, hop.leaves, job.leaves = job.live, job.need, job.leaves, None
        hop.to_leave, job.to_leave = job.to_leave, [hop]
        hop.after_leaving, job.after_leaving = job.after_leaving, []
        for late in hop.after_leaving:
            for early in (late.to_leave, late.to_arrive, late.peers):
                early[:] = [hop if one is job else one for one in early]
        self.jobs.append(hop)
        self.rooms.announce(third, job.need)
        self._budgets.announce(third)
        self._plan(hop)
        job.source = job.came_by = third
        self._leaving[third].append(job)


def _cost(job: Job) -> tuple[int, int]:
    return job.need[MEMORY], job.number


def _minus(a: Amounts, b: Amounts) -> Amounts:
    return _amounts(max(x - y, 0) for x, y in zip(a, b, strict=True))


def _amounts(values: Iterable[int]) -> Amounts:
    vcpus, memory, disk = values
    return vcpus, memory, disk


def _closes(act: Job, host: int) -> bool:
    return act.act is not None and act.act.host == host and act.act.parameters.get("state") in CLOSING
