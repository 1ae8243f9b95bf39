"""What has to be ordered: one job per instance that moves and per act, and who must come before whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import itemgetter

from trimtab.platform.model import ClusterModel, GroupPolicy
from trimtab.platform.planner.acts import about, chained
from trimtab.platform.planner.company import pairs
from trimtab.platform.planner.rooms import Amounts, Rooms
from trimtab.platform.planner.sizes import sizes_of
from trimtab.platform.planner.wire import check_act, check_move
from trimtab.platform.proposal import Act, Step


class Fate(Enum):
    """What became of a job."""

    PENDING = 0
    PLANNED = 1
    LEFT_OUT = 2


@dataclass(slots=True, eq=False)
class Job:
    """A move or an act while a plan is made; links are kept apart by side, because a detour cuts a move in two.

    `rank` and `first` are positions of the last and the first step it stands for. `waits` counts pending jobs that
    must be planned before it. `peers` are moves that must have left its destination because a rule keeps them apart.
    A resize has the row of its instance, what that needs before (`old`) and after (`need`), and where it probably is.
    """

    number: int
    rank: int
    first: int
    act: Act | None = None
    instance: int = -1
    source: int = -1
    destination: int = -1
    live: bool = True
    need: Amounts = (0, 0, 0)
    to_leave: list[Job] = field(default_factory=list)
    to_arrive: list[Job] = field(default_factory=list)
    peers: list[Job] = field(default_factory=list)
    after_leaving: list[Job] = field(default_factory=list)
    after_arriving: list[Job] = field(default_factory=list)
    waits: int = 0
    fate: Fate = Fate.PENDING
    parents: list[Job] = field(default_factory=list)
    room_of: list[Job] = field(default_factory=list)
    came_by: int = -1  # the third host of a detour
    against: str = ""  # the rule that would be broken on the way
    why: str = ""  # it is left out, where it is for another reason
    old: Amounts | None = None  # of a resize
    leaves: Amounts | None = None  # what it surely sets free, where that is not its need: it is resized before
    lazy: bool = False

    @property
    def by_cloud(self) -> bool:
        """Whether the cloud's scheduler chooses where room is taken."""
        return self.destination < 0 if self.act is None else self.old is not None

    def before(self) -> list[Job]:
        """Jobs that must be planned first, room aside."""
        return [*self.to_leave, *self.to_arrive, *self.peers]

    def after(self) -> list[Job]:
        """Jobs that wait for this one, room aside."""
        return [*self.after_leaving, *self.after_arriving]


def jobs_of(model: ClusterModel, steps: Sequence[Step], rooms: Rooms) -> list[Job]:
    """Net moves and acts in the candidate's order, linked; announces every arrival to `rooms`.

    Several moves of an instance become one from its first source to its last destination, or none.

    Raises:
        PlanError: a move names no row of the model, or an instance that is on no host.
    """
    jobs: list[Job] = []
    moves: dict[int, Job] = {}
    for rank, step in enumerate(steps):
        if isinstance(step, Act):
            check_act(model, step)
            jobs.append(Job(0, rank, rank, act=step))
            continue
        check_move(model, step)
        job = moves.get(step.instance)
        if job is None:
            job = moves[step.instance] = Job(0, rank, rank, instance=step.instance)
            job.source = int(model.host_of[step.instance])
            job.need = tuple(rooms.demand[step.instance].tolist())
            jobs.append(job)
        job.rank, job.destination, job.live = rank, step.destination, step.live
    jobs = sorted((job for job in jobs if job.act is not None or job.source != job.destination), key=lambda j: j.rank)
    _size(model, jobs, rooms)
    for number, job in enumerate(jobs):
        job.number = number
        if job.destination >= 0:
            rooms.announce(job.destination, job.need)
    _link_hosts(jobs)
    _link_acts(model, jobs)
    _link_peers(model, jobs)
    return jobs


def _size(model: ClusterModel, jobs: Sequence[Job], rooms: Rooms) -> None:
    """What resizes need, and moves of those who are resized before; of flavors nobody has the size is not known."""
    resizes = [job for job in jobs if job.act is not None and job.act.action_type == "resize"]
    if not resizes:
        return
    sizes = sizes_of(model, [job.act for job in resizes if job.act is not None])
    moves = {job.instance: job for job in jobs if job.act is None}
    now: dict[int, Amounts] = {}
    for job, (row, size) in zip(resizes, sizes, strict=True):
        if size is None or model.host_of[row] < 0:
            continue
        job.instance, job.need = row, size
        job.old = now.get(row, tuple(rooms.demand[row].tolist()))
        now[row] = size
        move = moves.get(row)
        if move is not None and job.rank < move.rank:
            move.need = size


def _link(before: list[Job], early: Job, after: list[Job], late: Job) -> None:
    before.append(early)
    after.append(late)
    late.waits += 1


def _link_hosts(jobs: Sequence[Job]) -> None:
    """An act on a host and the moves that touch it keep the candidate's order."""
    acted = {job.act.host for job in jobs if job.act is not None and job.act.host >= 0}
    touches: dict[int, list[tuple[int, int, Job]]] = defaultdict(list)  # host -> (position, side, job)
    for job in jobs if acted else ():
        if job.act is not None:
            if job.act.host >= 0:
                touches[job.act.host].append((job.rank, 0, job))
            continue
        if job.source in acted:
            touches[job.source].append((job.first, 1, job))
        if job.destination in acted:
            touches[job.destination].append((job.rank, 2, job))
    for touched in touches.values():
        last: Job | None = None
        since: list[tuple[int, Job]] = []
        for _, side, job in sorted(touched, key=itemgetter(0)):
            if side == 0:
                if last is not None:
                    _link(job.to_leave, last, last.after_arriving, job)
                for kind, move in since:
                    _link(job.to_leave, move, move.after_leaving if kind == 1 else move.after_arriving, job)
                last, since = job, []
                continue
            since.append((side, job))
            if last is not None:
                _link(job.to_leave if side == 1 else job.to_arrive, last, last.after_arriving, job)


def _link_acts(model: ClusterModel, jobs: Sequence[Job]) -> None:
    """Acts on no host keep their order where it matters (see `acts`), also with the moves of instances they touch."""
    acts = [job for job in jobs if job.act is not None and job.act.host < 0]
    for early, late in chained(acts):
        _link(late.to_leave, early, early.after_arriving, late)
    moves = {job.instance: job for job in jobs if job.act is None}
    for act, row in about(model, acts):
        move = moves.get(row)
        if move is not None and act.rank < move.rank:
            _link(move.to_leave, act, act.after_arriving, move)
        elif move is not None:
            _link(act.to_leave, move, move.after_arriving, act)


def _link_peers(model: ClusterModel, jobs: Sequence[Job]) -> None:
    """Whoever a rule keeps apart from others arrives after those that leave its destination."""
    for early, late in pairs(model, jobs):
        _link(late.peers, early, early.after_leaving, late)
    anti = (model.group_policy == GroupPolicy.ANTI_AFFINITY).tolist()
    if not any(anti):
        return
    members = [(job, int(model.group[job.instance])) for job in jobs if job.act is None]
    members = [(job, group) for job, group in members if group >= 0 and anti[group]]
    leaving: dict[tuple[int, int], list[Job]] = defaultdict(list)
    for job, group in members:
        leaving[group, job.source].append(job)
    for job, group in members:
        for peer in leaving.get((group, job.destination), ()):
            _link(job.peers, peer, peer.after_leaving, job)
