"""When continuous audits run: what intervals are, the grid of ticks, changed intervals, pauses, start and end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import Audit
from trimtab.platform.schedule import LONGEST_S, Interval, after_pause, due, expired, next_run, parse_interval, planned

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
seconds = st.integers(1, 10_000_000)
crons = st.sampled_from(
    ["*/5 * * * *", "0 3 * * 1-5", "30 2 1 * *", "* * * * * */15", "0 0 1 1 * 0 2020-2090/3", "15,45 */2 * * sun"]
)


def audit(kind: str = "CONTINUOUS", **fields: Any) -> Audit:
    defaults: dict[str, Any] = {"state": "PENDING", "interval": "60" if kind == "CONTINUOUS" else None}
    return Audit(uuid=str(uuid4()), name="a", audit_type=kind, goal_id=1, **defaults | fields)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3600", Interval(3600)),
        (" 1 ", Interval(1)),
        ("+5", Interval(5)),
        (str(LONGEST_S), Interval(LONGEST_S)),
        ("*/5 * * * *", Interval(None, "*/5 * * * *")),
        ("* * * * * */15", Interval(None, "* * * * * */15")),
        ("0 0 1 1 * 0 2027", Interval(None, "0 0 1 1 * 0 2027")),
        ("0 0 * mar fri", Interval(None, "0 0 * mar fri")),
    ],
)
def test_an_interval_is_seconds_or_cron(text: str, wanted: Interval) -> None:
    assert parse_interval(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "0", "-60", str(LONGEST_S + 1), "9" * 30, "", " ", "soon", "3.5", "1e3", "٣", "* * * *", "* * * * * * * *",
        "60 * * * *", "0 25 * * *", "* * 32 * *", "* * * 13 *", "* * * * * 60", "*/0 * * * *", "a b c d e",
        "R * * * *", "H H * * *", "r(0-30) * * * *", "5-1-2 * * * *", "1,,2 * * * *",
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_named(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^interval"):
        parse_interval(text)


@given(st.text(max_size=30))
def test_no_text_makes_more_than_a_refusal(text: str) -> None:
    try:
        interval = parse_interval(text)
    except InvalidInput:
        return
    assert (interval.seconds is None) != (interval.cron is None)


@given(moments, seconds, st.timedeltas(timedelta(days=-9_999), timedelta(days=9_999)))
def test_seconds_tick_on_a_grid_through_the_last_tick(now: datetime, every: int, ago: timedelta) -> None:
    interval, last = Interval(every), now - ago
    tick = next_run(interval, now, last)
    assert tick is not None
    assert (tick - last) % timedelta(seconds=every) == timedelta(0)
    assert timedelta(0) < tick - now <= timedelta(seconds=every), "the next one, however many were missed"
    assert next_run(interval, now) == now + timedelta(seconds=every)


def test_after_a_restart_the_next_tick_is_where_watcher_has_it() -> None:
    old = NOON - timedelta(seconds=130)
    assert after_pause(audit(interval="60", next_run_time=old), NOON) == NOON + timedelta(seconds=60 - 130 % 60)
    assert after_pause(audit(interval="60", next_run_time=NOON + SECOND), NOON) == NOON + SECOND, "the future is kept"
    assert after_pause(audit(interval="60"), NOON) is None, "never run: the first run is due at once"
    assert after_pause(audit(interval="0 * * * *", next_run_time=old), NOON) == NOON + timedelta(hours=1)


@given(moments, crons)
def test_cron_ticks_follow_each_other_without_a_gap(now: datetime, text: str) -> None:
    interval = parse_interval(text)
    first = next_run(interval, now)
    assert first is not None
    assert first > now
    assert first.tzinfo is not None
    second = next_run(interval, first)
    assert second is not None
    assert second > first
    between = now + (first - now) / 2
    assert next_run(interval, between) == first
    assert next_run(interval, first - SECOND / 2) == first


def test_cron_is_in_utc_whatever_zone_the_moment_is_given_in() -> None:
    interval = parse_interval("0 3 * * *")
    moment = NOON.astimezone(timezone(timedelta(hours=9)))
    assert next_run(interval, moment) == datetime(2026, 3, 2, 3, tzinfo=UTC)


def test_the_sixth_field_is_seconds_and_the_seventh_years() -> None:
    assert next_run(parse_interval("* * * * * */15"), NOON) == NOON + 15 * SECOND
    assert next_run(parse_interval("0 0 1 1 * 7 2028"), NOON) == datetime(2028, 1, 1, 0, 0, 7, tzinfo=UTC)


@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 1 1 * 0 2020"])
def test_a_cron_expression_that_never_comes_again_has_no_next_run(text: str) -> None:
    assert next_run(parse_interval(text), NOON) is None
    never = audit(interval=text)
    assert planned(never, NOON) is None
    assert not due(never, NOON)


# -- what is due -----------------------------------------------------------------------------------------


def test_a_new_continuous_audit_is_due_at_once_with_seconds_and_at_its_first_tick_with_cron() -> None:
    assert due(audit(interval="3600"), NOON)
    assert planned(audit(interval="3600"), NOON) is None
    cron = audit(interval="30 * * * *")
    assert not due(cron, NOON)
    tick = NOON + timedelta(minutes=30)
    assert planned(cron, NOON) == tick
    waiting = replace(cron, next_run_time=tick)
    assert not due(waiting, tick - SECOND)
    assert due(waiting, tick)
    assert planned(waiting, tick + SECOND) == tick, "a tick that has come is not put off by looking at it"


def test_start_and_end_time_bound_a_continuous_audit() -> None:
    later = audit(start_time=NOON + SECOND, end_time=NOON + 10 * SECOND)
    assert not due(later, NOON)
    assert planned(replace(later, interval="* * * * *"), NOON) is None, "no tick before its start"
    assert due(later, NOON + SECOND)
    assert due(later, NOON + 9 * SECOND)
    assert not expired(later, NOON + 9 * SECOND)
    assert expired(later, NOON + 10 * SECOND)
    assert not due(later, NOON + 10 * SECOND)
    assert expired(replace(later, state="ONGOING"), NOON + 10 * SECOND)
    assert not expired(replace(later, state="SUSPENDED"), NOON + 10 * SECOND)
    assert not expired(audit("EVENT", end_time=NOON), NOON + SECOND), "of continuous audits only"


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELLED", "SUSPENDED"])
def test_an_audit_that_ended_or_is_suspended_is_never_due(state: str) -> None:
    assert not due(audit(state=state, next_run_time=NOON - SECOND), NOON)
    assert not due(audit(state=state), NOON)
    assert not due(audit("ONESHOT", state=state), NOON)


@pytest.mark.parametrize(
    ("state", "called", "wanted"),
    [
        ("PENDING", False, False),
        ("PENDING", True, True),
        ("SUCCEEDED", False, False),
        ("SUCCEEDED", True, True),
        ("ONGOING", False, False),
        ("ONGOING", True, True),
        ("FAILED", True, False),
        ("CANCELLED", True, False),
        ("SUSPENDED", True, False),
    ],
)
def test_an_event_audit_waits_for_its_webhook(state: str, called: bool, wanted: bool) -> None:
    assert due(audit("EVENT", state=state, triggered_at=NOON if called else None), NOON) == wanted


def test_an_event_run_that_was_broken_off_is_due_again() -> None:
    assert due(audit("EVENT", state="ONGOING", owner="engine@dead"), NOON)


def test_oneshot_audits_are_due_until_they_end() -> None:
    assert due(audit("ONESHOT"), NOON)
    assert due(audit("ONESHOT", state="ONGOING"), NOON)


@given(moments, seconds, seconds)
def test_a_shorter_interval_counts_from_now_and_a_longer_one_after_the_next_run(
    now: datetime, old: int, new: int
) -> None:
    waiting = audit(state="ONGOING", interval=str(new), next_run_time=now + timedelta(seconds=old))
    assert planned(waiting, now) == now + timedelta(seconds=min(old, new))


def test_a_changed_cron_expression_counts_at_once() -> None:
    waiting = audit(state="ONGOING", interval="0 * * * *", next_run_time=NOON + timedelta(minutes=5))
    assert planned(waiting, NOON) == NOON + timedelta(hours=1)
    assert planned(replace(waiting, interval="*/2 * * * *"), NOON) == NOON + timedelta(minutes=2)
    far = replace(waiting, interval="60", next_run_time=NOON + timedelta(days=300))
    assert planned(far, NOON) == NOON + timedelta(seconds=60), "from cron to seconds"


def test_an_interval_that_is_none_is_told_and_not_run() -> None:
    for broken in (audit(interval=None), audit(interval="soon")):
        with pytest.raises(InvalidInput):
            due(broken, NOON)
        with pytest.raises(InvalidInput):
            planned(broken, NOON)
