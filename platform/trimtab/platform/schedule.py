"""When continuous audits run: intervals in seconds or as cron expressions, and what is due at a moment; no clock here.

All times are aware UTC. Ticks are a grid: whoever comes late joins it at the next tick, ticks that were missed are
made up for by no run, and a run that takes longer than the interval skips the ticks it covers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from croniter import croniter
from croniter.croniter import CroniterBadDateError, CroniterError

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import Audit
from trimtab.platform.states import AuditState

LONGEST_S = 100 * 366 * 86_400  # beyond it, dates would leave the calendar
ACTIVE = (AuditState.PENDING, AuditState.ONGOING)
# H and R stand for a time of croniter's own choice, another one at every look.
_OF_ITS_CHOICE = re.compile(r"(^|[\s,])[HRhr](?=$|[\s,/(])")


@dataclass(frozen=True, slots=True)
class Interval:
    """Either so many seconds or a cron expression of 5, 6 (the sixth: seconds) or 7 fields (the seventh: years)."""

    seconds: int | None
    cron: str | None = None


def parse_interval(text: str) -> Interval:
    """What an audit's `interval` says: "3600" or "*/5 * * * *".

    Raises:
        InvalidInput: neither; or seconds below one or beyond a hundred years.
    """
    text = text.strip()
    if re.fullmatch(r"[+-]?\d{1,30}", text, re.ASCII):
        seconds = int(text)
        if not 1 <= seconds <= LONGEST_S:
            raise InvalidInput(f"interval cannot be {text}: give 1 to {LONGEST_S} seconds or a cron expression")
        return Interval(seconds)
    try:
        croniter.expand(text)
    except (CroniterError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise InvalidInput(
            f"interval {text[:80]!r} is neither a number of seconds nor a cron expression of 5 to 7 fields: {error}"
        ) from error
    if _OF_ITS_CHOICE.search(text):
        raise InvalidInput(f"interval {text[:80]!r} leaves times to chance: write numbers instead of H and R")
    return Interval(None, text)


def next_run(interval: Interval, now: datetime, last: datetime | None = None) -> datetime | None:
    """The first tick after `now`; None when a cron expression has none any more.

    Args:
        interval: when it runs.
        now: the moment.
        last: a tick of the grid of seconds, in the past or future; without one the grid begins now. The grid of a cron
            expression is that of the calendar, in UTC.
    """
    if interval.cron is not None:
        try:
            found: datetime = croniter(interval.cron, now.astimezone(UTC)).get_next(datetime)
        except (CroniterBadDateError, OverflowError, ValueError):
            return None
        return found
    every = timedelta(seconds=interval.seconds or 1)
    if last is None:
        return now + every
    # Exactly what Watcher does after a restart: now + interval - (now - last) modulo interval.
    return now + every - (now - last) % every


def planned(audit: Audit, now: datetime) -> datetime | None:
    """When a continuous audit that nobody runs at the moment should run next; what `next_run_time` should say.

    A time in the past means: it is due. None: not planned (yet); one with seconds is due at once then. An interval
    that was changed counts from now on, unless the old one would have come earlier.

    Raises:
        InvalidInput: its interval is none.
    """
    interval, stored = parse_interval(audit.interval or ""), audit.next_run_time
    if not started(audit, now):
        return stored
    if stored is not None and stored <= now:
        return stored
    if interval.cron is not None:
        return next_run(interval, now)
    latest = next_run(interval, now)
    return stored if stored is None or latest is None else min(stored, latest)


def after_pause(audit: Audit, now: datetime) -> datetime | None:
    """`next_run_time` after nobody was there to run it: ticks that were missed are skipped, future ones are kept.

    Raises:
        InvalidInput: its interval is none.
    """
    stored = audit.next_run_time
    if stored is None or stored > now:
        return stored
    return next_run(parse_interval(audit.interval or ""), now, stored)


def started(audit: Audit, now: datetime) -> bool:
    """Whether its start_time has come."""
    return audit.start_time is None or audit.start_time <= now


def expired(audit: Audit, now: datetime) -> bool:
    """Whether it is a continuous audit whose time is over."""
    return (
        audit.audit_type == "CONTINUOUS"
        and audit.state in ACTIVE
        and audit.end_time is not None
        and audit.end_time <= now
    )


def due(audit: Audit, now: datetime) -> bool:
    """Whether an audit that nobody runs at the moment is to be run now.

    ONESHOT: as long as it has not ended. EVENT: its webhook was called, or its run was broken off. CONTINUOUS: between
    start_time and end_time, when `next_run_time` has come; the first time at once with seconds, at the first tick with
    cron; and at once when the last run was broken off (somebody still has its expired lease).

    Raises:
        InvalidInput: its interval is none.
    """
    if audit.audit_type == "EVENT":
        broken_off = audit.state == AuditState.ONGOING and audit.owner is not None
        return broken_off or (audit.triggered_at is not None and audit.state in (*ACTIVE, AuditState.SUCCEEDED))
    if audit.state not in ACTIVE:
        return False
    if audit.audit_type != "CONTINUOUS":
        return True
    if expired(audit, now) or not started(audit, now):
        return False
    if audit.next_run_time is None:
        return parse_interval(audit.interval or "").seconds is not None
    return audit.next_run_time <= now
