"""Watcher's versioned notifications, made of what the store says has happened.

Every change of a record writes an event in its own transaction; one event becomes one or two notifications here. Names,
versions and fields are those of Watcher's notification objects, as their consumers know them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from trimtab.platform.records import Action, ActionPlan, Audit, Event, Goal, Json, Service, Strategy
from trimtab.platform.states import ActionState, PlanState

PRIORITIES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
CREATED, UPDATED = "create", "update"  # events that are no edge of a state machine
PHASES = frozenset({"start", "end", "error"})


class Notification(NamedTuple):
    """One message for the bus."""

    event_type: str
    priority: str
    payload: Json


@dataclass(frozen=True, slots=True)
class Related:
    """Records that payloads speak of, deleted ones too: by uuid those that events name, by id those they point at."""

    audits: Mapping[str, Audit] = field(default_factory=dict)
    plans: Mapping[str, ActionPlan] = field(default_factory=dict)
    actions: Mapping[str, Action] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    audits_by_id: Mapping[int, Audit] = field(default_factory=dict)
    plans_by_id: Mapping[int, ActionPlan] = field(default_factory=dict)
    goals: Mapping[int, Goal] = field(default_factory=dict)
    strategies: Mapping[int, Strategy] = field(default_factory=dict)


def loud_enough(notification: Notification, level: str) -> bool:
    """Whether a notification is at least of this level; the empty level lets nothing through."""
    return bool(level) and PRIORITIES.index(notification.priority) >= PRIORITIES.index(level.upper())


def notifications(event: Event, related: Related) -> list[Notification]:
    """What is to be told of one event, in order; nothing where its record has been purged."""
    match event.record_kind:
        case "audit" if (audit := related.audits.get(event.record_uuid)) is not None:
            return list(_of_audit(event, _as_it_was(audit, event), related))
        case "action_plan" if (plan := related.plans.get(event.record_uuid)) is not None:
            return list(_of_plan(event, _as_it_was(plan, event), related))
        case "action" if (action := related.actions.get(event.record_uuid)) is not None:
            return list(_of_action(event, _as_it_was(action, event), related))
        case "service" if (service := related.services.get(event.record_uuid)) is not None:
            return list(_of_service(event, service))
        case _:
            return []


def _as_it_was(record: Any, event: Event) -> Any:
    """A record at the moment of the event, as far as the event tells."""
    told: dict[str, Any] = {} if event.event == CREATED else {"updated_at": event.created_at}
    if event.new_state is not None:
        told["state"] = event.new_state
        if event.new_state != "DELETED":
            told["deleted_at"] = None
    if event.message is not None:
        told["status_message"] = event.message
    return replace(record, **told)


def _of_audit(event: Event, audit: Audit, related: Related) -> Iterator[Notification]:
    def payload(name: str, **more: Any) -> Json:
        goal, strategy = related.goals.get(audit.goal_id), related.strategies.get(audit.strategy_id or 0)
        data = {
            **_terse_audit(audit, related),
            "goal": None if goal is None else _goal(goal),
            "strategy": None if strategy is None else _strategy(strategy),
        }
        return _object(name, "1.2", {**data, **more})

    kind, _, phase = event.event.partition(".")
    if event.event == CREATED:
        yield Notification("audit.create", "INFO", payload("AuditCreatePayload"))
    elif kind in {"strategy", "planner"} and phase in PHASES:
        yield _told(f"audit.{event.event}", payload("AuditActionPayload", fault=_fault(event)))
    else:
        yield Notification(
            "audit.update", "INFO", payload("AuditUpdatePayload", state_update=_state_update("Audit", event))
        )
        if event.event == "delete":
            yield Notification("audit.delete", "INFO", payload("AuditDeletePayload"))


def _of_plan(event: Event, plan: ActionPlan, related: Related) -> Iterator[Notification]:
    def payload(name: str, **more: Any) -> Json:
        audit, strategy = related.audits_by_id.get(plan.audit_id), related.strategies.get(plan.strategy_id)
        # Without its strategy, as Watcher has it there.
        terse = None if audit is None else {**_terse_audit(audit, related), "strategy_uuid": None}
        data = {
            **_terse_plan(plan, related),
            "audit": None if terse is None else _object("TerseAuditPayload", "1.3", terse),
            "strategy": None if strategy is None else _strategy(strategy),
        }
        return _object(name, "1.2", {**data, **more})

    if event.event == CREATED:
        yield Notification("action_plan.create", "INFO", payload("ActionPlanCreatePayload"))
        return
    state_update = _state_update("ActionPlan", event)
    yield Notification("action_plan.update", "INFO", payload("ActionPlanUpdatePayload", state_update=state_update))
    cancelling = event.old_state == PlanState.CANCELLING
    match event.event:
        case "delete":
            yield Notification("action_plan.delete", "INFO", payload("ActionPlanDeletePayload"))
        case "run" | "launch":
            yield _told("action_plan.execution.start", payload("ActionPlanActionPayload", fault=None))
        case "succeed":
            yield _told("action_plan.execution.end", payload("ActionPlanActionPayload", fault=None))
        case "fail" if not cancelling:
            yield _told("action_plan.execution.error", payload("ActionPlanActionPayload", fault=_fault(event)))
        case "fail":
            yield _told("action_plan.cancel.error", payload("ActionPlanCancelPayload", fault=_fault(event)))
        case "cancel" if event.new_state == PlanState.CANCELLING:
            yield _told("action_plan.cancel.start", payload("ActionPlanCancelPayload", fault=None))
        case "stopped":
            yield _told("action_plan.cancel.end", payload("ActionPlanCancelPayload", fault=None))
        case _:
            pass


def _of_action(event: Event, action: Action, related: Related) -> Iterator[Notification]:
    def payload(name: str, of: Action = action, **more: Any) -> Json:
        plan = related.plans_by_id.get(of.action_plan_id)
        data = {
            "uuid": of.uuid,
            "action_type": of.action_type,
            "input_parameters": of.input_parameters,
            "state": of.state,
            "parents": list(of.parents),
            "status_message": of.status_message,
            **_times(of),
            "action_plan": None
            if plan is None
            else _object("TerseActionPlanPayload", "1.2", _terse_plan(plan, related)),
        }
        return _object(name, "1.1", {**data, **more})

    if event.event == CREATED:
        yield Notification("action.create", "INFO", payload("ActionCreatePayload"))
        return
    if event.event == "begin":  # Watcher tells of the start before it writes the new state
        pending = replace(action, state=ActionState.PENDING)
        yield _told("action.execution.start", payload("ActionExecutionPayload", pending, fault=None))
    state_update = _state_update("Action", event)
    yield Notification("action.update", "INFO", payload("ActionUpdatePayload", state_update=state_update))
    cancelling = event.old_state == ActionState.CANCELLING
    match event.event:
        case "delete":
            yield Notification("action.delete", "INFO", payload("ActionDeletePayload"))
        case "succeed" if not cancelling:
            yield _told("action.execution.end", payload("ActionExecutionPayload", fault=None))
        case "fail" | "refuse" if not cancelling:
            yield _told("action.execution.error", payload("ActionExecutionPayload", fault=_fault(event)))
        case "cancel" if event.new_state == ActionState.CANCELLING:
            yield _told("action.cancel.start", payload("ActionCancelPayload", fault=None))
        case "stopped" | "succeed":
            yield _told("action.cancel.end", payload("ActionCancelPayload", fault=None))
        case "fail":
            yield _told("action.cancel.error", payload("ActionCancelPayload", fault=_fault(event)))
        case _:
            pass


def _of_service(event: Event, service: Service) -> Iterator[Notification]:
    if event.new_state is None:
        return  # a heartbeat
    update = {"old_state": event.old_state, "state": event.new_state}
    data = {
        "sevice_host": service.host,  # misspelled by Watcher, and read so by its consumers
        "name": service.name,
        "last_seen_up": _time(service.last_seen_up),
        "status_update": _object("ServiceStatusUpdatePayload", "1.0", update),
    }
    priority = "WARNING" if event.new_state == "FAILED" else "INFO"
    yield Notification("service.update", priority, _object("ServiceUpdatePayload", "1.0", data))


def _told(event_type: str, payload: Json) -> Notification:
    return Notification(event_type, "ERROR" if event_type.endswith(".error") else "INFO", payload)


def _object(name: str, version: str, data: Json) -> Json:
    """The primitive of an oslo versioned object."""
    return {
        "watcher_object.name": name,
        "watcher_object.version": version,
        "watcher_object.namespace": "watcher",
        "watcher_object.data": data,
    }


def _terse_audit(audit: Audit, related: Related) -> Json:
    goal, strategy = related.goals.get(audit.goal_id), related.strategies.get(audit.strategy_id or 0)
    return {
        "uuid": audit.uuid,
        "name": audit.name,
        "audit_type": audit.audit_type,
        "state": audit.state,
        "parameters": audit.parameters,
        "interval": audit.interval,
        "scope": audit.scope,
        "goal_uuid": None if goal is None else goal.uuid,
        "strategy_uuid": None if strategy is None else strategy.uuid,
        "auto_trigger": audit.auto_trigger,
        "next_run_time": _time(audit.next_run_time),
        "status_message": audit.status_message,
        **_times(audit),
    }


def _terse_plan(plan: ActionPlan, related: Related) -> Json:
    audit, strategy = related.audits_by_id.get(plan.audit_id), related.strategies.get(plan.strategy_id)
    return {
        "uuid": plan.uuid,
        "state": plan.state,
        "global_efficacy": plan.global_efficacy,
        "audit_uuid": None if audit is None else audit.uuid,
        "strategy_uuid": None if strategy is None else strategy.uuid,
        "status_message": plan.status_message,
        **_times(plan),
    }


def _goal(goal: Goal) -> Json:
    data = {
        "uuid": goal.uuid,
        "name": goal.name,
        "display_name": goal.display_name,
        "efficacy_specification": goal.efficacy_specification,
        **_times(goal),
    }
    return _object("GoalPayload", "1.0", data)


def _strategy(strategy: Strategy) -> Json:
    data = {
        "uuid": strategy.uuid,
        "name": strategy.name,
        "display_name": strategy.display_name,
        "parameters_spec": strategy.parameters_spec,
        **_times(strategy),
    }
    return _object("StrategyPayload", "1.0", data)


def _state_update(kind: str, event: Event) -> Json:
    """All null where the state stayed."""
    changed = event.new_state is not None and event.new_state != event.old_state
    data = {
        "old_state": event.old_state if changed else None,
        "state": event.new_state if changed else None,
        "status_message": event.message if changed else None,
    }
    return _object(f"{kind}StateUpdatePayload", "1.1", data)


def _fault(event: Event) -> Json | None:
    """What went wrong; modules and functions are the program's own affair and stay empty."""
    if event.message is None:
        return None
    data = {"module_name": "", "function_name": "", "exception": "", "exception_message": event.message}
    return _object("ExceptionPayload", "1.0", data)


def _times(record: Audit | ActionPlan | Action | Goal | Strategy) -> Json:
    return {name: _time(getattr(record, name)) for name in ("created_at", "updated_at", "deleted_at")}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def mentioned(events: Sequence[Event]) -> Mapping[str, set[str]]:
    """The uuids that events name, by kind of record: what has to be read before `notifications`."""
    found: dict[str, set[str]] = {}
    for event in events:
        found.setdefault(event.record_kind, set()).add(event.record_uuid)
    return found
