"""Who is alive: services by their signs of life, who leads among equals, and what has changed; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from trimtab.platform.records import Service

ENGINE, APPLIER = "watcher-decision-engine", "watcher-applier"  # as clients know them
ACTIVE, FAILED = "ACTIVE", "FAILED"
STATUS = "status"  # the event that tells of a change


class Change(NamedTuple):
    """A service whose status is another one than was last told."""

    service: Service
    old: str
    new: str


def status(service: Service, now: datetime, down_after: timedelta) -> str:
    """ACTIVE as long as the last sign of life is fresh, else FAILED."""
    seen = service.last_seen_up or service.updated_at or service.created_at
    return ACTIVE if seen is not None and abs(now - seen) <= down_after else FAILED


def statuses(services: Iterable[Service], now: datetime, down_after: timedelta) -> dict[str, str]:
    """Status by uuid."""
    return {service.uuid: status(service, now, down_after) for service in services}


def leader(services: Iterable[Service], states: Mapping[str, str]) -> str | None:
    """The host that speaks for all of one kind: the first by name of those that are ACTIVE; None when none is."""
    return min((service.host for service in services if states[service.uuid] == ACTIVE), default=None)


def changes(services: Iterable[Service], told: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    """Whose status is not the one that was last told (ACTIVE where nothing was told yet)."""
    return [
        Change(service, told.get(service.uuid, ACTIVE), now[service.uuid])
        for service in services
        if told.get(service.uuid, ACTIVE) != now[service.uuid]
    ]
