"""Plans on request, after an audit: of a candidate that was not chosen, and one that undoes a plan that ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from trimtab.platform import rules
from trimtab.platform.contracts import Goal
from trimtab.platform.engine.admission import kept_open
from trimtab.platform.engine.exploration import Proposed, explanations, try_all
from trimtab.platform.engine.parts import Frozen, Parts
from trimtab.platform.errors import Conflict, InvalidInput, NotFound
from trimtab.platform.model import ClusterModel
from trimtab.platform.model.baremetal import POWER
from trimtab.platform.outcome import NOTHING, Entry, plan_rows
from trimtab.platform.proposal import Act, Candidate, Migrate, Step, steps_from_json
from trimtab.platform.records import Action, ActionPlan, Audit, CandidateRecord
from trimtab.platform.records import Goal as GoalRecord
from trimtab.platform.records import Strategy as StrategyRecord
from trimtab.platform.snapshot import Snapshot
from trimtab.platform.states import ActionState, AuditState, PlanState
from trimtab.platform.trial import ProposeJob

ENDED = frozenset({PlanState.SUCCEEDED, PlanState.FAILED, PlanState.CANCELLED})
OPPOSITE = {"enabled": "disabled", "disabled": "enabled", "on": "off", "off": "on"}
# What leaves nothing behind that could be undone.
TRACELESS = frozenset({"nop", "sleep"})


async def plan_candidate(parts: Parts, audit_uuid: str, number: int) -> ActionPlan:
    """Make a plan of a candidate of an audit as the cloud is now; the audit's plan nobody started is SUPERSEDED.

    Raises:
        NotFound: no such audit or candidate.
        Conflict: the audit is not over, the candidate was no proposal, or it does not hold any more; the message names
            the steps.
    """
    audit = await parts.store.get(Audit, audit_uuid)
    rows = await parts.store.list(CandidateRecord, {"audit_id": audit.id, "number": number})
    if not rows:
        raise NotFound(f"Audit {audit_uuid} has no candidate {number}")
    chosen = rows[0]
    if audit.state == AuditState.PENDING or (audit.state == AuditState.ONGOING and audit.audit_type != "CONTINUOUS"):
        raise Conflict(f"Audit {audit_uuid} is {audit.state}: wait for its end")
    if not chosen.steps:
        raise Conflict(f"Candidate {number} of audit {audit_uuid} has nothing to do: there is no plan to make of it")
    goal = await goal_of(parts, audit)
    strategy = await parts.store.get(StrategyRecord, chosen.strategy_name)
    await parts.refresh()
    frozen = await parts.freeze(audit.scope, [], [], models_of(parts, chosen.strategy_name))
    steps, gone = steps_from_json(frozen.snapshot.model, chosen.steps)
    if gone:
        raise Conflict(f"Candidate {number} does not hold any more: {'; '.join(gone)}; run the audit again")
    candidate = Candidate(tuple(steps), chosen.because, chosen.planner, dict(chosen.indicators))
    job = ProposeJob(chosen.strategy_name, chosen.parameters, parts.seed)
    entry = await tried(parts, goal, frozen, Proposed(job, candidate, 0.0))
    if entry.tried.plan is None or entry.tried.reasons:
        why = "; ".join(entry.tried.reasons)
        raise Conflict(f"Candidate {number} does not hold any more: {why}; run the audit again")
    plan, actions, indicators = plan_rows(goal, strategy.id, [entry], 0)
    plan = replace(plan, candidate=number)
    reasons = await explanations(parts, goal, frozen, entry, actions)
    message = f"Candidate {number} of its audit was planned instead"
    return await parts.store.save_plan(audit_uuid, plan, actions, indicators, reasons, supersedes=message)


async def plan_rollback(parts: Parts, plan_uuid: str) -> ActionPlan:
    """Make a plan that undoes what a plan did, the last first, as far as that can be done by now.

    Instances go back where they came from unless they have moved on since; services and metal nodes become what they
    were. What cannot be undone is listed in the new plan's notes.

    Raises:
        NotFound: no such plan. Conflict: it is not over, nothing is left that could be undone, or what is left
            breaks a rule; the message says why.
    """
    plan = await parts.store.get(ActionPlan, plan_uuid)
    if plan.state not in ENDED:
        raise Conflict(f"Action plan {plan_uuid} is {plan.state}: only a plan that is over can be undone")
    again = await parts.store.list(ActionPlan, {"rolls_back": plan_uuid})
    if waiting := [one for one in again if one.state not in ENDED and one.state != PlanState.SUPERSEDED]:
        raise Conflict(f"Action plan {waiting[0].uuid} undoes {plan_uuid} already; it is {waiting[0].state}")
    audit = await parts.store.get(Audit, plan.audit_id, deleted=True)
    goal = await goal_of(parts, audit)
    actions = await parts.store.list(Action, {"action_plan_id": plan.id})
    await parts.refresh()
    frozen = await parts.freeze([], [], [], ("compute", "baremetal"))
    steps, notes = way_back(frozen.snapshot, actions)
    steps = doable(frozen.snapshot.model, steps, notes)
    if not steps:
        why = "; ".join(notes) or "it has done nothing"
        raise Conflict(f"Nothing of action plan {plan_uuid} is left to undo: {why}")
    because = f"undoes action plan {plan_uuid}"
    candidate = Candidate(tuple(steps), because=because, notes=tuple(notes))
    entry = await tried(parts, goal, frozen, Proposed(ProposeJob(NOTHING, {}, parts.seed), candidate, 0.0))
    if entry.tried.plan is None or entry.tried.reasons:
        raise Conflict(f"Action plan {plan_uuid} cannot be undone now: {'; '.join(entry.tried.reasons)}")
    row, made, indicators = plan_rows(goal, plan.strategy_id, [entry], 0)
    row = replace(row, candidate=-1, rolls_back=plan_uuid, global_efficacy=[])  # it serves no goal
    reasons = await explanations(parts, goal, frozen, entry, made)
    return await parts.store.save_plan(audit.uuid, row, made, indicators, reasons)


def way_back(snapshot: Snapshot, actions: Sequence[Action]) -> tuple[list[Step], list[str]]:
    """Steps that undo what SUCCEEDED, the last first, services that were disabled before all else; and what is left.

    Of several actions on one thing only the first counts: it tells how the thing was.
    """
    done = [action for action in actions if action.state == ActionState.SUCCEEDED]
    done.sort(key=lambda action: (action.started_at is not None, action.started_at or action.created_at, action.id))
    steps: list[Step] = []
    enabling: list[Step] = []
    notes: list[str] = []
    seen: set[tuple[str, str]] = set()
    back: list[tuple[Action, Action]] = []  # the first action on each thing, and the last
    last: dict[tuple[str, str], Action] = {}
    for action in done:
        last[_thing(action)] = action
    for action in done:
        if action.action_type in TRACELESS or _thing(action) in seen:
            continue
        seen.add(_thing(action))
        back.append((action, last[_thing(action)]))
    for first, final in reversed(back):
        step = _undone(snapshot, first, final, notes)
        if step is None:
            continue
        disabled = first.action_type == "change_nova_service_state" and first.input_parameters["state"] == "disabled"
        (enabling if disabled else steps).append(step)
    return [*enabling, *steps], notes


def doable(model: ClusterModel, steps: Sequence[Step], notes: list[str]) -> list[Step]:
    """The steps without moves that nothing makes possible: who may not be moved, or has no room there; noted, each.

    No host is disabled that such an instance stays on.
    """
    against = rules.objections(model, steps)
    notes += [f"instance {_name(model, steps[n])} stays: {why[0]}" for n, why in against.items()]
    stay = [step for n, step in enumerate(steps) if n in against]
    kept = [step for n, step in enumerate(steps) if n not in against]
    while True:
        place = model.host_of.copy()
        for step in kept:
            if isinstance(step, Migrate):
                place[step.instance] = step.destination
        full = rules.crowded(model, place)
        late = next((step for step in reversed(kept) if isinstance(step, Migrate) and full[step.destination]), None)
        if late is None:
            break
        kept.remove(late)
        stay.append(late)
        notes.append(f"instance {_name(model, late)} stays: {model.host_name(late.destination)} has no room for it")
    return kept_open(model, kept, [step.instance for step in stay if isinstance(step, Migrate)], notes)


def _name(model: ClusterModel, step: Step) -> str:
    return model.instance_id(step.instance) if isinstance(step, Migrate) else ""


def _thing(action: Action) -> tuple[str, str]:
    wanted = action.input_parameters
    name = wanted.get("resource_name") if action.action_type == "change_nova_service_state" else None
    return action.action_type, str(name or wanted.get("resource_id"))


def _undone(snapshot: Snapshot, first: Action, final: Action, notes: list[str]) -> Step | None:
    model, wanted, kind = snapshot.model, first.input_parameters, first.action_type
    if kind == "migrate":
        instance = str(wanted["resource_id"])
        row = int(model.instance_rows([instance])[0])
        home = int(model.host_rows_by_name([str(wanted["source_node"])])[0])
        if row < 0:
            notes.append(f"instance {instance} is gone")
        elif home < 0:
            notes.append(f"instance {instance} stays: host {wanted['source_node']} is gone")
        elif model.host_of[row] == home:
            notes.append(f"instance {instance} is back on {wanted['source_node']} already")
        elif (there := final.input_parameters.get("destination_node")) and _host(model, row) != there:
            notes.append(f"instance {instance} stays: it has moved on to {_host(model, row) or 'no host'} since")
        else:
            return Migrate(row, home, wanted["migration_type"] == "live")
        return None
    before = OPPOSITE.get(str(wanted.get("state")))
    if kind in ("change_nova_service_state", "change_node_power_state") and before is not None:
        host = int(model.host_rows_by_name([str(wanted.get("resource_name"))])[0])
        if before == _state(snapshot, kind, wanted, host):
            notes.append(f"{wanted.get('resource_name') or wanted['resource_id']} is {before} already")
            return None
        parameters = {name: value for name, value in wanted.items() if name not in ("resource_id", "disabled_reason")}
        parameters["state"] = before
        if before == "disabled":
            parameters["disabled_reason"] = "watcher_disabled"
        return Act(kind, str(wanted["resource_id"]), parameters, host if kind == "change_nova_service_state" else -1)
    notes.append(f"{kind} of {wanted.get('resource_id')} cannot be undone by a plan")
    return None


def _state(snapshot: Snapshot, kind: str, wanted: Mapping[str, Any], host: int) -> str:
    """What a service or a metal node is now; "" when nobody knows."""
    if kind == "change_nova_service_state":
        return "" if host < 0 else ("enabled" if snapshot.model.enabled[host] else "disabled")
    metal = snapshot.baremetal
    rows = (
        [] if metal is None else [row for row, one in enumerate(metal.ids.to_pylist()) if one == wanted["resource_id"]]
    )
    return POWER[int(metal.power[rows[0]])] if metal is not None and rows else ""


def _host(model: ClusterModel, instance: int) -> str:
    host = int(model.host_of[instance])
    return model.host_name(host) if host >= 0 else ""


async def goal_of(parts: Parts, audit: Audit) -> Goal:
    """The goal of an audit.

    Raises:
        InvalidInput: it is not installed any more.
    """
    row = await parts.store.get(GoalRecord, audit.goal_id, deleted=True)
    if row.name not in parts.plugins.goals:
        raise InvalidInput(f"goal {row.name} is not installed any more; install it")
    return parts.plugins.goals[row.name]


def models_of(parts: Parts, strategy: str) -> tuple[str, ...]:
    """The models a strategy works on.

    Raises:
        Conflict: it is not installed any more.
    """
    if strategy not in parts.plugins.strategies:
        raise Conflict(f"strategy {strategy} is not installed any more; install it")
    return parts.plugins.strategy(strategy).models


async def tried(parts: Parts, goal: Goal, frozen: Frozen, proposed: Proposed) -> Entry:
    """Judged, planned and rehearsed as it is: somebody asked for it, so nothing is left out as not worth it."""
    parts = replace(parts, weigh=False)
    entries = await try_all(parts, goal, frozen, [proposed])
    entry = entries[-1]
    if entry.error is not None:
        raise Conflict(f"It could not be tried: {entry.error}")
    return entry
