"""What all collections share: the backend, one row with what it points at, pages of rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Request, Response
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from trimtab.platform.collector import Availability
from trimtab.platform.engine import Checked
from trimtab.platform.errors import InvalidInput
from trimtab.platform.model.flat import Flat
from trimtab.platform.records import ActionPlan, Json, Record
from trimtab.platform.settings import Settings
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.platform.store.port import StorePort, SweepsPort
from trimtab.platform.store.views import View
from trimtab.serve import wire
from trimtab.serve.arguments import Arguments
from trimtab.serve.faults import refused
from trimtab.serve.microversions import Version
from trimtab.serve.remembering import Written

R = TypeVar("R", bound=Record)
UNSORTED = frozenset({"deleted", "owner", "lease_until", "epoch"})  # the store's own columns


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
    data_model: Callable[[Sequence[Json]], Awaitable[Flat]]  # the compute model within a scope
    availability: Callable[[Sequence[Need]], Awaitable[Availability]]  # whether these things are measured
    plan_candidate: Callable[[str, int], Awaitable[ActionPlan]]  # of an audit (uuid): see `engine.afterwards`
    plan_rollback: Callable[[str], Awaitable[ActionPlan]]  # of a plan (uuid): likewise
    check_plan: Callable[[str, bool], Awaitable[Checked]]  # of a plan (uuid), planned again or not: see `engine.check`


# Dependencies are coroutines, even where they wait for nothing: FastAPI runs plain functions in threads, one hop each.


async def backend(request: Request) -> Backend:
    """The backend of this application."""
    return request.app.state.backend


async def version(request: Request) -> Version:
    """The microversion this request is answered in (set by the application's middleware)."""
    return request.state.version


async def show_deleted(request: Request) -> bool:
    """Whether the client asked to be shown deleted rows too (set by the application's middleware)."""
    return request.state.show_deleted


async def base_url(request: Request) -> str:
    """Scheme and host, without any mount prefix: clients append paths themselves."""
    asked = request.base_url  # unlike the whole URL it has no query string, which may be no text at all
    return f"{asked.scheme}://{asked.netloc}"


async def mounted_url(request: Request) -> str:
    """Scheme, host and mount prefix: for discovery and `Location`."""
    return await base_url(request) + request.scope.get("root_path", "").rstrip("/")


Wired = Annotated[Backend, Depends(backend)]
Asked = Annotated[Version, Depends(version)]
Shown = Annotated[bool, Depends(show_deleted)]
Base = Annotated[str, Depends(base_url)]
Mounted = Annotated[str, Depends(mounted_url)]


def _whole(value: Any) -> Any:
    """A number as Python reads one, which "1.0" is not."""
    try:
        return int(value)
    except (ValueError, TypeError) as error:
        raise PydanticCustomError("whole", "unable to convert to int. Error: {error}", {"error": str(error)}) from error


Whole = Annotated[int, BeforeValidator(_whole)]


class Page(Arguments):
    """Paging and sorting of a list."""

    limit: Whole | None = None
    marker: str | None = None
    sort_key: str = "id"
    sort_dir: str = "asc"


def stored(kind: type[R], *, by_uuid: bool = False) -> Callable[..., Awaitable[View[R]]]:
    """A dependency: the row that the path names (by id, uuid or name, or by uuid alone) and what it points at.

    Raises (when it is asked):
        InvalidInput: it is no uuid where only a uuid will do. NotFound: there is no such row.
    """

    async def find(ident: str, wired: Wired, deleted: Shown) -> View[R]:
        if by_uuid:
            typed_uuid("uuid", ident)
        return await wired.store.view_one(kind, ident, deleted=deleted)

    return find


async def show(
    wired: Backend, resource: wire.Resource, row: Record, base: str, asked: Version, *, deleted: bool = False
) -> wire.Body:
    """One object, whole."""
    return resource.show(row, await wired.store.related(row, deleted=deleted), base, asked)


async def listing(
    wired: Backend,
    resource: wire.Resource,
    page: Page,
    where: Mapping[str, Any] | None,
    base: str,
    asked: Version,
    *,
    detail: bool,
    called: Mapping[str, str | None] | None = None,
    deleted: bool = False,
) -> Any:
    """One page of a collection, as JSON already; `where` None stands for a filter that nothing matches.

    `called` filters by what rows point at: `{"goal_id": "dummy"}`, uuid or name; those that are None or empty do not
    count, nor does an empty marker where any text may be one.

    Raises:
        InvalidInput: limit, marker, sort key or direction is wrong (400). NotFound: the marker is unknown (404).
    """
    limit = page_size(page, wired.settings.max_limit)
    computed = page.sort_key in resource.sort_keys
    if page.sort_key not in sort_keys(resource):
        raise InvalidInput(f"Invalid sort key: {page.sort_key}")
    if page.sort_dir not in {"asc", "desc"}:
        raise InvalidInput(f"Invalid sort direction: {page.sort_dir}. Acceptable values are 'asc' or 'desc'")
    if resource.marker == "uuid":
        typed_uuid("marker", page.marker)
    if resource.marker == "integer" and page.marker is not None:
        _typed_integer("marker", page.marker)
    if where is None:
        return {resource.collection: []}
    seen = await wired.store.view(
        resource.kind,
        where,
        called={column: ident for column, ident in (called or {}).items() if ident},
        limit=limit,
        marker=page.marker or None,
        sort_key="id" if computed else page.sort_key,
        sort_dir=page.sort_dir,
        deleted=deleted,
    )

    def page_of() -> wire.Body:
        one = resource.show if detail else resource.line
        bodies = [one(row, seen.related, base, asked) for row in seen.rows]
        answer: wire.Body = {}
        if bodies and len(bodies) == limit:
            marker = bodies[-1][resource.ident]
            query = {"sort_key": page.sort_key, "sort_dir": page.sort_dir, "limit": limit, "marker": marker}
            answer["next"] = f"{base}/v1/{resource.collection}{'/detail' if detail else ''}?{urlencode(query)}"
        if computed:
            key = page.sort_key
            bodies.sort(key=lambda body: (body[key] or "", body["uuid"]), reverse=page.sort_dir == "desc")
        return {resource.collection: bodies, **answer}

    how = (resource, detail, base, asked, limit, page.sort_key, page.sort_dir)
    return Response(_written.json(seen, how, page_of), media_type="application/json")


_written = Written()


def sort_keys(resource: wire.Resource) -> frozenset[str]:
    """All that a list can be sorted by."""
    known = _SORTABLE.get(resource.collection)
    if known is None:
        columns = {column.name for column in fields(resource.kind)} - UNSORTED
        known = _SORTABLE[resource.collection] = frozenset(columns.union(resource.sort_keys))
    return known


_SORTABLE: dict[str, frozenset[str]] = {}  # by collection


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


def typed_uuid(field: str, value: str | None) -> str | None:
    """A value that must look like a uuid.

    Raises:
        InvalidInput: it does not.
    """
    if value is not None and not wire.is_uuid(value):
        raise refused(field, value, f"unable to convert to uuid. Error: Expected a uuid but received {value}")
    return value


def _typed_integer(field: str, value: str) -> None:
    try:
        int(value)
    except ValueError as error:
        raise refused(field, value, f"unable to convert to int. Error: {error}") from error


async def by_uuid(store: StorePort, kind: type[Any], ident: str) -> Any:
    """A row that is only known by uuid.

    Raises:
        InvalidInput: it is no uuid. NotFound: there is no such row.
    """
    return await store.get(kind, typed_uuid("uuid", ident) or ident)
