"""/v1/audits: ask Trimtab to look at the cloud; and the candidates it weighed."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from trimtab.platform.errors import IllegalTransition, InvalidInput, NotFound
from trimtab.platform.records import Audit, AuditTemplate, CandidateRecord, Goal, Json, Strategy
from trimtab.platform.states import AuditState
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.views import View
from trimtab.serve import audit_fields, wire
from trimtab.serve.arguments import NewObject, Nothing, ReadOnly, Route, body, query, read_patch
from trimtab.serve.microversions import check_posted
from trimtab.serve.parameters import checked
from trimtab.serve.patching import Operation
from trimtab.serve.policy import allowed
from trimtab.serve.resources import Asked, Base, Mounted, Page, Shown, Wired, listing, show, stored
from trimtab.serve.shapes import UUID
from trimtab.serve.wire import ACTION_PLANS, AUDITS, Body

router = APIRouter(prefix="/v1/audits", tags=["audits"], route_class=Route)


class AuditPage(Page):
    """Filters of the list."""

    goal: str | None = None
    strategy: str | None = None


def _uuid(value: str) -> str:
    if not wire.is_uuid(value):
        raise PydanticCustomError(
            "uuid", "unable to convert to uuid. Error: Expected a uuid but received {value}", {"value": value}
        )
    return value


def _start(value: Any) -> datetime | None:
    return None if value is None else audit_fields.moment("start_time", value)


def _end(value: Any) -> datetime | None:
    return None if value is None else audit_fields.moment("end_time", value)


class NewAudit(NewObject):
    """Body of POST; the scope always comes from the template."""

    audit_type: Annotated[str, WithJsonSchema({"type": "string", "enum": list(audit_fields.TYPES)})]
    name: str | None = None
    audit_template_uuid: Annotated[str, AfterValidator(_uuid), WithJsonSchema(UUID)] | None = None
    goal: str | None = None
    strategy: str | None = None
    parameters: dict[str, Any] | None = None
    interval: Annotated[str, AfterValidator(audit_fields.interval)] | None = None
    auto_trigger: Annotated[bool, Field(strict=False)] = False  # "yes", "true", ... too
    force: Annotated[bool, Field(strict=False)] = False
    start_time: Annotated[datetime | None, BeforeValidator(_start)] = None
    end_time: Annotated[datetime | None, BeforeValidator(_end)] = None
    scope: ReadOnly = None
    state: ReadOnly = None
    hostname: ReadOnly = None


Filtered = Annotated[AuditPage, Depends(query(AuditPage))]
New = Annotated[NewAudit, Depends(body(NewAudit, "audit_p"))]
Patch = Annotated[tuple[Operation, ...], Depends(read_patch)]
Named = Annotated[View[Audit], Depends(stored(Audit))]
MayList = Annotated[None, allowed("audit:get_all")]
MayDetail = Annotated[None, allowed("audit:detail")]
MaySee = Annotated[None, allowed("audit:get")]
MayCreate = Annotated[None, allowed("audit:create")]
MayUpdate = Annotated[None, allowed("audit:update")]
MaySeeCandidates = Annotated[None, allowed("candidate:get_all")]
MaySeeCandidate = Annotated[None, allowed("candidate:get")]
MayPlanCandidate = Annotated[None, allowed("candidate:plan")]
MayDelete = Annotated[None, allowed("audit:delete")]


def _called(page: AuditPage) -> dict[str, str | None]:
    return {"goal_id": page.goal, "strategy_id": page.strategy}


@router.get("")
async def list_audits(wired: Wired, page: Filtered, base: Base, asked: Asked, deleted: Shown, _: MayList) -> Body:
    """Audits, one page; `goal` and `strategy` (uuid or name) narrow them."""
    called = _called(page)
    return await listing(wired, AUDITS, page, {}, base, asked, detail=False, called=called, deleted=deleted)


@router.get("/detail")
async def list_audits_in_detail(
    wired: Wired, page: Filtered, base: Base, asked: Asked, deleted: Shown, _: MayDetail
) -> Body:
    """Audits with all fields, one page."""
    called = _called(page)
    return await listing(wired, AUDITS, page, {}, base, asked, detail=True, called=called, deleted=deleted)


@router.get("/{ident}")
async def show_audit(seen: Named, _: MaySee, base: Base, asked: Asked) -> Body:
    """One audit by id, uuid or name."""
    return AUDITS.show(seen.row, seen.related, base, asked)


@router.get("/{ident}/candidates", tags=["candidates"])
async def list_candidates(seen: Named, _: MaySeeCandidates, wired: Wired) -> Body:
    """Everything this audit weighed, with scores: the winner first, then by rank, then what was rejected or failed.

    Of an audit that ran more than once: all of its last run, and the winners of which plans were made, newest first.
    """
    rows = await wired.store.list(CandidateRecord, {"audit_id": seen.row.id})
    chosen = sorted((row for row in rows if row.verdict == "chosen"), key=lambda row: -row.number)
    others = (row for row in rows if row.verdict != "chosen")
    rows = [*chosen, *sorted(others, key=lambda row: (row.rank is None, row.rank or 0, row.number))]
    return {"candidates": [wire.candidate(row) for row in rows]}


@router.get("/{ident}/candidates/{number}", tags=["candidates"])
async def show_candidate(ident: str, number: int, seen: Named, _: MaySeeCandidate, wired: Wired) -> Body:
    """One candidate with all its steps."""
    rows = await wired.store.list(CandidateRecord, {"audit_id": seen.row.id, "number": number})
    if not rows:
        raise NotFound(f"Candidate {number} of audit {ident} could not be found")
    return {**wire.candidate(rows[-1]), "steps": rows[-1].steps}


@router.post("/{ident}/candidates/{number}/plan", tags=["candidates"], status_code=201)
async def plan_candidate(
    _: Nothing, number: int, seen: Named, wired: Wired, base: Base, asked: Asked, __: MayPlanCandidate
) -> Body:
    """Plan a candidate that was not chosen, as the cloud is now; the audit's plan nobody started is SUPERSEDED."""
    return await show(wired, ACTION_PLANS, await wired.plan_candidate(seen.row.uuid, number), base, asked)


@router.post("", status_code=201)
async def create_audit(
    new: New,
    _: MayCreate,
    request: Request,
    response: Response,
    wired: Wired,
    base: Base,
    mounted: Mounted,
    asked: Asked,
) -> Body:
    """Create an audit. ONESHOT runs at once, CONTINUOUS at its interval, EVENT whenever its webhook is called."""
    given = new.model_dump()
    audit_fields.check_new(new.audit_type, given)
    check_posted("audit", given, asked)
    goal_id, strategy_id, scope, defaults, called_after = await _sources(wired.store, new)
    strategy = await wired.store.get(Strategy, strategy_id) if strategy_id is not None else None
    wanted = {**defaults, **(new.parameters or {})}
    if strategy is not None:
        wanted = checked(strategy, wanted)
    elif wanted:
        raise InvalidInput(
            "Specify parameters but no predefined strategy for audit, or no parameter spec in predefined strategy"
        )
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    name = new.name or f"{strategy.name if strategy else called_after}-{now}"
    audit = Audit(
        uuid=str(uuid.uuid4()),
        name=name[: audit_fields.LONGEST_NAME],
        audit_type=new.audit_type,
        state=AuditState.PENDING,
        parameters=wanted,
        interval=new.interval,
        goal_id=goal_id,
        strategy_id=strategy_id,
        scope=scope,
        auto_trigger=new.auto_trigger,
        start_time=new.start_time,
        end_time=new.end_time,
        force=new.force,
    )
    created = await wired.store.create(audit, key=request.headers.get("Idempotency-Key"))
    await wired.audit_created()
    response.headers["Location"] = f"{mounted}/v1/audits/{created.uuid}"
    return await show(wired, AUDITS, created, base, asked)


async def _sources(store: StorePort, new: NewAudit) -> tuple[int, int | None, list[Json], Json, str]:
    """Goal, strategy, scope, default parameters and what to call it after: the template's, or as the body says."""
    strategy_id = (await store.get(Strategy, new.strategy)).id if new.strategy else None
    if new.audit_template_uuid:
        template = await store.find(AuditTemplate, new.audit_template_uuid)
        if template is None:
            raise InvalidInput("The audit template UUID or name specified is invalid")
        chosen = template.strategy_id if strategy_id is None else strategy_id
        return template.goal_id, chosen, template.scope, template.default_parameters, template.name
    goal = await store.get(Goal, new.goal or "")
    return goal.id, strategy_id, [], {}, goal.name


@router.patch("/{ident}")
async def patch_audit(operations: Patch, seen: Named, _: MayUpdate, wired: Wired, base: Base, asked: Asked) -> Body:
    """Change an audit: its state (CANCELLED ends it, whatever it is doing), when it runs, its parameters, ..."""
    audit = seen.row
    event, changes = audit_fields.patched(audit, operations)
    for column, kind in (("goal_id", Goal), ("strategy_id", Strategy)):
        if column in changes:
            changes[column] = await _pointed(wired.store, kind, changes[column])
    if event is None and not changes:
        return AUDITS.show(audit, seen.related, base, asked)
    try:
        if event is None:
            changed = await wired.store.update(Audit, audit.uuid, changes)
        else:
            changed = await wired.store.transition(Audit, audit.uuid, event, changes)
    except IllegalTransition as error:  # its state has changed since
        wanted = next(one.value for one in reversed(operations) if one.path == "/state")
        raise audit_fields.not_allowed((await wired.store.get(Audit, audit.uuid)).state, wanted, operations) from error
    await wired.audit_created()  # the engine looks again what is due
    return await show(wired, AUDITS, changed, base, asked)


async def _pointed(store: StorePort, kind: type[Goal] | type[Strategy], ident: Any) -> int | None:
    """The id of a goal or strategy, given by id, uuid or name; no strategy leaves the choice to Trimtab."""
    if ident is None and kind is Strategy:
        return None
    named = isinstance(ident, int | str) and not isinstance(ident, bool)
    found = await store.find(kind, ident) if named else None
    if found is None:
        raise InvalidInput(f"{kind.__name__} {ident} is invalid")
    return found.id


@router.delete("/{ident}", status_code=204)
async def delete_audit(seen: Named, _: MayDelete, wired: Wired) -> None:
    """Soft-delete an audit that has ended or is suspended; its plans stay."""
    try:
        await wired.store.delete(Audit, seen.row.uuid)
    except IllegalTransition as error:
        raise InvalidInput(f"Couldn't delete when state is '{seen.row.state}'.") from error
