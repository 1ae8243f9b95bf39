"""Watcher's node resource consolidation planner: disable, migrate host by host, enable; safe for capacity as well."""

from __future__ import annotations

from trimtab.platform.errors import PlanError
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner.capacity import actions_of, in_order, safe_jobs
from trimtab.platform.planner.jobs import Job
from trimtab.platform.proposal import Candidate, Limits, Plan

DISABLE, MIGRATE, ENABLE = range(3)
SERVICE = "change_nova_service_state"


def plan_node_resource_consolidation(
    model: ClusterModel,
    candidate: Candidate,
    limits: Limits,  # noqa: ARG001 - the contract of planners; the applier enforces them
) -> Plan:
    """Order a candidate as `watcher.decision_engine.planner.node_resource_consolidation` does, with what safety needs.

    All disables first; then the migrations, one after another from each host, each waiting for all disables; enables
    wait for the last migration of every host. Where the candidate's own order or room at a destination wants it
    otherwise (see `plan_capacity`), that comes first.

    Raises:
        PlanError: an action is neither a migration nor a change of a service's state; else as `plan_capacity`.
    """
    planned, notes = safe_jobs(model, candidate)
    for job in planned:
        if job.act is not None and job.act.action_type != SERVICE:
            raise PlanError(
                f"the node_resource_consolidation planner does not know the action type {job.act.action_type!r}; "
                f"it knows {SERVICE}, migrate"
            )
    order = in_order(planned, _phase)
    disables: list[Job] = []
    last: dict[int, Job] = {}
    for job in order:
        phase = _phase(job)
        if phase == MIGRATE:
            before = [last[job.source]] if job.source in last else []
            # What the chain of a host waits for, the next of the chain waits for too.
            kept = [p for p in job.parents if p in job.room_of or _phase(p) != MIGRATE or p.source != job.source]
            job.parents = list(dict.fromkeys([*kept, *disables, *before]))
            last[job.source] = job
        elif phase == ENABLE:
            waited_for = {parent for move in last.values() for parent in move.parents}
            kept = [p for p in job.parents if _phase(p) != MIGRATE and p not in waited_for]
            job.parents = list(dict.fromkeys([*kept, *last.values()]))
        else:
            disables.append(job)
    return Plan(actions_of(model, order), notes)


def _phase(job: Job) -> int:
    if job.act is None:
        return MIGRATE
    return ENABLE if job.act.parameters.get("state") in {"enabled", "up"} else DISABLE
