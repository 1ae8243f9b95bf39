"""/v1/actions: the single steps of plans; one can be skipped before its plan starts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from trimtab.platform.errors import Conflict, IllegalTransition, InvalidInput
from trimtab.platform.records import Action, ActionPlan
from trimtab.platform.states import ActionState
from trimtab.platform.store.views import View
from trimtab.serve import plan_fields
from trimtab.serve.arguments import Route, query, read_patch
from trimtab.serve.microversions import PATCH_ACTION
from trimtab.serve.patching import Operation
from trimtab.serve.policy import allowed
from trimtab.serve.resources import Asked, Base, Page, Shown, Wired, listing, show, stored, typed_uuid
from trimtab.serve.wire import ACTIONS, Body

router = APIRouter(prefix="/v1/actions", tags=["actions"], route_class=Route)


class ActionPage(Page):
    """Filters of the list of actions."""

    action_plan_uuid: str | None = None
    audit_uuid: str | None = None


async def _new_enough(asked: Asked) -> None:
    if asked < PATCH_ACTION:
        raise InvalidInput(f"API microversion {PATCH_ACTION} or higher is required.")


Filtered = Annotated[ActionPage, Depends(query(ActionPage))]
Patch = Annotated[tuple[Operation, ...], Depends(read_patch)]
NewEnough = Depends(_new_enough)
Named = Annotated[View[Action], Depends(stored(Action, by_uuid=True))]
MayList = Annotated[None, allowed("action:get_all")]
MayDetail = Annotated[None, allowed("action:detail")]
MaySee = Annotated[None, allowed("action:get")]
MayUpdate = Annotated[None, allowed("action:update")]


async def _list(wired: Wired, page: ActionPage, base: str, asked: Asked, deleted: bool, detail: bool) -> Body:
    plan, audit = typed_uuid("action_plan_uuid", page.action_plan_uuid), typed_uuid("audit_uuid", page.audit_uuid)
    if plan and audit:
        raise InvalidInput("Filtering actions on both audit and action-plan is prohibited")
    where: dict[str, Any] = {}
    if audit:
        of_audit = await wired.store.view(ActionPlan, {}, called={"audit_id": audit}, deleted=deleted)
        where = {"action_plan_id": [row.id for row in of_audit.rows]}
    called = {"action_plan_id": plan}
    return await listing(wired, ACTIONS, page, where, base, asked, detail=detail, called=called, deleted=deleted)


@router.get("")
async def list_actions(wired: Wired, page: Filtered, base: Base, asked: Asked, deleted: Shown, _: MayList) -> Body:
    """Actions, one page; `action_plan_uuid` or `audit_uuid` narrows them."""
    return await _list(wired, page, base, asked, deleted, detail=False)


@router.get("/detail")
async def list_actions_in_detail(
    wired: Wired, page: Filtered, base: Base, asked: Asked, deleted: Shown, _: MayDetail
) -> Body:
    """Actions with all fields, one page."""
    return await _list(wired, page, base, asked, deleted, detail=True)


@router.get("/{ident}")
async def show_action(seen: Named, base: Base, asked: Asked, _: MaySee) -> Body:
    """One action by uuid."""
    return ACTIONS.show(seen.row, seen.related, base, asked)


@router.patch("/{ident}", dependencies=[NewEnough])
async def patch_action(operations: Patch, seen: Named, wired: Wired, base: Base, asked: Asked, _: MayUpdate) -> Body:
    """Skip an action whose plan has not begun (state SKIPPED), with a reason (status_message) or without."""
    action = seen.row
    plan = await wired.store.get(ActionPlan, action.action_plan_id)
    skip, message = plan_fields.patched_action(action, plan.state, operations)
    if skip:
        try:
            changed = await wired.store.transition(Action, action.uuid, "skip", message=message)
        except IllegalTransition as error:  # its state has changed since
            now = await wired.store.get(Action, action.uuid)
            raise Conflict(f"State transition not allowed: ({now.state} -> {ActionState.SKIPPED})") from error
    elif message is not None:
        changed = await wired.store.update(Action, action.uuid, {"status_message": message}, state=action.state)
    else:
        changed = action
    return await show(wired, ACTIONS, changed, base, asked)
