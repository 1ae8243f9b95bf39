"""/v1/audit_templates: reusable descriptions of audits."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import WithJsonSchema

from trimtab.platform.errors import Conflict, InvalidInput, NotFound
from trimtab.platform.records import AuditTemplate, Goal, Strategy
from trimtab.platform.scope_schema import check_scope
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.views import View
from trimtab.serve import patching
from trimtab.serve.arguments import NewObject, Route, body, query, read_patch
from trimtab.serve.faults import refused
from trimtab.serve.microversions import check_patched, check_posted
from trimtab.serve.parameters import checked
from trimtab.serve.patching import Operation
from trimtab.serve.policy import allowed
from trimtab.serve.resources import Asked, Base, Mounted, Page, Shown, Wired, listing, show, stored
from trimtab.serve.wire import AUDIT_TEMPLATES, Body

router = APIRouter(prefix="/v1/audit_templates", tags=["audit templates"], route_class=Route)

C = TypeVar("C", bound=Goal | Strategy)
LONGEST: Mapping[str, int] = {"name": 63, "description": 255}
POINTERS: Mapping[str, type[Goal] | type[Strategy]] = {"goal": Goal, "strategy": Strategy}
PATCHABLE = ("name", "description", "goal_id", "strategy_id", "scope", "default_parameters")


class TemplatePage(Page):
    """Filters of the list."""

    goal: str | None = None
    strategy: str | None = None


class NewTemplate(NewObject):
    """Body of POST."""

    name: Annotated[str, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST["name"]})]
    goal: str
    strategy: str | None = None
    description: Annotated[str, WithJsonSchema({"type": "string", "maxLength": LONGEST["description"]})] | None = None
    scope: list[Any] | None = None
    default_parameters: dict[str, Any] | None = None


Filtered = Annotated[TemplatePage, Depends(query(TemplatePage))]
New = Annotated[NewTemplate, Depends(body(NewTemplate, "audit_template_postdata"))]
Patch = Annotated[tuple[Operation, ...], Depends(read_patch)]
Named = Annotated[View[AuditTemplate], Depends(stored(AuditTemplate))]


def _called(page: TemplatePage) -> dict[str, str | None]:
    return {"goal_id": page.goal, "strategy_id": page.strategy}


@router.get("")
async def list_templates(
    wired: Wired,
    page: Filtered,
    _: Annotated[None, allowed("audit_template:get_all")],
    base: Base,
    asked: Asked,
    deleted: Shown,
) -> Body:
    """Audit templates, one page; `goal` and `strategy` (uuid or name) narrow them."""
    called = _called(page)
    return await listing(wired, AUDIT_TEMPLATES, page, {}, base, asked, detail=False, called=called, deleted=deleted)


@router.get("/detail")
async def list_templates_in_detail(
    wired: Wired,
    page: Filtered,
    _: Annotated[None, allowed("audit_template:detail")],
    base: Base,
    asked: Asked,
    deleted: Shown,
) -> Body:
    """Audit templates with all fields, one page."""
    called = _called(page)
    return await listing(wired, AUDIT_TEMPLATES, page, {}, base, asked, detail=True, called=called, deleted=deleted)


@router.get("/{ident}")
async def show_template(
    seen: Named, _: Annotated[None, allowed("audit_template:get")], base: Base, asked: Asked
) -> Body:
    """One audit template by id, uuid or name."""
    return AUDIT_TEMPLATES.show(seen.row, seen.related, base, asked)


@router.post("", status_code=201)
async def create_template(
    new: New,
    _: Annotated[None, allowed("audit_template:create")],
    request: Request,
    response: Response,
    wired: Wired,
    base: Base,
    mounted: Mounted,
    asked: Asked,
) -> Body:
    """Create an audit template."""
    check_posted("audit_template", new.model_dump(), asked)
    goal = await _one(wired.store, Goal, new.goal)
    strategy = await _one(wired.store, Strategy, new.strategy) if new.strategy else None
    if strategy is not None and strategy.goal_id != goal.id:
        choices = await wired.store.list(Strategy, {"goal_id": goal.id})
        listed = ", ".join(f"'{choice.uuid}' ({choice.name})" for choice in choices)
        raise InvalidInput(
            f"'{strategy.name}' strategy does relate to the '{goal.name}' goal. Possible choices: {listed}"
        )
    defaults = new.default_parameters or {}
    _check_defaults(strategy, defaults)
    _check_texts(new.model_dump())
    template = AuditTemplate(
        uuid=str(uuid.uuid4()),
        name=new.name,
        description=new.description,
        goal_id=goal.id,
        strategy_id=strategy.id if strategy else None,
        scope=check_scope(new.scope or []),
        default_parameters=defaults,
    )
    created = await wired.store.create(template, key=request.headers.get("Idempotency-Key"))
    response.headers["Location"] = f"{mounted}/v1/audit_templates/{created.uuid}"
    return await show(wired, AUDIT_TEMPLATES, created, base, asked)


@router.patch("/{ident}")
async def patch_template(
    ident: str,
    operations: Patch,
    seen: Named,
    _: Annotated[None, allowed("audit_template:update")],
    wired: Wired,
    base: Base,
    asked: Asked,
) -> Body:
    """Change an audit template; `goal` and `strategy` are given by uuid or name."""
    check_patched("audit_template", (operation.root for operation in operations), asked)
    old = seen.row
    if ident.isascii() and ident.isdecimal():  # Watcher looks a second time, and then not by id
        raise NotFound(f"AuditTemplate {ident} could not be found")
    known = {name: getattr(old, name) for name in PATCHABLE}
    changed = patching.apply(known, [await _resolved(wired.store, operation) for operation in operations])
    changes = {name: value for name, value in changed.items() if value != known[name]}
    if not changes:
        return AUDIT_TEMPLATES.show(old, seen.related, base, asked)
    new_defaults = any(operation.root == "/default_parameters" for operation in operations)
    if changes.keys() & {"goal_id", "strategy_id"} and old.default_parameters and not new_defaults:
        raise Conflict(
            "Updating goal or strategy on a template that has default_parameters requires providing updated "
            "default_parameters in the same request"
        )
    _check_texts(changes)
    strategy = await _pointed(wired.store, changed)
    if "scope" in changes:
        changes["scope"] = check_scope(changes["scope"] or [])
    if "default_parameters" in changes:
        changes["default_parameters"] = changes["default_parameters"] or {}
        _check_defaults(strategy, changes["default_parameters"])
    kept = await wired.store.update(AuditTemplate, old.uuid, changes)
    return await show(wired, AUDIT_TEMPLATES, kept, base, asked)


@router.delete("/{ident}", status_code=204)
async def delete_template(seen: Named, _: Annotated[None, allowed("audit_template:delete")], wired: Wired) -> None:
    """Soft-delete an audit template; its audits stay."""
    await wired.store.delete(AuditTemplate, seen.row.uuid)


async def _resolved(store: StorePort, operation: Operation) -> Operation:
    """An operation on `goal` or `strategy` as one on the id that is stored."""
    name = operation.path.removeprefix("/")
    kind = POINTERS.get(name)
    if kind is None:
        return operation
    if operation.op == "remove":
        if kind is Goal:
            raise InvalidInput("Cannot remove 'goal' attribute from an audit template")
        return Operation("remove", f"/{name}_id")
    if kind is Strategy and operation.value in (None, ""):
        return Operation(operation.op, f"/{name}_id")
    if not isinstance(operation.value, str):
        raise InvalidInput(f"{kind.__name__} {operation.value} is invalid")
    return Operation(operation.op, f"/{name}_id", (await _one(store, kind, operation.value)).id)


async def _pointed(store: StorePort, template: Mapping[str, Any]) -> Strategy | None:
    """The strategy of a patched template, when both ids are those of something."""
    goal, strategy = template["goal_id"], template["strategy_id"]
    await _one(store, Goal, goal)
    return None if strategy is None else await _one(store, Strategy, strategy)


async def _one(store: StorePort, kind: type[C], ident: Any) -> C:
    """A goal or strategy as a template names it.

    Raises:
        InvalidInput: there is none.
    """
    named = isinstance(ident, int | str) and not isinstance(ident, bool)
    found = await store.find(kind, ident) if named else None
    if found is None:
        raise InvalidInput(f"{kind.__name__} {ident} is invalid")
    return found


def _check_texts(values: Mapping[str, Any]) -> None:
    for name, longest in LONGEST.items():
        value = values.get(name)
        if value is None and (name not in values or name != "name"):
            continue
        if value is None:
            raise refused(name, None, "Mandatory field missing.")
        if not isinstance(value, str):
            raise refused(name, value, f"Wrong type. Expected '<class 'str'>', got '{type(value)}'")
        if len(value) > longest or (name == "name" and not value):
            raise refused(name, value, f"Use 1 to {longest} characters")


def _check_defaults(strategy: Strategy | None, parameters: Any) -> None:
    if not isinstance(parameters, dict):
        raise refused(
            "default_parameters", parameters, f"Wrong type. Expected '<class 'dict'>', got '{type(parameters)}'"
        )
    if not parameters:
        return
    if strategy is None:
        raise InvalidInput("default_parameters requires a strategy to be specified")
    checked(strategy, parameters, "default_parameters")
