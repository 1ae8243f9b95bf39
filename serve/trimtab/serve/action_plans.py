"""/v1/action_plans and /v1/actions: what an audit recommends, its start, its course, its effect."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from trimtab.platform.errors import IllegalTransition, InvalidInput
from trimtab.platform.records import Action, ActionPlan, Audit, CandidateRecord, Explanation, Strategy
from trimtab.platform.states import PLAN, ActionState, PlanState
from trimtab.serve.resources import (
    Asked,
    Base,
    Page,
    PatchOperation,
    Wired,
    both,
    by_uuid,
    filter_by,
    listing,
    only_state,
    page_size,
    show,
    typed_uuid,
)
from trimtab.serve.wire import ACTION_PLANS, ACTIONS, Body

router = APIRouter(prefix="/v1", tags=["action plans"])


class PlanPage(Page):
    """Filters of the list of plans."""

    audit_uuid: str | None = None
    strategy: str | None = None


class ReasonPage(BaseModel):
    """Paging of an explanation, and one action of it."""

    model_config = ConfigDict(extra="forbid")

    limit: int | None = None
    marker: str | None = None
    action: str | None = None


class ActionPage(Page):
    """Filters of the list of actions."""

    action_plan_uuid: str | None = None
    audit_uuid: str | None = None


class Nothing(BaseModel):
    """An empty JSON object."""

    model_config = ConfigDict(extra="forbid")


Plans = Annotated[PlanPage, Query()]
Acts = Annotated[ActionPage, Query()]


async def _plans(wired: Wired, page: PlanPage) -> dict[str, Any] | None:
    return both(
        await filter_by(wired.store, "audit_id", Audit, typed_uuid("audit_uuid", page.audit_uuid)),
        await filter_by(wired.store, "strategy_id", Strategy, page.strategy),
    )


@router.get("/action_plans")
async def list_plans(wired: Wired, page: Plans, base: Base, asked: Asked) -> Body:
    """Action plans, one page."""
    return await listing(wired, ACTION_PLANS, page, await _plans(wired, page), base, asked, detail=False)


@router.get("/action_plans/detail")
async def list_plans_in_detail(wired: Wired, page: Plans, base: Base, asked: Asked) -> Body:
    """Action plans with all fields, one page."""
    return await listing(wired, ACTION_PLANS, page, await _plans(wired, page), base, asked, detail=True)


@router.get("/action_plans/{ident}")
async def show_plan(ident: str, wired: Wired, base: Base, asked: Asked) -> Body:
    """One action plan by uuid."""
    return await show(wired, ACTION_PLANS, await by_uuid(wired.store, ActionPlan, ident), base, asked)


@router.get("/action_plans/{ident}/effect")
async def show_effect(ident: str, wired: Wired) -> Body:
    """Rehearsed and measured score of a plan; measured is empty until the horizon has passed."""
    plan = await by_uuid(wired.store, ActionPlan, ident)
    return {"uuid": plan.uuid, "state": plan.state, "rehearsed": plan.rehearsed, "measured": plan.measured}


@router.get("/action_plans/{ident}/explanation")
async def show_explanation(ident: str, wired: Wired, base: Base, page: Annotated[ReasonPage, Query()]) -> Body:
    """Why each action is in the plan, in the plan's order: what it improves, what else was possible, what needs it."""
    plan = await by_uuid(wired.store, ActionPlan, ident)
    limit = page_size(Page(limit=page.limit), wired.settings.max_limit)
    where: dict[str, Any] = {"action_plan_id": plan.id}
    if (action := typed_uuid("action", page.action)) is not None:
        where["uuid"] = (await wired.store.get(Action, action)).uuid
    rows = await wired.store.list(Explanation, where, limit=limit, marker=typed_uuid("marker", page.marker))
    chosen = await wired.store.list(CandidateRecord, {"audit_id": plan.audit_id, "number": plan.candidate})
    answer: Body = {
        "uuid": plan.uuid,
        "because": chosen[-1].because if chosen else "",
        "explanation": [{"action_uuid": row.uuid, **row.reason} for row in rows],
    }
    if rows and len(rows) == limit:
        query = urlencode({"limit": limit, "marker": rows[-1].uuid})
        answer["next"] = f"{base}/v1/action_plans/{plan.uuid}/explanation?{query}"
    return answer


@router.get("/action_plans/{ident}/progress")
async def show_progress(ident: str, wired: Wired) -> Body:
    """How far a plan is: its state, and how many of its actions are in which state. Cheap enough to be asked often."""
    plan = await by_uuid(wired.store, ActionPlan, ident)
    counts = {
        str(state): await wired.store.count(Action, {"action_plan_id": plan.id, "state": str(state)})
        for state in ActionState
        if state != ActionState.DELETED
    }
    return {
        "uuid": plan.uuid,
        "state": plan.state,
        "status_message": plan.status_message,
        "actions": {state: count for state, count in counts.items() if count},
    }


@router.get("/action_plans/{ident}/timeline")
async def show_timeline(ident: str, wired: Wired) -> Body:
    """When each action of a plan began and ended (wall time), in order of their beginning."""
    plan = await by_uuid(wired.store, ActionPlan, ident)
    actions = await wired.store.list(Action, {"action_plan_id": plan.id})
    rows = [
        {
            "uuid": action.uuid,
            "action_type": action.action_type,
            "state": action.state,
            "started_at": action.started_at.isoformat() if action.started_at else None,
            "finished_at": action.finished_at.isoformat() if action.finished_at else None,
        }
        for action in actions
    ]
    return {"actions": sorted(rows, key=lambda row: row["started_at"] or "~")}


@router.post("/action_plans/{ident}/start")
async def start_plan(ident: str, wired: Wired, base: Base, asked: Asked, body: Nothing | None = None) -> Body:
    """Start a recommended plan: it becomes PENDING and an applier takes it."""
    del body
    plan = await by_uuid(wired.store, ActionPlan, ident)
    return await show(wired, ACTION_PLANS, await _start(wired, plan), base, asked)


async def _start(wired: Wired, plan: ActionPlan) -> ActionPlan:
    try:
        started = await wired.store.transition(ActionPlan, plan.uuid, "start")
    except IllegalTransition as error:
        raise InvalidInput(f"Couldn't start when state is '{plan.state}'.") from error
    await wired.plan_started(plan.uuid)
    return started


@router.patch("/action_plans/{ident}")
async def patch_plan(ident: str, body: list[PatchOperation], wired: Wired, base: Base, asked: Asked) -> Body:
    """Start (PENDING) or cancel (CANCELLED, CANCELLING) a plan."""
    plan = await by_uuid(wired.store, ActionPlan, ident)
    target = only_state(body)
    if target not in PlanState.__members__:
        raise InvalidInput(f"Invalid state: {target}")
    try:
        event = PLAN.event_to(plan.state, target)
    except IllegalTransition as error:
        raise InvalidInput(str(error)) from error
    if event == "start":
        return await show(wired, ACTION_PLANS, await _start(wired, plan), base, asked)
    if event != "cancel":
        raise InvalidInput(f"State transition not allowed: ({plan.state} -> {target})")
    changed = await wired.store.transition(ActionPlan, plan.uuid, "cancel")  # its waiting actions go with it
    return await show(wired, ACTION_PLANS, changed, base, asked)


@router.delete("/action_plans/{ident}", status_code=204)
async def delete_plan(ident: str, wired: Wired) -> None:
    """Soft-delete a plan that is not at work, with its actions and indicators."""
    plan = await by_uuid(wired.store, ActionPlan, ident)
    try:
        await wired.store.delete(ActionPlan, plan.uuid)
    except IllegalTransition as error:
        raise InvalidInput(f"Couldn't delete when state is '{plan.state}'.") from error


async def _actions(wired: Wired, page: ActionPage) -> dict[str, Any] | None:
    if page.action_plan_uuid and page.audit_uuid:
        raise InvalidInput("Filtering actions on both audit and action-plan is prohibited")
    if page.audit_uuid:
        audit = await wired.store.find(Audit, typed_uuid("audit_uuid", page.audit_uuid) or "")
        plans = await wired.store.list(ActionPlan, {"audit_id": audit.id}) if audit else []
        return {"action_plan_id": [plan.id for plan in plans]} if plans else None
    plan = typed_uuid("action_plan_uuid", page.action_plan_uuid)
    return await filter_by(wired.store, "action_plan_id", ActionPlan, plan)


@router.get("/actions", tags=["actions"])
async def list_actions(wired: Wired, page: Acts, base: Base, asked: Asked) -> Body:
    """Actions, one page."""
    return await listing(wired, ACTIONS, page, await _actions(wired, page), base, asked, detail=False)


@router.get("/actions/detail", tags=["actions"])
async def list_actions_in_detail(wired: Wired, page: Acts, base: Base, asked: Asked) -> Body:
    """Actions with all fields, one page."""
    return await listing(wired, ACTIONS, page, await _actions(wired, page), base, asked, detail=True)


@router.get("/actions/{ident}", tags=["actions"])
async def show_action(ident: str, wired: Wired, base: Base, asked: Asked) -> Body:
    """One action by uuid."""
    return await show(wired, ACTIONS, await by_uuid(wired.store, Action, ident), base, asked)
