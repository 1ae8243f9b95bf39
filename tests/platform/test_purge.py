"""Purging: which rows go by age, goal, limit and as orphans; who stays because somebody needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput, NotFound
from trimtab.platform.records import (
    RECORDS,
    Action,
    ActionPlan,
    Audit,
    AuditTemplate,
    CandidateRecord,
    EfficacyIndicator,
    Event,
    Explanation,
    Goal,
    Record,
    Strategy,
    WhatIf,
)
from trimtab.platform.store.purging import PARENTS, Key, Sketch, chosen, limited
from trimtab.platform.store.state import Store

START = datetime(2026, 1, 1, tzinfo=UTC)


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def days(self, days: float) -> None:
        self.now += timedelta(days=days)


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def store(hand: Hand) -> Iterator[Store]:
    opened = Store(None, hand)
    yield opened
    opened.close()


def new(cls: Any, **fields: Any) -> Any:
    return cls(uuid=str(uuid4()), **fields)


def family(store: Store, name: str, *, audits: int = 1, actions: int = 2, plan: str = "SUCCEEDED") -> dict[str, Any]:
    """A goal with a strategy, a template, and audits with one plan of some actions each."""
    goal = store.create(new(Goal, name=name, display_name=name))
    strategy = store.create(new(Strategy, name=name, display_name=name, goal_id=goal.id))
    points: dict[str, Any] = {"goal_id": goal.id, "strategy_id": strategy.id}
    template = store.create(new(AuditTemplate, name=name, **points))
    made: dict[str, Any] = {"goal": goal, "strategy": strategy, "template": template, "audits": [], "plans": []}
    for number in range(audits):
        audit = new(Audit, name=f"{name} {number}", audit_type="ONESHOT", state="SUCCEEDED", **points)
        made["audits"].append(audit := store.create(audit))
        row = store.create(new(ActionPlan, audit_id=audit.id, strategy_id=strategy.id, state=plan))
        made["plans"].append(row)
        store.create(new(CandidateRecord, audit_id=audit.id, number=0, strategy_name=name, verdict="chosen"))
        store.create(new(EfficacyIndicator, action_plan_id=row.id, name="moves", data=1.0))
        for _ in range(actions):
            action = store.create(new(Action, action_plan_id=row.id, action_type="nop", state="SUCCEEDED"))
            store.create(Explanation(uuid=action.uuid, action_plan_id=row.id))
    return made


def rows(store: Store) -> Counter[str]:
    """How many rows there are of each kind, deleted ones too; without events."""
    kinds = [kind for kind in RECORDS.values() if kind is not Event]
    return +Counter({kind.kind: len(store.list(kind, deleted=True)) for kind in kinds})


def test_nothing_that_is_live_and_whole_is_purged(store: Store) -> None:
    family(store, "balance")
    before = rows(store), store.events()
    assert store.purge().found == Counter()
    assert (rows(store), store.events()) == before


def test_a_deleted_plan_goes_with_all_that_belongs_to_it(store: Store) -> None:
    made = family(store, "balance", audits=2)
    store.delete(ActionPlan, made["plans"][0].uuid)
    done = store.purge()
    assert done.found == Counter(action_plan=1, action=2)
    # Explanations went when the plan was deleted; three creations, and all deletions but the newest event.
    assert done.removed == Counter(action_plan=1, action=2, efficacy_indicator=1, event=5)
    assert not store.events(record_uuid=made["plans"][0].uuid)
    assert [plan.id for plan in store.list(ActionPlan, deleted=True)] == [made["plans"][1].id]
    assert len(store.list(Explanation)) == len(store.list(Action)) == 2
    assert store.purge().found == Counter(), "once is enough"


def test_only_what_was_deleted_long_enough_ago_goes(store: Store, hand: Hand) -> None:
    made = family(store, "balance", audits=2, plan="RECOMMENDED")
    store.delete(ActionPlan, made["plans"][0].uuid)
    hand.days(10)
    store.delete(ActionPlan, made["plans"][1].uuid)
    hand.days(1)
    assert store.purge(age_days=11, dry_run=True).found == Counter(), "not longer ago than that"
    assert store.purge(age_days=5).found == Counter(action_plan=1, action=2)
    assert [plan.uuid for plan in store.list(ActionPlan, deleted=True)] == [made["plans"][1].uuid]
    assert store.purge(age_days=0.5).found == Counter(action_plan=1, action=2)


def test_a_dry_run_counts_and_removes_nothing(store: Store) -> None:
    made = family(store, "balance")
    store.delete(AuditTemplate, made["template"].uuid)
    store.delete(Audit, made["audits"][0].uuid)
    before = rows(store), store.events()
    done = store.purge(dry_run=True)
    assert done.found == done.removed == Counter(audit_template=1, audit=1, action_plan=1, action=2)
    assert (rows(store), store.events()) == before


def test_plans_of_a_deleted_audit_are_orphans_unless_somebody_works_on_them(store: Store) -> None:
    made = family(store, "balance", audits=2)
    busy = store.create(
        new(ActionPlan, audit_id=made["audits"][1].id, strategy_id=made["strategy"].id, state="ONGOING")
    )
    for audit in made["audits"]:
        store.delete(Audit, audit.uuid)
    assert store.purge(orphans=False, dry_run=True).found == Counter(), "live plans point at both audits"
    assert store.purge().found == Counter(audit=1, action_plan=2, action=4)
    assert [plan.uuid for plan in store.list(ActionPlan)] == [busy.uuid]
    assert store.get(Audit, made["audits"][1].uuid, deleted=True).id == busy.audit_id, "its plan points at it"


def test_a_removed_goal_takes_everything_under_it_along_and_nothing_else(store: Store) -> None:
    family(store, "balance", audits=2)
    other = family(store, "pack")
    removed, kept = store.get(Goal, "balance"), rows(store)
    store.delete(Goal, removed.uuid)
    done = store.purge(goal="balance")
    wanted = Counter(goal=1, strategy=1, audit_template=1, audit=2, action_plan=2, action=4)
    assert done.found == wanted
    extra = Counter(candidate=2, efficacy_indicator=2, explanation=4)
    assert rows(store) == kept - wanted - extra
    assert store.get(Goal, "pack").uuid == other["goal"].uuid


def test_a_goal_to_purge_must_be_deleted_and_known(store: Store) -> None:
    family(store, "balance")
    with pytest.raises(InvalidInput, match="Goal balance is not deleted"):
        store.purge(goal="balance")
    with pytest.raises(NotFound, match="Goal heat could not be found"):
        store.purge(goal="heat")
    wrongs: tuple[dict[str, Any], ...] = ({"age_days": -1}, {"most": -1})
    for wrong in wrongs:
        with pytest.raises(InvalidInput, match="from 0 on"):
            store.purge(**wrong)
    store.delete(Goal, "".join(goal.uuid for goal in store.list(Goal)))
    again = store.create(new(Goal, name="balance", display_name="again"))
    assert store.purge(goal="BALANCE", orphans=False, dry_run=True).found == Counter(), "live rows point at it"
    assert store.get(Goal, "balance").uuid == again.uuid
    assert store.purge(goal="balance").found["goal"] == 1, "the deleted one of that name"
    assert store.list(Goal, deleted=True) == [again]


def test_a_limit_takes_whole_groups_and_no_live_row(store: Store) -> None:
    made = family(store, "balance", audits=3)  # a deleted audit hangs together with its plan and two actions
    for audit, plan in zip(made["audits"], made["plans"], strict=True):
        store.delete(ActionPlan, plan.uuid)
        store.delete(Audit, audit.uuid)
    live = family(store, "pack")
    store.delete(Strategy, live["strategy"].uuid)
    assert store.purge(most=11, dry_run=True).removed == Counter(audit=2, action_plan=2, action=4)
    assert store.purge(most=3).removed == Counter(), "the first group has four"
    done = store.purge(most=4)
    assert sum(done.found.values()) == 3 * 4 + 6, "and everything live that hangs on the strategy"
    assert done.removed == Counter(audit=1, action_plan=1, action=2, candidate=1, efficacy_indicator=1, event=8)
    assert store.find(ActionPlan, live["plans"][0].uuid) is not None
    assert store.purge(most=17).removed["action"] == 6, "all that were left: the limit is not passed"


def test_deleted_what_ifs_go_too_but_with_no_goal(store: Store) -> None:
    sweep = store.create(new(WhatIf, name="sweep", state="SUCCEEDED"))
    store.delete(WhatIf, sweep.uuid)
    goal = store.create(new(Goal, name="g", display_name="g"))
    store.delete(Goal, goal.uuid)
    assert store.purge(goal="g").found == Counter(goal=1)
    assert store.purge().found == Counter(what_if=1)


def test_old_events_and_keys_are_removed_and_numbers_go_on(store: Store, hand: Hand) -> None:
    first = store.create(new(Audit, name="a", audit_type="ONESHOT", state="PENDING", goal_id=1), key="k")
    newest = store.newest_event()
    hand.days(29)
    assert store.tidy(30) == 0
    hand.days(2)
    assert store.tidy(30) == 1, "the key; the newest event stays"
    assert store.newest_event() == newest
    other = new(Audit, name="b", audit_type="ONESHOT", state="PENDING", goal_id=1)
    assert store.create(other, key="k").uuid == other.uuid != first.uuid, "the key may be used again"
    assert store.tidy(30) == 1
    assert [event.id for event in store.events()] == [newest + 1]


def test_after_a_restart_events_are_numbered_behind_those_that_were_removed(tmp_path: Any, hand: Hand) -> None:
    store = Store(tmp_path / "store.duckdb", hand)
    audit = store.create(new(Audit, name="a", audit_type="ONESHOT", state="SUCCEEDED", goal_id=1))
    store.delete(Audit, audit.uuid)
    newest = store.newest_event()
    store.purge()
    hand.days(100)
    store.tidy(1)
    store.close()
    store = Store(tmp_path / "store.duckdb", hand)
    store.create(new(Audit, name="b", audit_type="ONESHOT", state="PENDING", goal_id=1))
    assert store.newest_event() == newest + 1
    store.close()


# -- the choice, on random forests -----------------------------------------------------------------------

KINDS: list[type[Record]] = list(PARENTS)


@st.composite
def forests(draw: st.DrawFn) -> list[Sketch]:
    made: list[Sketch] = []
    for kind in KINDS:
        for number in range(1, draw(st.integers(0, 4)) + 1):
            parents: list[Key] = []
            for parent in PARENTS[kind].values():
                known = [one.id for one in made if one.kind is parent] + [99]  # 99 is not there at all
                if draw(st.integers(0, 9)) or parent is not Strategy:
                    parents.append((parent, draw(st.sampled_from(known))))
            gone = draw(st.sampled_from([None, None, START, START + timedelta(days=9)]))
            busy = kind in (Audit, ActionPlan) and draw(st.booleans())
            made.append(Sketch(kind, number, f"{kind.kind} {number}", gone, tuple(parents), busy))
    return made


def forlorn(one: Sketch, by_key: Mapping[Key, Sketch], before: datetime | None) -> bool:
    """Whether something above it is not there at all, or was deleted before a moment (None: ever)."""
    for key in one.parents:
        above = by_key.get(key)
        if above is None or forlorn(above, by_key, before):
            return True
        if above.deleted_at is not None and (before is None or above.deleted_at < before):
            return True
    return False


@settings(max_examples=150, deadline=None)
@given(forests(), st.sampled_from([None, START + timedelta(days=5)]), st.booleans(), st.integers(0, 12))
def test_whatever_goes_nothing_that_stays_points_at_it(
    forest: list[Sketch], before: datetime | None, orphans: bool, most: int
) -> None:
    going = chosen(forest, before, None, orphans=orphans)
    taken = limited(forest, going, most)
    assert taken <= going
    assert len(taken) <= most or taken == going
    by_key = {one.key: one for one in forest}
    for gone in (going, taken):
        for one in forest:
            if one.key not in gone:
                assert not gone & set(one.parents)
    for key in going:
        one = by_key[key]
        if one.deleted_at is None:
            assert orphans
            assert not one.busy
            assert forlorn(one, by_key, before), "a live one goes only below something that is gone"
        elif before is not None and one.deleted_at >= before:
            assert forlorn(one, by_key, before), "a fresh one too"
    if len(going) > most:
        assert all(by_key[key].deleted_at is not None for key in taken)
    whole = chosen(forest, None, None, orphans=True)
    assert going <= whole
    left = [one for one in forest if one.key not in whole]
    assert not chosen(left, None, None, orphans=True), "a second purge finds nothing"
