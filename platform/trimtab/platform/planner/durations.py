"""How long migrations take on free links: what planners order by, from the numbers that rehearsals assume too.

The order follows from a bound: no schedule is shorter than the work of its busiest link (a host's network card), nor
than the longest chain of actions that wait for each other (Graham, "Bounds on multiprocessing timing anomalies", 1969).
So what is on the busiest link, or has such work waiting behind it, goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from trimtab.platform.model import DISK, MEMORY, ClusterModel
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.planner.jobs import Job

NIC_MB_S = 1000.0  # for migrations, per host
DIRTY_MB_S = 40.0  # memory that a running instance dirties
DISK_SHARE = 0.25  # of its disk that a cold migration copies
SETUP_S = 3.0  # before copying
DOWNTIME_S = 0.5  # longest stop of a live migration
NOTICE_S = 2.5  # until the applier has seen the end
MB_PER_GB = 1024.0


class Transfer(NamedTuple):
    """What migrations do on free links, [N] each: seconds of copying while the guest runs, seconds it stands, GiB."""

    copied_s: Floats
    stopped_s: Floats
    gib: Floats


def transfer(model: ClusterModel, instances: Ints, live: Bools) -> Transfer:
    """Copying of migrations with both hosts' links free.

    Live: (M - r D) / (r - d) for memory M, rate r, dirtying d (pre-copy, Clark et al., NSDI 2005), the last r D of it
    while the guest is stopped for D. Cold: a share of the disk at rate r, the guest stopped.
    """
    memory, disk = model.demand[instances, MEMORY], model.demand[instances, DISK]
    copied = np.where(live, np.maximum(memory - NIC_MB_S * DOWNTIME_S, 0.0) / (NIC_MB_S - DIRTY_MB_S), 0.0)
    stopped = np.where(live, np.minimum(memory / NIC_MB_S, DOWNTIME_S), disk * MB_PER_GB * DISK_SHARE / NIC_MB_S)
    return Transfer(copied, stopped, (copied + stopped) * NIC_MB_S / MB_PER_GB)


def migration_s(model: ClusterModel, instances: Ints, live: Bools) -> Floats:
    """Seconds from the request until its end is noticed, [N], with both hosts' links free."""
    moved = transfer(model, instances, live)
    return SETUP_S + NOTICE_S + moved.copied_s + moved.stopped_s


def busiest_link_first(model: ClusterModel, planned: Sequence[Job]) -> Callable[[Job], float]:
    """How urgent a job is, lowest first: minus the work of its busier link, or of one that waits behind it.

    Acts take no link: those that are ready go at once.
    """
    moves = [job for job in planned if job.act is None]
    instances = np.array([job.instance for job in moves], np.int32)
    seconds = migration_s(model, instances, np.array([job.live for job in moves], bool))
    took = dict(zip(moves, seconds.tolist(), strict=True))
    link: dict[int, float] = {}
    for job in moves:
        for host in (job.source, job.destination):
            link[host] = link.get(host, 0.0) + took[job]
    link[-1] = 0.0  # where the cloud chooses
    urgency = {job: max(link[job.source], link[job.destination]) if job in took else 0.0 for job in planned}
    for job in reversed(planned):  # parents come first
        for parent in job.parents:
            urgency[parent] = max(urgency[parent], urgency[job] + took.get(parent, 0.0))
    return lambda job: -urgency[job] if job in took else -np.inf
