"""Watcher's weight planner: action types in layers, heaviest first, a fixed number of actions side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trimtab.platform.errors import PlanError
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner.wire import act_parameters, check_act, check_move, migrate_parameters, understood
from trimtab.platform.proposal import Act, Candidate, Limits, Migrate, Plan, PlannedAction

# Defaults of `[watcher_planners.weight]`: the heavier type goes first, so many of a type side by side.
WEIGHTS: Mapping[str, int] = {
    "nop": 70,
    "volume_migrate": 60,
    "change_nova_service_state": 50,
    "sleep": 40,
    "stop": 35,
    "migrate": 30,
    "resize": 20,
    "turn_host_to_acpi_s3_state": 10,
    "change_node_power_state": 9,
}
PARALLELIZATION: Mapping[str, int] = {
    "nop": 1,
    "volume_migrate": 2,
    "change_nova_service_state": 1,
    "sleep": 1,
    "stop": 2,
    "migrate": 2,
    "resize": 2,
    "turn_host_to_acpi_s3_state": 2,
    "change_node_power_state": 2,
}


def plan_weight(
    model: ClusterModel,
    candidate: Candidate,
    limits: Limits,  # noqa: ARG001 - the contract of planners; the applier enforces them
    *,
    weights: Mapping[str, int] = WEIGHTS,
    parallelization: Mapping[str, int] = PARALLELIZATION,
) -> Plan:
    """Order a candidate as `watcher.decision_engine.planner.weight.WeightPlanner` does.

    Types by weight, highest first; the candidate's order inside a type; cut into chunks of the type's
    parallelization (at least 1); every action of a chunk waits for all actions of the chunk before it. Exactly equal
    actions are planned once, as Watcher's solution does. Knows nothing of capacity.

    Raises:
        PlanError: an action type has no weight, or a move names no row of the model.
    """
    by_type: dict[str, list[PlannedAction]] = {}
    seen: set[str] = set()
    place: dict[int, int] = {}
    for given, step in zip(candidate.steps, understood(model, candidate.steps), strict=True):
        if isinstance(step, Migrate):
            check_move(model, step)
            source = place.get(step.instance, int(model.host_of[step.instance]))
            if source < 0:
                raise PlanError(
                    f"instance {model.instance_id(step.instance)} is moved again after the cloud chose its host; "
                    "name the first destination or leave the second move out"
                )
            action = PlannedAction(
                "migrate",
                act_parameters(given)
                if isinstance(given, Act)
                else migrate_parameters(model, step.instance, source, step.destination, step.live),
                instance=step.instance,
                source=source,
                destination=step.destination,
                live=step.live,
            )
            place[step.instance] = step.destination
        else:
            check_act(model, step)
            action = PlannedAction(step.action_type, act_parameters(step), host=step.host)
        if action.action_type not in weights:
            raise PlanError(
                f"the weight planner does not know the action type {action.action_type!r}; "
                f"it knows {', '.join(sorted(weights))}"
            )
        same = repr((action.action_type, sorted(action.parameters.items())))
        if same not in seen:
            seen.add(same)
            by_type.setdefault(action.action_type, []).append(action)

    planned: list[PlannedAction] = []
    before: tuple[int, ...] = ()
    for kind in sorted(by_type, key=lambda name: (-weights[name], name)):
        width = max(1, parallelization.get(kind, 1))
        for start in range(0, len(by_type[kind]), width):
            first = len(planned)
            planned += [replace(action, parents=before) for action in by_type[kind][start : start + width]]
            before = tuple(range(first, len(planned)))
    return Plan(tuple(planned), candidate.notes)
