"""A plan that waits to be started, looked at again: which of its steps still hold, and a plan of it that does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from trimtab.platform import rules
from trimtab.platform.engine.admission import Move, kept_open, opens, questions, refusals, without
from trimtab.platform.engine.afterwards import goal_of, models_of, tried
from trimtab.platform.engine.exploration import Proposed, explanations
from trimtab.platform.engine.parts import Frozen, Parts
from trimtab.platform.errors import Conflict, TrimtabError
from trimtab.platform.model import ClusterModel, Placement
from trimtab.platform.model.compute import Bools
from trimtab.platform.outcome import NOTHING, plan_rows
from trimtab.platform.proposal import Act, Candidate, Migrate, Step
from trimtab.platform.records import Action, ActionPlan, Audit, CandidateRecord, Json
from trimtab.platform.states import PlanState
from trimtab.platform.trial import ProposeJob

WAITING = frozenset({PlanState.RECOMMENDED, PlanState.PENDING})
OF_INSTANCES = frozenset({"migrate", "resize", "stop"})


class Stale(NamedTuple):
    """Why a step does not hold any more, and the move in rows of the model, where something can still be done."""

    why: str
    move: Migrate | None = None
    destination_holds: bool = False  # only the instance is not where it was


class Checked(NamedTuple):
    """A plan that was looked at: its actions in order, reasons of those that do not hold by uuid, and its successor."""

    plan: ActionPlan
    actions: Sequence[Action]
    stale: Mapping[str, str]
    notes: Sequence[str] = ()
    successor: ActionPlan | None = None


async def check_plan(parts: Parts, plan_uuid: str, *, replan: bool = False) -> Checked:
    """Look at a plan that nobody has begun, with the cloud as it is now; with `replan` plan again what does not hold.

    The steps that hold stay as they are. A move that does not goes to another host, where one may hold its instance;
    what is done already or cannot be done is left out, and the new plan's notes say so. The plan becomes SUPERSEDED.

    Raises:
        NotFound: no such plan. Conflict: it is not waiting to be started, or nothing can be made of it.
        CloudUnavailable: the cloud cannot be read.
    """
    plan = await parts.store.get(ActionPlan, plan_uuid)
    if plan.state not in WAITING:
        raise Conflict(f"Action plan {plan_uuid} is {plan.state}: only a plan that waits to be started can be checked")
    actions = await parts.store.list(Action, {"action_plan_id": plan.id})
    audit = await parts.store.get(Audit, plan.audit_id, deleted=True)
    chosen = await parts.store.list(CandidateRecord, {"audit_id": audit.id, "number": plan.candidate})
    strategy = chosen[-1].strategy_name if chosen and plan.rolls_back is None else NOTHING
    await parts.refresh()
    models = ("compute", "baremetal") if strategy == NOTHING else models_of(parts, strategy)
    frozen = await parts.freeze(audit.scope if plan.rolls_back is None else [], [], [], models)
    model = frozen.snapshot.model
    stale = stale_steps(model, actions)
    notes: list[str] = []
    try:
        stale |= await _refused(parts, model, actions, stale)
    except TrimtabError as error:
        notes.append(f"the cloud was not asked whether it takes the moves: {error}")
    checked = Checked(plan, actions, {uuid: one.why for uuid, one in stale.items()}, notes)
    if not replan or not stale:
        return checked
    if plan.state != PlanState.RECOMMENDED:
        raise Conflict(f"Action plan {plan_uuid} is started already: cancel it, or wait for its end")
    if plan.rolls_back is not None:
        raise Conflict(f"Action plan {plan_uuid} undoes {plan.rolls_back}: cancel it and ask for a rollback again")
    steps, notes = mended(model, actions, stale)
    if not steps:
        raise Conflict(f"Nothing of action plan {plan_uuid} is left to do: {'; '.join(notes)}; run the audit again")
    successor = await _planned(parts, frozen, audit, plan, chosen[-1] if chosen else None, steps, notes)
    return checked._replace(successor=successor)


async def _planned(
    parts: Parts,
    frozen: Frozen,
    audit: Audit,
    plan: ActionPlan,
    chosen: CandidateRecord | None,
    steps: Sequence[Step],
    notes: Sequence[str],
) -> ActionPlan:
    goal = await goal_of(parts, audit)
    candidate = Candidate(tuple(steps), notes=tuple(notes))
    job = ProposeJob(NOTHING, {}, parts.seed)
    if chosen is not None:
        candidate = replace(
            candidate, because=chosen.because, planner=chosen.planner, indicators=dict(chosen.indicators)
        )
        job = ProposeJob(chosen.strategy_name, chosen.parameters, parts.seed)
    entry = await tried(parts, goal, frozen, Proposed(job, candidate, 0.0))
    if refused := await refusals(parts, frozen, entry):
        entry = await without(replace(parts, weigh=False), goal, frozen, entry, refused)
    if entry.tried.plan is None or entry.tried.reasons:
        raise Conflict(f"Action plan {plan.uuid} cannot be planned again: {'; '.join(entry.tried.reasons)}")
    row, made, indicators = plan_rows(goal, plan.strategy_id, [entry], 0)
    row = replace(row, candidate=plan.candidate)
    reasons = await explanations(parts, goal, frozen, entry, made)
    message = "Some of its steps did not hold any more; they were planned again"
    return await parts.store.save_plan(audit.uuid, row, made, indicators, reasons, supersedes=message)


def stale_steps(model: ClusterModel, actions: Sequence[Action]) -> dict[str, Stale]:
    """The actions, by uuid, that do not hold in a model: what they are about has changed, or has no room any more.

    Args:
        model: the cloud as it is.
        actions: of one plan, in an order in which every parent comes first.
    """
    stale: dict[str, Stale] = {}
    moves: list[tuple[Action, Migrate]] = []
    steps: list[Step] = []
    for action in actions:
        found, step = _understood(model, action)
        if found is not None:
            stale[action.uuid] = found
        elif isinstance(step, Migrate):
            moves.append((action, step))
        if found is None and step is not None:
            steps.append(step)
    order = [n for n, step in enumerate(steps) if isinstance(step, Migrate)]
    against = rules.objections(model, steps)
    for (action, move), position in zip(moves, order, strict=True):
        if position in against:
            stale[action.uuid] = Stale(against[position][0], move)
    placement = model.placement()
    anywhere = np.ones(model.hosts, bool)
    for action, move in moves:
        if action.uuid in stale or move.destination < 0:
            continue
        name, host = str(action.input_parameters["resource_id"]), model.host_name(move.destination)
        if not placement.fits(move.instance)[move.destination]:
            stale[action.uuid] = Stale(f"host {host} has no room for instance {name} any more", move)
        elif not rules.destinations(placement, move.instance, anywhere)[move.destination]:
            why = f"host {host} may not hold instance {name} because of its zone, its server group or a rule"
            stale[action.uuid] = Stale(why, move)
        else:
            placement.move(move.instance, move.destination)
    return stale


def _understood(model: ClusterModel, action: Action) -> tuple[Stale | None, Step | None]:
    """An action in rows of the model, or why there is none."""
    wanted, kind = action.input_parameters, action.action_type
    ident = str(wanted.get("resource_id"))
    row = int(model.instance_rows([ident])[0]) if kind in OF_INSTANCES else -1
    if kind in OF_INSTANCES and row < 0:
        return Stale(f"instance {ident} is gone, or not in the audit's scope any more"), None
    if kind != "migrate":
        return None, act_of(model, action)
    source, to = str(wanted["source_node"]), wanted.get("destination_node")
    here = int(model.host_of[row])
    if here < 0:
        return Stale(f"instance {ident} is on no host any more"), None
    at = model.host_name(here)
    if at == to:
        return Stale(f"instance {ident} is on {to} already"), None
    destination = -1 if to is None else int(model.host_rows_by_name([str(to)])[0])
    move = Migrate(row, destination, wanted["migration_type"] == "live")
    if to is not None and destination < 0:
        return Stale(f"host {to} is gone, or not in the audit's scope any more", move), None
    if at != source:
        return Stale(f"instance {ident} has moved from {source} to {at}", move, destination_holds=True), None
    return None, move


def act_of(model: ClusterModel, action: Action) -> Act:
    """Any other action than a move, as a step."""
    parameters: Json = dict(action.input_parameters)
    ident = parameters.pop("resource_id", None)
    host = int(model.host_rows_by_name([str(parameters.get("resource_name", ""))])[0])
    at = host if action.action_type == "change_nova_service_state" else -1
    return Act(action.action_type, None if ident is None else str(ident), parameters, at)


async def _refused(
    parts: Parts, model: ClusterModel, actions: Sequence[Action], stale: Mapping[str, Stale]
) -> dict[str, Stale]:
    """What the cloud has against the moves that hold."""
    moves = [
        Move(
            action.uuid,
            str(wanted["resource_id"]),
            str(wanted["source_node"]),
            str(wanted.get("destination_node") or ""),
            action.parents,
            bool(action.needs_room_of),
        )
        for action in actions
        if action.action_type == "migrate"
        for wanted in [action.input_parameters]
    ]
    opened = {opens(action.action_type, action.input_parameters) for action in actions}
    asked = {uuid: one for uuid, one in questions(moves, opened).items() if uuid not in stale}
    if not asked:
        return {}
    steps = {action.uuid: _understood(model, action)[1] for action in actions if action.uuid in asked}
    answers = zip(asked, await parts.refusals(list(asked.values())), strict=True)
    return {uuid: Stale(why, step) for uuid, why in answers if why and isinstance(step := steps[uuid], Migrate)}


def mended(model: ClusterModel, actions: Sequence[Action], stale: Mapping[str, Stale]) -> tuple[list[Step], list[str]]:
    """The steps of a plan, those that are stale with another destination where there is one, and what was changed.

    Of the hosts that may hold an instance, when all that holds is done, the one with the most room is chosen; hosts
    that the plan closes or takes instances from receive none. Who was moved by somebody else still goes where it was to
    go, if it may.
    """
    placement = model.placement()
    steps = {action.uuid: _understood(model, action)[1] for action in actions if action.uuid not in stale}
    for step in steps.values():
        if isinstance(step, Migrate) and step.destination >= 0:
            placement.move(step.instance, step.destination)
    opened = _opened(model, actions)
    left = model.host_rows_by_name([str(action.input_parameters.get("source_node")) for action in actions])
    receivers = opened.copy()
    receivers[left[left >= 0]] = False
    notes: list[str] = []
    staying: list[int] = []
    for action in actions:
        if action.uuid not in stale:
            continue
        one, name = stale[action.uuid], str(action.input_parameters.get("resource_id"))
        to = _elsewhere(model, one, opened, receivers, placement)
        if one.move is None or to < 0:
            notes.append(f"{action.action_type} of {name} is left out: {one.why}")
            staying += [one.move.instance] if one.move is not None else []
            continue
        placement.move(one.move.instance, to)
        steps[action.uuid] = one.move._replace(destination=to)
        notes.append(f"instance {name} goes to {model.host_name(to)}: {one.why}")
    left_over = [step for action in actions if (step := steps.get(action.uuid)) is not None]
    return kept_open(model, left_over, staying, notes), notes


def _opened(model: ClusterModel, actions: Sequence[Action]) -> Bools:
    """Hosts that take instances when the plan has opened and closed what it opens and closes, [H]."""
    opened = model.usable.copy()
    for action in actions:
        wanted = action.input_parameters
        if action.action_type == "change_nova_service_state":
            row = int(model.host_rows_by_name([str(wanted.get("resource_name"))])[0])
            if row >= 0:
                opened[row] = wanted["state"] == "enabled" and bool(model.up[row])
    return opened


def _elsewhere(model: ClusterModel, one: Stale, opened: Bools, receivers: Bools, placement: Placement) -> int:
    """The host for a move that does not hold; -1 when there is none, or the instance itself is not to be moved."""
    move = one.move
    if move is None or model.locked[move.instance] or model.excluded[move.instance]:
        return -1
    allowed = rules.destinations(placement, move.instance, opened)
    if move.destination >= 0 and one.destination_holds and allowed[move.destination]:
        return move.destination
    allowed &= receivers
    if move.destination >= 0:
        allowed[move.destination] = False
    if not allowed.any():
        return -1
    free = placement.free() / np.maximum(placement.capacity, 1e-9)
    return int(np.flatnonzero(allowed)[np.argmax(free.min(axis=0)[allowed])])
