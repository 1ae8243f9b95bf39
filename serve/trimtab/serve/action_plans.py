"""/v1/action_plans: what an audit recommends, its start, its course, its effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends

from trimtab.platform.errors import Conflict, IllegalTransition, InvalidInput
from trimtab.platform.records import Action, ActionPlan, Audit, CandidateRecord, Explanation, Strategy
from trimtab.platform.states import ActionState
from trimtab.platform.store.views import View
from trimtab.serve import plan_fields
from trimtab.serve.arguments import Arguments, Nothing, Route, query, read_patch
from trimtab.serve.patching import Operation
from trimtab.serve.policy import allowed
from trimtab.serve.resources import (
    Asked,
    Base,
    Page,
    Shown,
    Whole,
    Wired,
    listing,
    page_size,
    show,
    stored,
    typed_uuid,
)
from trimtab.serve.wire import ACTION_PLANS, Body

router = APIRouter(prefix="/v1/action_plans", tags=["action plans"], route_class=Route)


class PlanPage(Page):
    """Filters of the list of plans."""

    audit_uuid: str | None = None
    strategy: str | None = None


class ReasonPage(Arguments):
    """Paging of an explanation, and one action of it."""

    limit: Whole | None = None
    marker: str | None = None
    action: str | None = None


Filtered = Annotated[PlanPage, Depends(query(PlanPage))]
Reasons = Annotated[ReasonPage, Depends(query(ReasonPage))]
Patch = Annotated[tuple[Operation, ...], Depends(read_patch)]
Named = Annotated[View[ActionPlan], Depends(stored(ActionPlan, by_uuid=True))]
MayList = Annotated[None, allowed("action_plan:get_all")]
MayDetail = Annotated[None, allowed("action_plan:detail")]
MaySee = Annotated[None, allowed("action_plan:get")]
MayUpdate = Annotated[None, allowed("action_plan:update")]
MayStart = Annotated[None, allowed("action_plan:start")]
MayCheck = Annotated[None, allowed("action_plan:check")]
MayReplan = Annotated[None, allowed("action_plan:replan")]
MayRollBack = Annotated[None, allowed("action_plan:rollback")]
MayDelete = Annotated[None, allowed("action_plan:delete")]


def _called(page: PlanPage) -> dict[str, str | None]:
    return {"audit_id": typed_uuid("audit_uuid", page.audit_uuid), "strategy_id": page.strategy}


@router.get("")
async def list_plans(wired: Wired, page: Filtered, base: Base, asked: Asked, deleted: Shown, _: MayList) -> Body:
    """Action plans, one page; `audit_uuid` and `strategy` (uuid or name) narrow them."""
    called = _called(page)
    return await listing(wired, ACTION_PLANS, page, {}, base, asked, detail=False, called=called, deleted=deleted)


@router.get("/detail")
async def list_plans_in_detail(
    wired: Wired, page: Filtered, base: Base, asked: Asked, deleted: Shown, _: MayDetail
) -> Body:
    """Action plans with all fields, one page."""
    called = _called(page)
    return await listing(wired, ACTION_PLANS, page, {}, base, asked, detail=True, called=called, deleted=deleted)


@router.get("/{ident}")
async def show_plan(seen: Named, base: Base, asked: Asked, _: MaySee) -> Body:
    """One action plan by uuid."""
    return ACTION_PLANS.show(seen.row, seen.related, base, asked)


@router.get("/{ident}/effect")
async def show_effect(seen: Named, _: MaySee) -> Body:
    """Rehearsed and measured score of a plan; measured is empty until the horizon has passed."""
    plan = seen.row
    return {"uuid": plan.uuid, "state": plan.state, "rehearsed": plan.rehearsed, "measured": plan.measured}


@router.get("/{ident}/explanation")
async def show_explanation(seen: Named, wired: Wired, base: Base, page: Reasons, _: MaySee) -> Body:
    """Why each action is in the plan, in the plan's order: what it improves, what else was possible, what needs it."""
    plan = seen.row
    limit = page_size(Page(limit=page.limit), wired.settings.max_limit)
    where: dict[str, Any] = {"action_plan_id": plan.id}
    if (action := typed_uuid("action", page.action)) is not None:
        where["uuid"] = (await wired.store.get(Action, action)).uuid
    rows = await wired.store.list(Explanation, where, limit=limit, marker=typed_uuid("marker", page.marker))
    chosen = await wired.store.list(CandidateRecord, {"audit_id": plan.audit_id, "number": plan.candidate})
    answer: Body = {
        "uuid": plan.uuid,
        "because": chosen[-1].because if chosen else "",
        "notes": plan.notes,
        "explanation": [{"action_uuid": row.uuid, **row.reason} for row in rows],
    }
    if rows and len(rows) == limit:
        query = urlencode({"limit": limit, "marker": rows[-1].uuid})
        answer["next"] = f"{base}/v1/action_plans/{plan.uuid}/explanation?{query}"
    return answer


@router.get("/{ident}/progress")
async def show_progress(seen: Named, wired: Wired, _: MaySee) -> Body:
    """How far a plan is: its state, and how many of its actions are in which state. Cheap enough to be asked often."""
    plan = seen.row
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


@router.get("/{ident}/timeline")
async def show_timeline(seen: Named, wired: Wired, _: MaySee) -> Body:
    """When each action of a plan began and ended (wall time), in order of their beginning."""
    plan = seen.row
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


@router.post("/{ident}/start")
async def start_plan(_: Nothing, seen: Named, wired: Wired, base: Base, asked: Asked, __: MayStart) -> Body:
    """Start a recommended plan: it becomes PENDING and an applier takes it."""
    try:
        started = await wired.store.transition(ActionPlan, seen.row.uuid, "start")
    except IllegalTransition as error:
        now = await wired.store.get(ActionPlan, seen.row.uuid)
        raise InvalidInput(f"Couldn't start when state is '{now.state}'.") from error
    await wired.plan_started(started.uuid)
    return await show(wired, ACTION_PLANS, started, base, asked)


@router.post("/{ident}/check")
async def check_plan(_: Nothing, seen: Named, wired: Wired, __: MayCheck) -> Body:
    """Look at a plan that waits to be started, with the cloud as it is now: which of its steps still hold."""
    checked = await wired.check_plan(seen.row.uuid, False)
    return {
        "uuid": checked.plan.uuid,
        "state": checked.plan.state,
        "stale": len(checked.stale),
        "notes": list(checked.notes),
        "actions": [
            {
                "uuid": action.uuid,
                "action_type": action.action_type,
                "holds": action.uuid not in checked.stale,
                "reason": checked.stale.get(action.uuid),
            }
            for action in checked.actions
        ],
    }


@router.post("/{ident}/replan", status_code=201)
async def replan(_: Nothing, seen: Named, wired: Wired, base: Base, asked: Asked, __: MayReplan) -> Body:
    """Plan the steps that do not hold any more again; the plan becomes SUPERSEDED by the one that is answered."""
    checked = await wired.check_plan(seen.row.uuid, True)
    if checked.successor is None:
        raise Conflict(f"Action plan {seen.row.uuid} holds as it is: there is nothing to plan again")
    return await show(wired, ACTION_PLANS, checked.successor, base, asked)


@router.post("/{ident}/rollback", status_code=201)
async def roll_back_plan(_: Nothing, seen: Named, wired: Wired, base: Base, asked: Asked, __: MayRollBack) -> Body:
    """Make a plan that undoes what a plan did, as far as that can be done by now; it waits to be started."""
    return await show(wired, ACTION_PLANS, await wired.plan_rollback(seen.row.uuid), base, asked)


@router.patch("/{ident}")
async def patch_plan(operations: Patch, seen: Named, wired: Wired, base: Base, asked: Asked, _: MayUpdate) -> Body:
    """Start (PENDING) or cancel (CANCELLED, CANCELLING) a plan."""
    plan = seen.row
    event, changes = plan_fields.patched_plan(plan, operations)
    await _check_pointers(wired, changes)
    try:
        changed = await wired.store.transition(ActionPlan, plan.uuid, event, changes)  # waiting actions go with it
    except IllegalTransition as error:  # its state has changed since
        now = await wired.store.get(ActionPlan, plan.uuid)
        raise plan_fields.not_allowed(now.state, _wanted(operations), operations) from error
    if event == "start":
        await wired.plan_started(plan.uuid)
    return await show(wired, ACTION_PLANS, changed, base, asked)


def _wanted(operations: Sequence[Operation]) -> Any:
    return next(one.value for one in reversed(operations) if one.path == "/state")


async def _check_pointers(wired: Wired, changes: dict[str, Any]) -> None:
    for column, kind in (("audit_id", Audit), ("strategy_id", Strategy)):
        if column in changes:
            ident = changes[column]
            if not isinstance(ident, int) or isinstance(ident, bool) or await wired.store.find(kind, ident) is None:
                raise InvalidInput(f"{kind.__name__} {ident} is invalid")


@router.delete("/{ident}", status_code=204)
async def delete_plan(seen: Named, wired: Wired, _: MayDelete) -> None:
    """Soft-delete a plan that is not at work, with its actions and indicators."""
    try:
        await wired.store.delete(ActionPlan, seen.row.uuid)
    except IllegalTransition as error:
        raise InvalidInput(f"Couldn't delete when state is '{seen.row.state}'.") from error
