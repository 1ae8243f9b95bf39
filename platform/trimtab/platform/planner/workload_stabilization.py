"""Watcher's workload stabilization planner: action types by weight, everything at once, and safe for capacity."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.platform.errors import PlanError
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner.capacity import actions_of, in_order, safe_jobs
from trimtab.platform.planner.jobs import Job
from trimtab.platform.proposal import Candidate, Limits, Plan

# Defaults of `[watcher_planners.workload_stabilization]`; the last three types have no weight there and stop the plan.
WEIGHTS: Mapping[str, int] = {
    "turn_host_to_acpi_s3_state": 0,
    "resize": 1,
    "migrate": 2,
    "sleep": 3,
    "change_nova_service_state": 4,
    "nop": 5,
    "change_node_power_state": -1,
    "stop": 6,
    "volume_migrate": 7,
}


def plan_workload_stabilization(
    model: ClusterModel,
    candidate: Candidate,
    limits: Limits,  # noqa: ARG001 - the contract of planners; the applier enforces them
    *,
    weights: Mapping[str, int] = WEIGHTS,
) -> Plan:
    """Order a candidate as `watcher.decision_engine.planner.workload_stabilization` does, with the edges safety needs.

    Types by weight, highest first, the candidate's order inside a type. Nothing waits for anything, except for what
    concerns the same instance or host before it in the candidate, and for room at a destination (see `plan_capacity`).

    Raises:
        PlanError: an action type has no weight; else as `plan_capacity`.
    """
    planned, notes = safe_jobs(model, candidate)
    for job in planned:
        if _type(job) not in weights:
            raise PlanError(
                f"the workload_stabilization planner does not know the action type {_type(job)!r}; "
                f"it knows {', '.join(sorted(weights))}"
            )
        job.parents = [parent for parent in job.parents if not _unrelated(parent, job)]
    return Plan(actions_of(model, in_order(planned, lambda job: -weights[_type(job)])), notes)


def _type(job: Job) -> str:
    return "migrate" if job.act is None else job.act.action_type


def _unrelated(early: Job, late: Job) -> bool:
    """Whether two acts concern no host and different things: only the chain of such acts holds them together."""
    if early.act is None or late.act is None or early.act.host >= 0 or late.act.host >= 0:
        return False
    return early.act.resource_id is None or early.act.resource_id != late.act.resource_id
