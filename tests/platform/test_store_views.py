"""Rows with what they point at: in one call, deleted targets absent unless asked for, filters by uuid or name."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from trimtab.platform.errors import NotFound
from trimtab.platform.records import ActionPlan, Audit, EfficacyIndicator, Goal, Strategy
from trimtab.platform.store.state import Store
from trimtab.platform.store.views import Reference


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store(None)
    yield store
    store.close()


def fresh() -> str:
    return str(uuid4())


def put(store: Store) -> tuple[Goal, Strategy, Audit, ActionPlan]:
    goal = store.create(Goal(uuid=fresh(), name="g", display_name="G"))
    strategy = store.create(Strategy(uuid=fresh(), name="s", display_name="S", goal_id=goal.id))
    audit = store.create(
        Audit(uuid=fresh(), name="a", audit_type="ONESHOT", state="PENDING", goal_id=goal.id, strategy_id=strategy.id)
    )
    plan = store.create(ActionPlan(uuid=fresh(), audit_id=audit.id, strategy_id=strategy.id, state="RECOMMENDED"))
    store.create(EfficacyIndicator(uuid=fresh(), action_plan_id=plan.id, name="i", data=2.0))
    return goal, strategy, audit, plan


def test_rows_come_with_what_they_point_at(store: Store) -> None:
    goal, strategy, audit, plan = put(store)
    seen = store.view(Audit)
    assert seen.rows == [audit]
    assert seen.related.goals == {goal.id: Reference(goal.uuid, "g")}
    assert seen.related.strategies == {strategy.id: Reference(strategy.uuid, "s")}
    one = store.view_one(ActionPlan, plan.uuid)
    assert one.row == plan
    assert one.related.audits == {audit.id: Reference(audit.uuid, "a")}
    assert [indicator.data for indicator in one.related.indicators[plan.id]] == [2.0]
    assert store.related(plan) == one.related


def test_deleted_targets_are_absent_unless_asked_for(store: Store) -> None:
    goal, _, audit, _ = put(store)
    store.delete(Goal, goal.uuid)
    assert store.view_one(Audit, "a").related.goals == {}
    assert store.view_one(Audit, "a", deleted=True).related.goals == {goal.id: Reference(goal.uuid, "g")}
    assert store.related(audit).goals == {}


@pytest.mark.parametrize("by_uuid", [True, False])
def test_filters_match_what_is_called_so_even_when_it_is_deleted(store: Store, by_uuid: bool) -> None:
    goal, _, audit, _ = put(store)
    store.delete(Goal, goal.uuid)
    ident = goal.uuid if by_uuid else "G"  # names match in any case
    assert store.view(Audit, called={"goal_id": ident}).rows == [audit]
    assert store.view(Audit, called={"goal_id": ident, "strategy_id": "nope"}).rows == []
    assert store.view(Audit, called={"goal_id": str(goal.id)}).rows == [], "an id is no name"


def test_an_unknown_marker_is_told_even_when_nothing_would_match(store: Store) -> None:
    put(store)
    with pytest.raises(NotFound, match="could not be found"):
        store.view(Audit, called={"goal_id": "nope"}, marker=fresh())
