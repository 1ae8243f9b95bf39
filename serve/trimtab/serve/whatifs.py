"""/v1/whatifs: sweeps of simulations on the cloud as it is, or on a made-up one; their cells, series and report."""

from __future__ import annotations

import asyncio
import math
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response

from trimtab.platform.errors import Conflict, InvalidInput, NotFound
from trimtab.platform.records import WhatIf
from trimtab.platform.states import WhatIfState
from trimtab.serve.arguments import Arguments, Route, json_object, query
from trimtab.serve.policy import allowed
from trimtab.serve.resources import Asked, Base, Page, Whole, Wired, by_uuid, listing, show
from trimtab.serve.whatif_report import MOST_SERIES, render, sheet_of
from trimtab.serve.wire import WHATIFS, Body
from trimtab.simulator.whatif.origin import Origin
from trimtab.simulator.whatif.reading import read_sweep
from trimtab.simulator.whatif.summary import AXES, check_column

router = APIRouter(prefix="/v1/whatifs", tags=["what-ifs"], route_class=Route)

_drawing = asyncio.Lock()  # matplotlib draws one figure at a time


class WhatIfPage(Page):
    """Filters of the list."""

    state: str | None = None
    name: str | None = None


class CellPage(Arguments):
    """Paging, sorting and filters of cells."""

    limit: Whole | None = None
    marker: str | None = None
    sort_key: str = "key"
    sort_dir: str = "asc"
    topology: str | None = None
    load: str | None = None
    policy: str | None = None
    seed: Whole | None = None


@router.get("", dependencies=[allowed("whatif:get_all")])
async def list_whatifs(
    wired: Wired, page: Annotated[WhatIfPage, Depends(query(WhatIfPage))], base: Base, asked: Asked
) -> Body:
    """Sweeps, one page."""
    known = [state.value for state in WhatIfState if state != WhatIfState.DELETED]
    if page.state is not None and page.state not in known:
        raise InvalidInput(f"state is {page.state!r}: use one of {', '.join(known)}")
    where = {name: value for name, value in (("state", page.state), ("name", page.name)) if value is not None}
    return await listing(wired, WHATIFS, page, where, base, asked, detail=False)


@router.post("", status_code=201, dependencies=[allowed("whatif:create")])
async def create_whatif(
    scenario: Annotated[dict[str, Any], Depends(json_object("scenario"))],
    request: Request,
    response: Response,
    wired: Wired,
    base: Base,
    asked: Asked,
) -> Body:
    """Check a scenario and run it; its base is the cloud as it is now, unless it names another.

    Raises:
        InvalidScenario: every fault of the scenario with its path (400).
    """
    raw = {"base": {"kind": "cloud"}, **scenario}
    of_cloud = isinstance(raw["base"], dict) and raw["base"].get("kind") == "cloud"
    origin = Origin.of_snapshot(await wired.whatifs.snapshot()) if of_cloud else None
    most = wired.settings.whatif_most_cells
    sweep = await asyncio.to_thread(read_sweep, raw, origin=origin, most_cells=most, files=False)
    record = WhatIf(
        uuid=str(uuid.uuid4()),
        name=sweep.scenario.name,
        state=WhatIfState.PENDING,
        scenario=sweep.scenario.to_json(),
        cells_total=len(sweep.cells),
    )
    files = wired.whatifs.files
    if origin is not None:  # before the record: whoever takes it finds where it begins
        await files.keep_origin(record.uuid, origin.tables())
    try:
        created = await wired.store.create(record, key=request.headers.get("Idempotency-Key"))
    except (InvalidInput, Conflict):  # refused; after any other error it may be there, so its files stay for now
        await files.remove(record.uuid)
        raise
    if created.uuid != record.uuid:
        await files.remove(record.uuid)  # it was asked for before
    await wired.whatifs.wake()
    response.headers["Location"] = f"{base}/v1/whatifs/{created.uuid}"
    return await show(wired, WHATIFS, created, base, asked)


@router.get("/{ident}", dependencies=[allowed("whatif:get")])
async def show_whatif(ident: str, wired: Wired, base: Base, asked: Asked) -> Body:
    """One sweep with its scenario and how far it is."""
    return await show(wired, WHATIFS, await by_uuid(wired.store, WhatIf, ident), base, asked)


@router.get("/{ident}/cells", dependencies=[allowed("whatif:get")])
async def list_cells(ident: str, wired: Wired, page: Annotated[CellPage, Depends(query(CellPage))], base: Base) -> Body:
    """Finished cells, one row each, one page."""
    record = await by_uuid(wired.store, WhatIf, ident)
    if page.limit is not None and page.limit <= 0:
        raise InvalidInput("Limit must be positive")
    limit = min(page.limit or wired.settings.max_limit, wired.settings.max_limit)
    filters = page.model_dump(include={*AXES, "seed"}, exclude_none=True)
    rows = await wired.whatifs.files.page(
        record.uuid, filters, limit=limit, marker=page.marker, sort_key=page.sort_key, sort_dir=page.sort_dir
    )
    answer: Body = {"cells": [_plain(row) for row in rows]}
    if len(rows) == limit:
        paging = {"sort_key": page.sort_key, "sort_dir": page.sort_dir, "limit": limit, "marker": rows[-1]["key"]}
        answer["next"] = f"{base}/v1/whatifs/{record.uuid}/cells?{urlencode({**filters, **paging})}"
    return answer


@router.get("/{ident}/cells/{key}/series", dependencies=[allowed("whatif:get")])
async def show_series(ident: str, key: str, wired: Wired) -> Body:
    """The series of one cell, column by column; only of scenarios with `series: true`."""
    record = await by_uuid(wired.store, WhatIf, ident)
    table = await wired.whatifs.files.series(record.uuid, key)
    if table is None:
        raise NotFound(f"Cell {key} of what-if {ident} has no series: it is not finished, or they were not asked for")
    return {"key": key, "columns": _plain(table.to_pydict())}


@router.get("/{ident}/report", response_class=Response, dependencies=[allowed("whatif:get")])
async def show_report(ident: str, wired: Wired, x: str = "energy_kwh", y: str = "overload_min") -> Response:
    """The report of what is finished so far, as HTML."""
    record = await by_uuid(wired.store, WhatIf, ident)
    check_column(x)
    check_column(y)
    rows = await wired.whatifs.files.table(record.uuid)
    if rows is None:
        raise NotFound(f"What-if {ident} has no finished cell yet: ask again in a moment")
    series = {}
    if record.scenario.get("series"):
        first: dict[str, str] = {}
        for row in rows.select([*AXES, "key"]).to_pylist():
            first.setdefault(" · ".join(row[axis] for axis in AXES), row["key"])
        for name, key in list(first.items())[:MOST_SERIES]:
            if (table := await wired.whatifs.files.series(record.uuid, key)) is not None:
                series[name] = table
    async with _drawing:
        html = await asyncio.to_thread(render, sheet_of(record.scenario, rows, x=x, y=y, series=series))
    return Response(html, media_type="text/html; charset=utf-8")


@router.delete("/{ident}", status_code=204, dependencies=[allowed("whatif:delete")])
async def delete_whatif(ident: str, wired: Wired) -> None:
    """Cancel a sweep that has not ended (what is finished stays to be read); remove one that has."""
    record = await by_uuid(wired.store, WhatIf, ident)
    if record.state in {WhatIfState.PENDING, WhatIfState.ONGOING}:
        changes = {"finished_at": datetime.now(UTC), "seconds_left": None}
        await wired.store.transition(WhatIf, record.uuid, "cancel", changes, message="Cancelled on request")
        await wired.whatifs.wake()
        return
    await wired.store.delete(WhatIf, record.uuid)
    await wired.whatifs.files.remove(record.uuid)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values that JSON has: what is not finite becomes null."""
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
