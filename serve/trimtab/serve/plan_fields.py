"""What patches of plans and actions may do: start, cancel and skip, in Watcher's words; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trimtab.platform.errors import Conflict, InvalidInput
from trimtab.platform.records import Action, ActionPlan
from trimtab.platform.states import ActionState, PlanState
from trimtab.serve import patching
from trimtab.serve.faults import refused
from trimtab.serve.patching import Operation

# What a client may ask of a plan: (state, wanted) and the event that brings it about.
OFFERED: Mapping[tuple[str, str], str] = {
    (PlanState.RECOMMENDED, PlanState.PENDING): "start",
    (PlanState.RECOMMENDED, PlanState.CANCELLED): "cancel",
    (PlanState.PENDING, PlanState.CANCELLED): "cancel",
    (PlanState.ONGOING, PlanState.CANCELLING): "cancel",
}
PATCHABLE = ("state", "audit_id", "strategy_id", "global_efficacy", "hostname")
IGNORED = ("audit", "strategy", "efficacy_indicators")
SKIPPED = "Action skipped by user."


class PlanChange(NamedTuple):
    """An event of the plan's state machine, and new values of fields."""

    event: str
    fields: dict[str, Any]


def patched_plan(plan: ActionPlan, operations: Sequence[Operation]) -> PlanChange:
    """The change that a patch asks for; there is always an event. Ids are as they were given: unchecked.

    Raises:
        InvalidInput: it does not start or cancel the plan, or Watcher would not do it.
    """
    _check_names(operations, PlanState)
    known = {name: getattr(plan, name) for name in PATCHABLE}
    whole = patching.apply({**known, **dict.fromkeys(IGNORED)}, operations, forbidden={"/status_message"})
    event = OFFERED.get((plan.state, whole["state"])) if isinstance(whole["state"], str) else None
    if event is None:
        raise not_allowed(plan.state, whole["state"], operations)
    changes = {name: whole[name] for name in PATCHABLE if name != "state" and whole[name] != known[name]}
    if "global_efficacy" in changes:
        changes["global_efficacy"] = changes["global_efficacy"] or []
    for name, kind in (("hostname", str), ("global_efficacy", list)):
        value = changes.get(name)
        if value is not None and not isinstance(value, kind):
            raise refused(name, value, f"Wrong type. Expected '{kind}', got '{type(value)}'")
    return PlanChange(event, changes)


def not_allowed(state: str, wanted: Any, operations: Sequence[Operation]) -> InvalidInput:
    """The error for a state that cannot follow."""
    return patching.not_applied(operations, f"State transition not allowed: ({state} -> {wanted})")


class ActionChange(NamedTuple):
    """Whether an action is to be skipped, and its message afterwards; None leaves the message as it is."""

    skip: bool
    message: str | None


def patched_action(action: Action, plan_state: str, operations: Sequence[Operation]) -> ActionChange:
    """The change that a patch asks for.

    Any patch of a waiting or skipped action that gives no other reason resets its message, as in Watcher; what became
    of an action that ran stays as it was written.

    Raises:
        InvalidInput: the patch is not permitted. Conflict: not in this state of the action or its plan.
    """
    attributes = ("/state", "/status_message")
    known = {"state": action.state, "status_message": action.status_message}
    for operation in operations:
        patching.check(operation, allowed=attributes, mandatory=attributes)
    _check_names(operations, ActionState)
    whole = patching.apply(known, operations, allowed=attributes, mandatory=attributes)
    state, reason = whole["state"], whole["status_message"]
    if reason is not None and not isinstance(reason, str):
        raise refused("status_message", reason, f"Wrong type. Expected '<class 'str'>', got '{type(reason)}'")
    moved, told = state != action.state, reason != action.status_message
    if moved and (action.state, state) != (ActionState.PENDING, ActionState.SKIPPED):
        raise Conflict(f"State transition not allowed: ({action.state} -> {state})")
    if moved and plan_state not in {PlanState.RECOMMENDED, PlanState.PENDING}:
        raise Conflict(f"State update not allowed for actionplan state: {plan_state}")
    if told and not moved and action.state != ActionState.SKIPPED:
        raise Conflict("status_message update only allowed when action state is SKIPPED")
    if not moved and action.state not in {ActionState.PENDING, ActionState.SKIPPED}:
        return ActionChange(False, None)
    return ActionChange(moved, f"{SKIPPED} Reason: {reason}" if told and reason else SKIPPED)


def _check_names(operations: Sequence[Operation], states: type[PlanState] | type[ActionState]) -> None:
    for operation in operations:
        if operation.path == "/state" and operation.value and operation.value not in list(states):
            raise patching.not_applied([operation], f"Invalid state: {operation.value}")
