"""The capacity planner: a graph of actions that overfills no host, whatever order and overlap it is carried out in."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from trimtab.platform.errors import PlanError
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner.durations import busiest_link_first
from trimtab.platform.planner.jobs import Fate, Job, jobs_of
from trimtab.platform.planner.order import orders
from trimtab.platform.planner.remainder import unfinished
from trimtab.platform.planner.rooms import Rooms
from trimtab.platform.planner.sequence import Sequencer
from trimtab.platform.planner.wire import act_parameters, label, migrate_parameters, understood
from trimtab.platform.proposal import Candidate, Limits, Plan, PlannedAction, Step

# A detour whose second half turns out to have no way on is not taken: the plan is made again without it. So many times
# at most, fewer for large candidates (jobs times attempts); the last time without any detour.
MOST_ATTEMPTS = 16
WORTH_TRYING = 3_000


def plan_capacity(model: ClusterModel, candidate: Candidate, limits: Limits) -> Plan:  # noqa: ARG001
    """Turn a candidate into a graph of actions with no more edges than safety needs.

    At every instant of every execution the graph allows, a moving instance counting on both its hosts, no host holds
    more than its capacity (one that did at the start takes nobody in before it is back within it), and no two members
    of an anti-affinity group share a host unless they did before. The same holds for every continuous rule the model
    carries: it is kept at every instant, or is never worse than at the start; a move that no order can do so is left
    out and the rule named, and so are those that would leave a rule or a server group worse without it. Several moves
    of an instance become one. Circles of full hosts are opened by the cheapest detours through a third host; what
    cannot be done at all is left out and named in the notes. Acts with a host keep the candidate's order with every
    move from or to that host; other acts form a chain, and keep their order with the move of the instance they name.
    A resize has room reserved where its instance is, if the model knows the size of the flavor. Limits on migrations
    in flight are the applier's.

    Moves without a destination, and resizes, go where the cloud's scheduler likes: they wait until those moves have
    arrived whose room they might be given. The cost: at worst the plan takes as long as its directed moves and then
    the others; where hosts have room for all of the others besides, nothing waits. Only where a directed move needs
    one of them to have gone it comes second; should the cloud have given its room away by then, it fails.

    Raises:
        PlanError: the candidate wants moves and none of its steps can be done, or names no row of the model.
    """
    planned, notes = safe_jobs(model, candidate)
    return Plan(actions_of(model, in_order(planned, busiest_link_first(model, planned))), notes)


def safe_jobs(model: ClusterModel, candidate: Candidate) -> tuple[list[Job], tuple[str, ...]]:
    """The jobs that can be done, each with the parents safety needs, parents first; and what there is to say.

    Raises:
        PlanError: as `plan_capacity`.
    """
    steps = understood(model, candidate.steps)
    sequencer = _sequenced(model, steps)
    without: dict[int, str] = {}
    while more := unfinished(model, steps, sequencer.planned):
        without |= more
        sequencer = _sequenced(model, steps, without)
    if steps and not sequencer.planned and any(job.fate is Fate.LEFT_OUT for job in sequencer.jobs):
        reasons = "; ".join(_notes(model, sequencer.jobs)[:3])
        raise PlanError(f"none of the {len(sequencer.jobs)} steps can be done safely: {reasons}")
    return sequencer.planned, (*candidate.notes, *_notes(model, sequencer.jobs))


def _sequenced(model: ClusterModel, steps: Sequence[Step], without: Mapping[int, str] | None = None) -> Sequencer:
    script: list[int] = []
    rooms = Rooms(model)
    sequencer = Sequencer(model, jobs_of(model, steps, rooms), rooms, without=without)
    sequencer.settle()
    stuck = {job.number for job in sequencer.blocked()}
    if stuck:
        rooms = Rooms(model)
        for job in sequencer.jobs:
            if job.destination >= 0:
                rooms.announce(job.destination, job.need)
        script = orders(sequencer.jobs, rooms, stuck)
    if script:
        rooms = Rooms(model)
        sequencer = Sequencer(model, jobs_of(model, steps, rooms), rooms, script=script, without=without)
    attempts = min(MOST_ATTEMPTS, max(2, WORTH_TRYING // max(1, len(sequencer.jobs))))
    straight: set[int] = set()
    for attempt in range(attempts):
        sequencer.run()
        stranded = {job.instance for job in sequencer.jobs if job.came_by >= 0 and job.fate is Fate.LEFT_OUT}
        if not stranded:
            break
        last = attempt == attempts - 2  # without any detour nobody is stranded
        straight |= {job.instance for job in sequencer.jobs} if last else stranded
        rooms = Rooms(model)
        jobs = jobs_of(model, steps, rooms)
        sequencer = Sequencer(model, jobs, rooms, script=script, straight=straight, without=without)
    return sequencer


def in_order(planned: Sequence[Job], urgency: Callable[[Job], float] | None = None) -> list[Job]:
    """Jobs of the lowest urgency first, then in the candidate's order; parents before all. Takes parents first.

    Without `urgency` those that the longest chains wait for go first: an applier with limits starts what is ready in
    the order of the list (Hu's rule: highest level first).
    """
    height = dict.fromkeys(planned, 0)
    children: dict[Job, list[Job]] = {job: [] for job in planned}
    for job in reversed(planned):
        for parent in job.parents:
            height[parent] = max(height[parent], height[job] + 1)
            children[parent].append(job)
    first = {job: -height[job] if urgency is None else urgency(job) for job in planned}
    missing = {job: len(job.parents) for job in planned}
    heap = [(first[job], job.rank, job.number, job) for job in planned if not missing[job]]
    heapq.heapify(heap)
    order: list[Job] = []
    while heap:
        job = heapq.heappop(heap)[-1]
        order.append(job)
        for child in children[job]:
            missing[child] -= 1
            if not missing[child]:
                heapq.heappush(heap, (first[child], child.rank, child.number, child))
    return order


def actions_of(model: ClusterModel, order: Sequence[Job]) -> tuple[PlannedAction, ...]:
    """Jobs as actions in the order given, in which every parent comes first."""
    position = {job: n for n, job in enumerate(order)}
    return tuple(
        _action(
            model,
            job,
            tuple(sorted(position[parent] for parent in job.parents)),
            tuple(sorted(position[parent] for parent in job.room_of)),
        )
        for job in order
    )


def _action(model: ClusterModel, job: Job, parents: tuple[int, ...], room_of: tuple[int, ...]) -> PlannedAction:
    if job.act is not None:
        return PlannedAction(job.act.action_type, act_parameters(job.act), parents, room_of, host=job.act.host)
    return PlannedAction(
        "migrate",
        migrate_parameters(model, job.instance, job.source, job.destination, job.live),
        parents,
        room_of,
        instance=job.instance,
        source=job.source,
        destination=job.destination,
        live=job.live,
    )


def _notes(model: ClusterModel, jobs: Sequence[Job]) -> list[str]:
    notes: list[str] = []
    for job in jobs:
        if job.fate is Fate.LEFT_OUT and job.act is not None:
            host = f" of host {model.host_name(job.act.host)}" if job.act.host >= 0 else ""
            notes.append(f"{job.act.action_type}{host} is left out: an instance that should have left first stays")
        elif job.fate is Fate.LEFT_OUT:
            to = f"to host {model.host_name(job.destination)}" if job.destination >= 0 else "to go elsewhere"
            why = f"there is no safe way {to}, nor a third host to wait on"
            if job.why:
                why = job.why
            elif job.against:
                why = f"rule {job.against} would be broken on its way {to}"
            notes.append(f"instance {label(model, job.instance)} stays on host {model.host_name(job.source)}: {why}")
        elif job.came_by >= 0:
            notes.append(
                f"instance {label(model, job.instance)} goes by way of host {model.host_name(job.came_by)}, "
                "to open a circle of hosts that wait for each other's room"
            )
    return notes
