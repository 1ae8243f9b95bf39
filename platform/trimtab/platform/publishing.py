"""Sending notifications in the order of their events: at least once, without ever holding up what they tell of.

The store keeps the events and how far each feed has come, so a broker that is away, or this process when it is
killed, delays notifications and loses none; only what exceeds the backlog is dropped, and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from trimtab.platform.errors import TrimtabError
from trimtab.platform.notifications import Notification, Related, loud_enough, mentioned, notifications
from trimtab.platform.records import Action, ActionPlan, Audit, Event, Goal, Record, Service, Strategy
from trimtab.platform.store.port import StorePort

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)
Send = Callable[[Sequence[Notification]], Awaitable[None]]
"""Hands notifications to a bus, in order; returns when it has them, raises when it does not."""
Sleep = Callable[[float], Awaitable[None]]

SLOWEST_S = 30.0


class Pace(NamedTuple):
    """How a feed goes along: events a batch, seconds between looks, and how many may wait before some are dropped."""

    batch: int = 200
    idle_s: float = 0.5
    backlog: int = 100_000


USUAL = Pace()


@dataclass(slots=True)
class Sent:
    """What a feed has done so far."""

    position: int = 0
    events: int = 0
    notifications: int = 0
    lost: int = 0
    failures: int = 0
    last_error: str | None = None


async def related_to(store: StorePort, events: Sequence[Event]) -> Related:
    """The records that the payloads of these events speak of, in at most eight questions."""
    named = mentioned(events)

    async def rows(kind: type[R], column: str, values: Sequence[object]) -> list[R]:
        return await store.list(kind, {column: values}, deleted=True) if values else []

    actions = await rows(Action, "uuid", sorted(named.get("action", ())))
    plans = await rows(ActionPlan, "uuid", sorted(named.get("action_plan", ())))
    audits = await rows(Audit, "uuid", sorted(named.get("audit", ())))
    services = await rows(Service, "uuid", sorted(named.get("service", ())))
    plans_by_id = {plan.id: plan for plan in plans}
    more = sorted({action.action_plan_id for action in actions} - plans_by_id.keys())
    plans_by_id |= {plan.id: plan for plan in await rows(ActionPlan, "id", more)}
    audits_by_id = {audit.id: audit for audit in audits}
    more = sorted({plan.audit_id for plan in plans_by_id.values()} - audits_by_id.keys())
    audits_by_id |= {audit.id: audit for audit in await rows(Audit, "id", more)}
    goals = await rows(Goal, "id", sorted({audit.goal_id for audit in audits_by_id.values()}))
    used = {plan.strategy_id for plan in plans_by_id.values()}
    used |= {audit.strategy_id for audit in audits_by_id.values() if audit.strategy_id is not None}
    strategies = await rows(Strategy, "id", sorted(used))
    return Related(
        {audit.uuid: audit for audit in audits},
        {plan.uuid: plan for plan in plans},
        {action.uuid: action for action in actions},
        {service.uuid: service for service in services},
        audits_by_id,
        plans_by_id,
        {goal.id: goal for goal in goals},
        {strategy.id: strategy for strategy in strategies},
    )


async def publish(
    store: StorePort,
    feed: str,
    send: Send,
    *,
    level: str = "info",
    pace: Pace = USUAL,
    sleep: Sleep = asyncio.sleep,
    tell: Callable[[Sent], None] = lambda _: None,
) -> None:
    """Send what happens, until cancelled; `tell` hears after every batch and every failure.

    A feed that is new begins with what happens from now on. After a failure the same batch is tried again, first at
    once, then with growing pauses of at most `SLOWEST_S`.
    """
    sent = Sent(position=await store.feed(feed))
    pause = 0.0
    while True:
        try:
            sent.lost += await _drop(store, feed, sent, pace.backlog)
            events = await store.events(sent.position, pace.batch)
            told: list[Notification] = []
            if events:
                related = await related_to(store, events)
                told = [n for event in events for n in notifications(event, related) if loud_enough(n, level)]
                if told:
                    await send(told)
                await store.feed_to(feed, events[-1].id)
        except Exception as error:  # noqa: BLE001 (whatever the broker or the store goes through: the events wait)
            known = isinstance(error, TrimtabError)
            sent.failures += 1
            sent.last_error = str(error) if known else f"{type(error).__name__}: {error}"
            log.warning("notifications wait (event %d): %s", sent.position, sent.last_error)
            tell(sent)
            pause = min(SLOWEST_S, max(pace.idle_s, 2 * pause))
            await sleep(pause)
            continue
        pause = 0.0
        if events:
            sent.position = events[-1].id
            sent.events += len(events)
            sent.notifications += len(told)
            tell(sent)
        if len(events) < pace.batch:
            await sleep(pace.idle_s)


async def _drop(store: StorePort, feed: str, sent: Sent, backlog: int) -> int:
    """Go past the oldest events where too many wait; how many were lost."""
    newest = await store.newest_event()
    lost = newest - sent.position - backlog
    if lost <= 0:
        return 0
    sent.position += lost
    await store.feed_to(feed, sent.position)
    log.error("%d events were dropped: the broker was away for longer than %d events", lost, backlog)
    return lost
