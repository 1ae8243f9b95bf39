"""/v1/events: everything that happens, as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from trimtab.platform.errors import InvalidInput
from trimtab.platform.notifications import notifications
from trimtab.platform.publishing import related_to
from trimtab.platform.store.port import StorePort
from trimtab.serve.faults import Busy
from trimtab.serve.policy import allowed
from trimtab.serve.resources import Wired

router = APIRouter(prefix="/v1/events", tags=["events"])

BATCH = 200
LOOK_S = 0.5
ALIVE_S = 15.0  # proxies end streams that are silent for long
MOST_STREAMS = 30  # each holds one of the API's request slots

_streams: set[object] = set()


class Wanted(BaseModel):
    """Which events, and from where on."""

    model_config = ConfigDict(extra="forbid")

    after: int | None = Field(
        None, ge=0, description="Id of the last event known; without it, what happens from now on"
    )
    event_type: str | None = Field(None, description="Only event types that begin with this, such as action_plan.")
    follow: bool = Field(True, description="Stay and wait for more; false ends the stream when all is told")


@router.get("", response_class=StreamingResponse, dependencies=[allowed("event:get_all")])
async def stream_events(
    wired: Wired, wanted: Annotated[Wanted, Query()], last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """Notifications as they happen; `data` is JSON with event_type, priority, timestamp and payload.

    A client that comes back with the id it saw last (header Last-Event-ID, which browsers send by themselves) misses
    nothing that is still kept.
    """
    if len(_streams) >= MOST_STREAMS:
        raise Busy(f"{MOST_STREAMS} streams of events are open already: close one, or ask again later")
    after = wanted.after
    if last_event_id is not None:
        if not last_event_id.isdecimal():
            raise InvalidInput(f"Last-Event-ID should be the id of an event, not {last_event_id!r}")
        after = int(last_event_id)
    if after is None:
        after = await wired.store.newest_event()
    stream = _stream(wired.store, after, wanted.event_type or "", follow=wanted.follow)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _stream(store: StorePort, after: int, prefix: str, *, follow: bool) -> AsyncIterator[str]:
    me = object()
    _streams.add(me)
    told_at = time.monotonic()
    try:
        yield f"retry: 2000\nid: {after}\n\n"  # so that a client that is cut off at once comes back to the same place
        while True:
            events = await store.events(after, BATCH)
            related = await related_to(store, events)
            for event in events:
                after = event.id
                told = [n for n in notifications(event, related) if n.event_type.startswith(prefix)]
                stamp = event.created_at.isoformat() if event.created_at else None
                for position, one in enumerate(told, start=1):
                    data = json.dumps({**one._asdict(), "timestamp": stamp}, separators=(",", ":"))
                    # Only with the last of an event has a client got all of it.
                    ident = f"id: {event.id}\n" if position == len(told) else ""
                    yield f"event: {one.event_type}\n{ident}data: {data}\n\n"
                    told_at = time.monotonic()
            if len(events) == BATCH:
                continue
            if not follow:
                return
            if time.monotonic() - told_at > ALIVE_S:
                yield f": {after}\n\n"
                told_at = time.monotonic()
            await asyncio.sleep(LOOK_S)
    finally:
        _streams.discard(me)
