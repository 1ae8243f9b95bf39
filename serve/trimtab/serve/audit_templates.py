"""/v1/audit_templates: reusable descriptions of audits."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from trimtab.platform import scope as scopes
from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import AuditTemplate, Goal, Strategy
from trimtab.serve.parameters import checked
from trimtab.serve.resources import Asked, Base, Page, Wired, both, filter_by, listing, one_of_catalogue, show
from trimtab.serve.wire import AUDIT_TEMPLATES, SINCE, Body

router = APIRouter(prefix="/v1/audit_templates", tags=["audit templates"])


class TemplatePage(Page):
    """Filters of the list."""

    goal: str | None = None
    strategy: str | None = None


class NewTemplate(BaseModel):
    """Body of POST."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    goal: str
    strategy: str | None = None
    description: str | None = None
    scope: list[Any] = []
    default_parameters: dict[str, Any] = {}


Filtered = Annotated[TemplatePage, Query()]


async def _where(wired: Wired, page: TemplatePage) -> dict[str, Any] | None:
    return both(
        await filter_by(wired.store, "goal_id", Goal, page.goal),
        await filter_by(wired.store, "strategy_id", Strategy, page.strategy),
    )


@router.get("")
async def list_templates(wired: Wired, page: Filtered, base: Base, asked: Asked) -> Body:
    """Audit templates, one page."""
    return await listing(wired, AUDIT_TEMPLATES, page, await _where(wired, page), base, asked, detail=False)


@router.get("/detail")
async def list_templates_in_detail(wired: Wired, page: Filtered, base: Base, asked: Asked) -> Body:
    """Audit templates with all fields, one page."""
    return await listing(wired, AUDIT_TEMPLATES, page, await _where(wired, page), base, asked, detail=True)


@router.get("/{ident}")
async def show_template(ident: str, wired: Wired, base: Base, asked: Asked) -> Body:
    """One audit template by id, uuid or name."""
    return await show(wired, AUDIT_TEMPLATES, await wired.store.get(AuditTemplate, ident), base, asked)


@router.post("", status_code=201)
async def create_template(
    body: NewTemplate, request: Request, response: Response, wired: Wired, base: Base, asked: Asked
) -> Body:
    """Create an audit template."""
    if body.default_parameters and asked < SINCE["audit_template", "default_parameters"]:
        raise HTTPException(406, "Request not acceptable.")
    goal = await one_of_catalogue(wired.store, Goal, body.goal, "Goal")
    strategy = None
    if body.strategy:
        strategy = await one_of_catalogue(wired.store, Strategy, body.strategy, "Strategy")
        if strategy.goal_id != goal.id:
            choices = await wired.store.list(Strategy, {"goal_id": goal.id})
            listed = ", ".join(f"'{choice.uuid}' ({choice.name})" for choice in choices)
            raise InvalidInput(
                f"'{strategy.name}' strategy does relate to the '{goal.name}' goal. Possible choices: {listed}"
            )
    if body.default_parameters:
        if strategy is None:
            raise InvalidInput("default_parameters requires a strategy to be specified")
        checked(strategy, body.default_parameters, "default_parameters")
    if not 0 < len(body.name) <= 63:
        raise InvalidInput(f"Invalid input for field/attribute name. Value: '{body.name}'. Use 1 to 63 characters")
    template = AuditTemplate(
        uuid=str(uuid.uuid4()),
        name=body.name,
        description=body.description,
        goal_id=goal.id,
        strategy_id=strategy.id if strategy else None,
        scope=scopes.check(body.scope),
        default_parameters=body.default_parameters,
    )
    created = await wired.store.create(template, key=request.headers.get("Idempotency-Key"))
    response.headers["Location"] = f"{base}/v1/audit_templates/{created.uuid}"
    return await show(wired, AUDIT_TEMPLATES, created, base, asked)


@router.delete("/{ident}", status_code=204)
async def delete_template(ident: str, wired: Wired) -> None:
    """Soft-delete an audit template; its audits stay."""
    template = await wired.store.get(AuditTemplate, ident)
    await wired.store.delete(AuditTemplate, template.uuid)
