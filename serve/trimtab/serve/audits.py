"""/v1/audits: ask Trimtab to look at the cloud; and the candidates it weighed."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from trimtab.platform.errors import IllegalTransition, InvalidInput, NotFound
from trimtab.platform.records import Audit, AuditTemplate, CandidateRecord, Goal, Strategy
from trimtab.platform.states import AUDIT, AuditState
from trimtab.serve import wire
from trimtab.serve.parameters import checked
from trimtab.serve.resources import Asked, Base, Page, PatchOperation, Wired, both, filter_by, listing, only_state, show
from trimtab.serve.wire import AUDITS, Body

router = APIRouter(prefix="/v1/audits", tags=["audits"])


class AuditPage(Page):
    """Filters of the list."""

    goal: str | None = None
    strategy: str | None = None


class NewAudit(BaseModel):
    """Body of POST; the scope always comes from the template."""

    model_config = ConfigDict(extra="forbid", strict=True)

    audit_type: str
    name: str | None = None
    audit_template_uuid: str | None = None
    goal: str | None = None
    strategy: str | None = None
    parameters: dict[str, Any] = {}
    interval: str | None = None
    auto_trigger: Annotated[bool, Field(strict=False)] = False  # "yes", "true", ... too
    force: Annotated[bool, Field(strict=False)] = False
    start_time: str | None = None
    end_time: str | None = None


Filtered = Annotated[AuditPage, Query()]


async def _where(wired: Wired, page: AuditPage) -> dict[str, Any] | None:
    return both(
        await filter_by(wired.store, "goal_id", Goal, page.goal),
        await filter_by(wired.store, "strategy_id", Strategy, page.strategy),
    )


@router.get("")
async def list_audits(wired: Wired, page: Filtered, base: Base, asked: Asked) -> Body:
    """Audits, one page."""
    return await listing(wired, AUDITS, page, await _where(wired, page), base, asked, detail=False)


@router.get("/detail")
async def list_audits_in_detail(wired: Wired, page: Filtered, base: Base, asked: Asked) -> Body:
    """Audits with all fields, one page."""
    return await listing(wired, AUDITS, page, await _where(wired, page), base, asked, detail=True)


@router.get("/{ident}")
async def show_audit(ident: str, wired: Wired, base: Base, asked: Asked) -> Body:
    """One audit by id, uuid or name."""
    return await show(wired, AUDITS, await wired.store.get(Audit, ident), base, asked)


@router.get("/{ident}/candidates", tags=["candidates"])
async def list_candidates(ident: str, wired: Wired) -> Body:
    """Everything this audit weighed, with scores: the winner first, then by rank, then what was rejected or failed."""
    audit = await wired.store.get(Audit, ident)
    rows = await wired.store.list(CandidateRecord, {"audit_id": audit.id})
    rows = sorted(rows, key=lambda row: (row.verdict != "chosen", row.rank is None, row.rank or 0, row.number))
    return {"candidates": [wire.candidate(row) for row in rows]}


@router.get("/{ident}/candidates/{number}", tags=["candidates"])
async def show_candidate(ident: str, number: int, wired: Wired) -> Body:
    """One candidate with all its steps."""
    audit = await wired.store.get(Audit, ident)
    rows = await wired.store.list(CandidateRecord, {"audit_id": audit.id, "number": number})
    if not rows:
        raise NotFound(f"Candidate {number} of audit {ident} could not be found")
    return {**wire.candidate(rows[-1]), "steps": rows[-1].steps}


@router.post("", status_code=201)
async def create_audit(
    body: NewAudit, request: Request, response: Response, wired: Wired, base: Base, asked: Asked
) -> Body:
    """Create an audit; a ONESHOT audit runs at once."""
    _check_type(body)
    goal_id, strategy_id, scope, defaults, hint = await _sources(wired, body)
    strategy = await wired.store.get(Strategy, strategy_id) if strategy_id is not None else None
    wanted = {**defaults, **body.parameters}
    if strategy is not None:
        wanted = checked(strategy, wanted)
    elif wanted:
        raise InvalidInput(
            "Specify parameters but no predefined strategy for audit, or no parameter spec in predefined strategy"
        )
    moment = datetime.now(UTC).replace(tzinfo=None).isoformat()
    name = (body.name or f"{strategy.name if strategy else hint}-{moment}")[:63]
    audit = Audit(
        uuid=str(uuid.uuid4()),
        name=name,
        audit_type=body.audit_type,
        state=AuditState.PENDING,
        parameters=wanted,
        goal_id=goal_id,
        strategy_id=strategy_id,
        scope=scope,
        auto_trigger=body.auto_trigger,
        force=body.force,
    )
    created = await wired.store.create(audit, key=request.headers.get("Idempotency-Key"))
    await wired.audit_created()
    response.headers["Location"] = f"{base}/v1/audits/{created.uuid}"
    return await show(wired, AUDITS, created, base, asked)


def _check_type(body: NewAudit) -> None:
    if body.audit_type not in {"ONESHOT", "CONTINUOUS", "EVENT"}:
        raise InvalidInput(f"Audit type {body.audit_type} could not be found")
    if body.audit_type != "ONESHOT":
        raise InvalidInput(f"Audit type {body.audit_type} is not run by this version: use ONESHOT")
    if body.interval is not None:
        raise InvalidInput("Interval of audit must not be set for ONESHOT.")
    if body.start_time is not None or body.end_time is not None:
        raise InvalidInput("Start or End time of audit must not be set for ONESHOT.")


async def _sources(wired: Wired, body: NewAudit) -> tuple[int, int | None, list[Any], dict[str, Any], str]:
    """Goal, strategy, scope and default parameters: from the template, or as the body names them."""
    if body.audit_template_uuid is not None and body.goal is not None:
        raise InvalidInput("Either audit_template_uuid or goal should be provided.")
    strategy_id = (await wired.store.get(Strategy, body.strategy)).id if body.strategy else None
    if body.audit_template_uuid is not None:
        if not wire.is_uuid(body.audit_template_uuid):
            raise InvalidInput(
                f"Invalid input for field/attribute audit_template_uuid. Value: '{body.audit_template_uuid}'. "
                f"unable to convert to uuid. Error: Expected a uuid but received {body.audit_template_uuid}"
            )
        template = await wired.store.find(AuditTemplate, body.audit_template_uuid)
        if template is None:
            raise InvalidInput("The audit template UUID or name specified is invalid")
        chosen = strategy_id if strategy_id is not None else template.strategy_id
        return template.goal_id, chosen, template.scope, template.default_parameters, template.name
    if body.goal is None:
        raise InvalidInput("A valid goal or audit_template_id must be provided")
    goal = await wired.store.get(Goal, body.goal)
    return goal.id, strategy_id, [], {}, goal.name


@router.patch("/{ident}")
async def patch_audit(ident: str, body: list[PatchOperation], wired: Wired, base: Base, asked: Asked) -> Body:
    """Change an audit's state: CANCELLED ends it, whatever it is doing."""
    audit = await wired.store.get(Audit, ident)
    target = only_state(body)
    try:
        event = AUDIT.event_to(audit.state, target)
    except IllegalTransition as error:
        raise InvalidInput(f"Couldn't apply patch. Reason: {error}") from error
    if event not in {"cancel", "suspend", "resume"}:
        raise InvalidInput(f"Couldn't apply patch. Reason: State transition not allowed: ({audit.state} -> {target})")
    return await show(wired, AUDITS, await wired.store.transition(Audit, audit.uuid, event), base, asked)


@router.delete("/{ident}", status_code=204)
async def delete_audit(ident: str, wired: Wired) -> None:
    """Soft-delete an audit that has ended; its plans stay."""
    audit = await wired.store.get(Audit, ident)
    try:
        await wired.store.delete(Audit, audit.uuid)
    except IllegalTransition as error:
        raise InvalidInput(f"Couldn't delete when state is '{audit.state}'.") from error
