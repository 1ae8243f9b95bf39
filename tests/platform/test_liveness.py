"""Who is alive: fresh signs of life, the one who leads, and what has changed since it was last told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.platform.liveness import ACTIVE, FAILED, Change, changes, leader, status, statuses
from trimtab.platform.records import Service

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOWN = timedelta(seconds=90)


def service(host: str, ago_s: float | None = 0.0, **fields: Any) -> Service:
    seen = None if ago_s is None else NOW - timedelta(seconds=ago_s)
    return Service(uuid=host, name="watcher-applier", host=host, last_seen_up=seen, **fields)


@pytest.mark.parametrize(
    ("ago_s", "wanted"),
    [(0, ACTIVE), (90, ACTIVE), (90.1, FAILED), (1e6, FAILED), (-60, ACTIVE), (-91, FAILED)],
)
def test_a_sign_of_life_counts_for_so_long_and_one_from_the_future_for_no_longer(ago_s: float, wanted: str) -> None:
    assert status(service("a", ago_s), NOW, DOWN) == wanted


def test_without_a_sign_the_row_itself_is_one_and_nothing_at_all_is_none() -> None:
    fresh, old = NOW - timedelta(seconds=5), NOW - timedelta(seconds=500)
    assert status(service("a", None, created_at=fresh), NOW, DOWN) == ACTIVE
    assert status(service("a", None, created_at=old), NOW, DOWN) == FAILED
    assert status(service("a", None, created_at=old, updated_at=fresh), NOW, DOWN) == ACTIVE
    assert status(service("a", None), NOW, DOWN) == FAILED


services = st.dictionaries(st.sampled_from("abcdef"), st.floats(-200, 200)).map(
    lambda ages: [service(host, ago_s) for host, ago_s in ages.items()]
)


@given(services)
def test_the_first_by_name_of_those_alive_leads(rows: list[Service]) -> None:
    states = statuses(rows, NOW, DOWN)
    first = leader(rows, states)
    alive = [row.host for row in rows if states[row.uuid] == ACTIVE]
    assert (first is None) == (not alive)
    assert first is None or (first in alive and all(first <= host for host in alive))
    assert leader(rows[::-1], states) == first


@given(services, services)
def test_a_change_is_told_once(before: list[Service], now: list[Service]) -> None:
    told = statuses(before, NOW, DOWN)
    states = statuses(now, NOW, DOWN)
    for change in (found := changes(now, told, states)):
        assert {change.old, change.new} == {ACTIVE, FAILED}
        assert change.new == states[change.service.uuid]
    assert changes(now, {**told, **{one.service.uuid: one.new for one in found}}, states) == []


def test_who_was_never_told_of_counts_as_active() -> None:
    new, dead = service("a"), service("b", 1_000)
    states = statuses([new, dead], NOW, DOWN)
    assert changes([new, dead], {}, states) == [Change(dead, ACTIVE, FAILED)]
