"""What all collections share: reading rows with what they point at, paging, sorting, patching."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from trimtab.platform.errors import InvalidInput, NotFound
from trimtab.platform.records import (
    Action,
    ActionDescription,
    ActionPlan,
    Audit,
    EfficacyIndicator,
    Goal,
    Record,
    ScoringEngine,
    Strategy,
)
from trimtab.platform.settings import Settings
from trimtab.platform.snapshot import Snapshot
from trimtab.platform.store.port import StorePort, SweepsPort
from trimtab.serve import wire


@dataclass(frozen=True, slots=True)
class WhatIfParts:
    """What /v1/whatifs works with: the files, the cloud as last collected, and who to tell of something new."""

    files: SweepsPort
    snapshot: Callable[[], Awaitable[Snapshot]]
    wake: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Backend:
    """What the HTTP layer works with; wired in the composition root."""

    store: StorePort
    settings: Settings
    audit_created: Callable[[], Awaitable[None]]
    plan_started: Callable[[str], Awaitable[None]]
    cluster: Callable[[], Awaitable[Mapping[str, Any]]]
    model_table: Callable[[str], Awaitable[bytes | None]]  # Parquet of nodes, instances or server_groups
    whatifs: WhatIfParts


def backend(request: Request) -> Backend:
    """The backend of this application."""
    return request.app.state.backend


def version(request: Request) -> wire.Version:
    """The microversion this request is answered in (set by the application's middleware)."""
    return request.state.version


def base_url(request: Request) -> str:
    """Scheme and host, without any mount prefix: clients append paths themselves."""
    return f"{request.url.scheme}://{request.url.netloc}"


Wired = Annotated[Backend, Depends(backend)]
Asked = Annotated[wire.Version, Depends(version)]
Base = Annotated[str, Depends(base_url)]


class Page(BaseModel):
    """Paging and sorting of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: int | None = None
    marker: str | None = None
    sort_key: str = "id"
    sort_dir: str = "asc"


Paged = Annotated[Page, Query()]


class PatchOperation(BaseModel):
    """One operation of a JSON patch."""

    model_config = ConfigDict(extra="forbid")

    op: str
    path: str = Field(pattern=r"^(/[\w-]+)+$")
    value: Any = None


async def related_to(store: StorePort, resource: wire.Resource, rows: Sequence[Record]) -> wire.Related:
    """What these rows point at, one question per kind."""
    if not rows:
        return wire.Related()
    related: dict[str, Any] = {}
    kind = resource.kind
    if kind not in {Goal, Action, ScoringEngine}:
        related["goals"] = {goal.id: goal for goal in await store.list(Goal)}
        related["strategies"] = {strategy.id: strategy for strategy in await store.list(Strategy)}
    if kind is ActionPlan:
        plans = [row for row in rows if isinstance(row, ActionPlan)]
        audits = sorted({plan.audit_id for plan in plans})
        related["audits"] = {audit.id: audit for audit in await store.list(Audit, {"id": audits})}
        indicators: dict[int, list[EfficacyIndicator]] = {}
        for indicator in await store.list(EfficacyIndicator, {"action_plan_id": [plan.id for plan in plans]}):
            indicators.setdefault(indicator.action_plan_id, []).append(indicator)
        related["indicators"] = indicators
    if kind is Action:
        ids = sorted({row.action_plan_id for row in rows if isinstance(row, Action)})
        related["plans"] = {plan.id: plan for plan in await store.list(ActionPlan, {"id": ids})}
        related["descriptions"] = {d.action_type: d.description for d in await store.list(ActionDescription)}
    return wire.Related(**related)


async def show(wired: Backend, resource: wire.Resource, row: Record, base: str, asked: wire.Version) -> wire.Body:
    """One object, whole."""
    return resource.show(row, await related_to(wired.store, resource, [row]), base, asked)


async def listing(
    wired: Backend,
    resource: wire.Resource,
    page: Page,
    where: Mapping[str, Any] | None,
    base: str,
    asked: wire.Version,
    *,
    detail: bool,
) -> wire.Body:
    """One page of a collection; `where` None stands for a filter that nothing matches.

    Raises:
        InvalidInput: limit, sort key or direction is wrong (400). NotFound: the marker is unknown (404).
    """
    limit = page_size(page, wired.settings.max_limit)
    columns = {column.name for column in fields(resource.kind)}
    if page.sort_key not in columns | set(resource.sort_keys):
        raise InvalidInput(f"Invalid sort key: {page.sort_key}")
    if resource.typed_marker:
        typed_uuid("marker", page.marker)
    computed = page.sort_key in resource.sort_keys
    rows: Sequence[Record] = []
    if where is not None:
        rows = await wired.store.list(
            resource.kind,
            where,
            limit=limit,
            marker=page.marker,
            sort_key="id" if computed else page.sort_key,
            sort_dir=page.sort_dir,
        )
    related = await related_to(wired.store, resource, rows)
    one = resource.show if detail else resource.line
    bodies = [one(row, related, base, asked) for row in rows]
    answer: wire.Body = {}
    if rows and len(rows) == limit:
        query = {"sort_key": page.sort_key, "sort_dir": page.sort_dir, "limit": limit, "marker": rows[-1].uuid}
        answer["next"] = f"{base}/v1/{resource.collection}{'/detail' if detail else ''}?{urlencode(query)}"
    if computed:
        bodies.sort(key=lambda body: (str(body[page.sort_key] or ""), body["uuid"]), reverse=page.sort_dir == "desc")
    return {resource.collection: bodies, **answer}


def page_size(page: Page, highest: int) -> int:
    """How many rows a page has.

    Raises:
        InvalidInput: not a positive number.
    """
    if page.limit is None:
        return highest
    if page.limit <= 0:
        raise InvalidInput("Limit must be positive")
    return min(page.limit, highest)


async def filter_by(store: StorePort, column: str, kind: type[Record], value: str | None) -> dict[str, Any] | None:
    """`{column: id}` for a uuid or name; {} without a value; None when nothing has that uuid or name."""
    if value is None:
        return {}
    row = await store.find(kind, value)
    return None if row is None else {column: row.id}


def both(*filters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Filters together; None as soon as one of them matches nothing."""
    merged: dict[str, Any] = {}
    for one in filters:
        if one is None:
            return None
        merged |= one
    return merged


def typed_uuid(field: str, value: str | None) -> str | None:
    """A value that must look like a uuid.

    Raises:
        InvalidInput: it does not.
    """
    if value is not None and not wire.is_uuid(value):
        raise InvalidInput(
            f"Invalid input for field/attribute {field}. Value: '{value}'. "
            f"unable to convert to uuid. Error: Expected a uuid but received {value}"
        )
    return value


async def by_uuid(store: StorePort, kind: type[Any], ident: str) -> Any:
    """A row that is only known by uuid.

    Raises:
        InvalidInput: it is no uuid. NotFound: there is no such row.
    """
    return await store.get(kind, typed_uuid("uuid", ident) or ident)


async def one_of_catalogue(store: StorePort, kind: type[Any], ident: str, title: str) -> Any:
    """A goal or strategy named in a template's body.

    Raises:
        InvalidInput: there is none.
    """
    try:
        return await store.get(kind, ident)
    except NotFound as error:
        raise InvalidInput(f"{title} {ident} is invalid") from error


def only_state(operations: Sequence[PatchOperation]) -> str:
    """The state a patch asks for, where nothing else can be patched.

    Raises:
        InvalidInput: the patch does something else.
    """
    wanted: str | None = None
    for operation in operations:
        if operation.path != "/state" or operation.op != "replace":
            raise InvalidInput(f"'{operation.path}' can not be updated: only replace /state is possible")
        if not isinstance(operation.value, str):
            raise InvalidInput("/state can't be updated: give it the name of a state")
        wanted = operation.value
    if wanted is None:
        raise InvalidInput("The patch is empty: it should replace /state")
    return wanted
