"""What goes where the cloud's scheduler chooses waits for the moves whose promised room it might be given."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.planner.jobs import Job
from trimtab.platform.planner.rooms import Amounts, Rooms

WIDEST = 20_000  # edges; beyond, all wait for the first of them instead, and that one for the moves


def courteous(model: ClusterModel, planned: Sequence[Job], rooms: Rooms) -> list[Job]:
    """The planned jobs, parents first, when every job the cloud places waits for the moves whose room it might take.

    A host is threatened when all that the cloud is to place does not fit there beside all that is reserved, whatever
    has been carried out by then. Only a move that itself waits for such a job is not waited for.
    """
    placed = [job for job in planned if job.by_cloud]
    unknown = total(job.need for job in placed)
    if not any(unknown):
        return list(planned)
    threatened = rooms.threatened(unknown)
    moves = [job for job in planned if job.act is None and job.destination >= 0 and threatened[job.destination]]
    if not moves:
        return list(planned)
    children: dict[Job, list[Job]] = {job: [] for job in planned}
    for job in planned:
        for parent in job.parents:
            children[parent].append(job)
    by_zone: dict[int, list[Job]] = {-1: moves}
    gates: dict[int, Job] = {}
    crowded = len(moves) * len(placed) > WIDEST
    for job in placed:
        zone = int(model.pinned_zone[job.instance])
        if zone not in by_zone:
            by_zone[zone] = [move for move in moves if model.zone.codes[move.destination] == zone]
        ahead: Iterable[Job] = by_zone[zone]
        if children[job]:
            later = _later(job, children)
            ahead = [move for move in by_zone[zone] if move not in later]
        elif crowded and by_zone[zone]:
            gate = gates.setdefault(zone, job)
            ahead = [gate] if gate is not job else ahead
        known = set(job.parents)
        for move in ahead:
            if move not in known and move is not job:
                job.parents.append(move)
                children[move].append(job)
    return _sorted(planned, children)


def total(needs: Iterable[Amounts]) -> Amounts:
    """The sum of some amounts."""
    vcpus, memory, disk = np.sum([(0, 0, 0), *needs], axis=0).tolist()
    return vcpus, memory, disk


def _later(job: Job, children: dict[Job, list[Job]]) -> set[Job]:
    """All jobs that wait for a job."""
    found: set[Job] = set()
    ahead = [job]
    while ahead:
        for child in children[ahead.pop()]:
            if child not in found:
                found.add(child)
                ahead.append(child)
    return found


def _sorted(planned: Sequence[Job], children: dict[Job, list[Job]]) -> list[Job]:
    missing = {job: len(job.parents) for job in planned}
    ready = deque(job for job in planned if not missing[job])
    order: list[Job] = []
    while ready:
        job = ready.popleft()
        order.append(job)
        for child in children[job]:
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
    return order
