"""GET /v1/data_model: the cluster as Trimtab sees it, one flat row for each server with its node."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from trimtab.platform.errors import NotFound
from trimtab.platform.model.flat import Flat
from trimtab.platform.records import Audit, Json
from trimtab.serve.arguments import Arguments, Route, query
from trimtab.serve.faults import NotAcceptable
from trimtab.serve.microversions import DATA_MODEL, FIELDS, Version
from trimtab.serve.policy import allowed
from trimtab.serve.resources import Asked, Wired, typed_uuid

router = APIRouter(prefix="/v1/data_model", tags=["data model"], route_class=Route)


class ModelPage(Arguments):
    """Which model, and within the scope of which audit."""

    data_model_type: str = "compute"
    audit_uuid: str | None = None


async def _wanted(page: Annotated[ModelPage, Depends(query(ModelPage))], asked: Asked) -> ModelPage:
    """What is wanted, when there is such a thing."""
    typed_uuid("audit_uuid", page.audit_uuid)
    if asked < DATA_MODEL:
        raise NotAcceptable
    if page.data_model_type != "compute":
        raise NotFound(f"The {page.data_model_type} data model could not be found")
    return page


Wanted = Annotated[ModelPage, Depends(_wanted)]
May = Annotated[None, allowed("data_model:get_all")]


@router.get("", response_class=Response)
async def show_data_model(wired: Wired, page: Wanted, _: May, asked: Asked) -> Response:
    """The compute model's rows, sorted by the uuids of node and server; a node without servers has one row too."""
    audit_uuid = page.audit_uuid
    scope: list[Json] = (await wired.store.get(Audit, audit_uuid)).scope if audit_uuid else []
    model = await wired.data_model(scope)
    content = await asyncio.to_thread(as_json, model, asked)  # megabytes, and others want to be answered meanwhile
    return Response(content, media_type="application/json")


def as_json(model: Flat, asked: Version) -> bytes:
    """The answer's body at a microversion."""
    newer = frozenset(name for (kind, name), since in FIELDS.items() if kind == "data_model" and asked < since.version)
    return json.dumps({"context": model.rows(newer)}, separators=(",", ":")).encode()
