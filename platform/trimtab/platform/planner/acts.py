"""Acts on no host: which may run side by side, and which instances' moves they must not overlap with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

from trimtab.platform.model import ClusterModel

if TYPE_CHECKING:
    from trimtab.platform.planner.jobs import Job

SIDE_BY_SIDE = frozenset({"volume_migrate", "stop", "resize"})
VOLUMES_PER_DESTINATION = 2  # at once, to one pool or type: as many as Watcher's planner lets run side by side


def chained(acts: Sequence[Job]) -> Iterator[tuple[Job, Job]]:
    """Pairs (early, late) of acts that keep the candidate's order.

    Acts of the types `SIDE_BY_SIDE` wait only for earlier acts on the same resource, and moves of volumes for all but
    the last so many to the same pool or type. Any other act waits for all acts before it, and all after it wait for it.
    """
    barrier: Job | None = None
    since: list[Job] = []
    last: dict[str, Job] = {}
    lanes: dict[Hashable, list[Job]] = defaultdict(list)
    for job in acts:
        act = job.act
        if act is None:
            continue
        if act.action_type not in SIDE_BY_SIDE:
            for early in since or ([barrier] if barrier is not None else []):
                yield early, job
            barrier, since = job, []
            last.clear()
            lanes.clear()
            continue
        before = [] if barrier is None else [barrier]
        if act.resource_id is not None and act.resource_id in last:
            before.append(last[act.resource_id])
        if act.action_type == "volume_migrate":
            lane = lanes[act.parameters.get("destination_node"), act.parameters.get("destination_type")]
            before += lane[-VOLUMES_PER_DESTINATION:][:1] if len(lane) >= VOLUMES_PER_DESTINATION else []
            lane.append(job)
        for early in dict.fromkeys(before):
            yield early, job
        since.append(job)
        if act.resource_id is not None:
            last[act.resource_id] = job


def about(model: ClusterModel, acts: Sequence[Job]) -> Iterator[tuple[Job, int]]:
    """Pairs of an act and the row of an instance that it is about: the resource itself, or who has it attached."""
    rows = model.instance_rows([(job.act.resource_id if job.act else None) or "" for job in acts])
    for job, row in zip(acts, rows.tolist(), strict=True):
        if row >= 0:
            yield job, row
        if job.act is not None:
            yield from ((job, other) for other in dict.fromkeys(job.act.instances) if other != row)
