"""What is left of a candidate when moves are left out: which others must stay too, or a rule would be broken for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Ints
from trimtab.platform.planner.jobs import Job
from trimtab.platform.proposal import Migrate, Step
from trimtab.platform.rules import groups_broken, rulebook
from trimtab.platform.rules.kinds import HostLimit
from trimtab.platform.rules.violations import excess, group_name, wrong_members


def unfinished(model: ClusterModel, steps: Sequence[Step], planned: Sequence[Job]) -> dict[int, str]:
    """Instances whose planned moves would leave a rule or a hard server group worse than before, and why they stay.

    Only what the whole candidate would have left alone: it is broken because some of its moves are left out. Empty when
    there is nothing of the kind.
    """
    wished, end = model.host_of.copy(), model.host_of.copy()
    for step in steps:
        if isinstance(step, Migrate):
            wished[step.instance] = step.destination
    moved = {job.instance: job for job in planned if job.act is None}
    for job in moved.values():
        end[job.instance] = job.destination
    if (wished == end).all():
        return {}
    found: dict[int, str] = {}
    worse = groups_broken(model, end) > np.maximum(groups_broken(model, model.host_of), groups_broken(model, wished))
    for group in np.flatnonzero(worse).tolist():
        members = np.flatnonzero(model.group == group).astype(np.int32)
        found |= _stay(members, moved, f"server group {group_name(model, group)}")
    if not model.rules:
        return found
    book = rulebook(model)
    before = np.maximum(excess(model, book, model.host_of), excess(model, book, wished))
    for n in np.flatnonzero(excess(model, book, end) > before + 1e-6).tolist():
        rule = book.rules[n]
        wrong = wrong_members(model, rule, end)
        hosts = rule.hosts if isinstance(rule, HostLimit) else np.unique(end[wrong])
        came = [v for v, job in moved.items() if job.destination in hosts]
        for some in (wrong, came, rule.members, moved):
            if stay := _stay(np.array(list(some), np.int32), moved, f"rule {rule.label}"):
                found |= stay
                break
    return found


def _stay(instances: Ints, moved: dict[int, Job], what: str) -> dict[int, str]:
    why = f"{what} would be broken without the moves that cannot be done"
    return {v: why for v in instances.tolist() if v in moved}
