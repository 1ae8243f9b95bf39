"""GET /v1/services: the running parts of Trimtab, by their heartbeats."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends

from trimtab.platform.errors import Conflict, NotFound
from trimtab.platform.records import Service
from trimtab.platform.settings import Settings
from trimtab.platform.store.views import Related
from trimtab.serve.arguments import Route, query
from trimtab.serve.policy import allowed
from trimtab.serve.resources import Asked, Base, Page, Shown, Wired, listing
from trimtab.serve.wire import SERVICES, Body, Resource, naive

router = APIRouter(prefix="/v1/services", tags=["services"], route_class=Route)

Paged = Annotated[Page, Depends(query(Page))]


def status(row: Service, now: datetime, down_after: timedelta) -> str:
    """ACTIVE as long as the last sign of life is fresh, else FAILED."""
    seen = row.last_seen_up or row.updated_at or row.created_at
    return "ACTIVE" if seen is not None and abs(now - seen) <= down_after else "FAILED"


def _fields(row: Service, _: Related, now: datetime, down_after: timedelta) -> Body:
    return {
        "name": row.name,
        "host": row.host,
        "status": status(row, now, down_after),
        "last_seen_up": naive(row.last_seen_up),
    }


def _at(now: datetime, settings: Settings) -> Resource:
    return replace(
        SERVICES, fields=partial(_fields, now=now, down_after=timedelta(seconds=settings.service_down_time_s))
    )


async def _named(ident: str, wired: Wired, deleted: Shown) -> Service:
    """A service by id, or by name where one host alone runs it."""
    rows = await wired.store.list(Service, {}, deleted=deleted)
    same = [row for row in rows if (str(row.id) if ident.isdecimal() else row.name.lower()) == ident.lower()]
    if not same:
        raise NotFound(f"The service {ident} cannot be found.")
    if len(same) > 1:
        raise Conflict(
            f"Multiple services exist with name {ident}: use the id of one, "
            + " or ".join(f"{row.id} (on {row.host})" for row in same)
        )
    return same[0]


@router.get("")
async def list_services(
    wired: Wired, page: Paged, _: Annotated[None, allowed("service:get_all")], base: Base, asked: Asked, deleted: Shown
) -> Body:
    """Services, one page."""
    shape = _at(datetime.now(UTC), wired.settings)
    return await listing(wired, shape, page, {}, base, asked, detail=False, deleted=deleted)


@router.get("/detail")
async def list_services_in_detail(
    wired: Wired, page: Paged, _: Annotated[None, allowed("service:detail")], base: Base, asked: Asked, deleted: Shown
) -> Body:
    """Services with when each was last seen, one page."""
    shape = _at(datetime.now(UTC), wired.settings)
    return await listing(wired, shape, page, {}, base, asked, detail=True, deleted=deleted)


@router.get("/{ident}")
async def show_service(
    service: Annotated[Service, Depends(_named)],
    _: Annotated[None, allowed("service:get")],
    wired: Wired,
    base: Base,
    asked: Asked,
) -> Body:
    """One service by id, or by name where only one host runs it."""
    return _at(datetime.now(UTC), wired.settings).show(service, Related(), base, asked)
