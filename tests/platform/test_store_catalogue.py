"""Catalogue synchronisation: what is new, reworded, changed or gone, and what happens to those who depended on it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import ActionDescription, ActionPlan, Audit, AuditTemplate, Goal, Strategy
from trimtab.platform.store.catalogue import Synced, meaning
from trimtab.platform.store.state import Store

SPEC = [{"name": "hosts", "description": "Hosts in use", "unit": None, "schema": '{"type": "integer", "minimum": 0}'}]
PARAMETERS = {
    "properties": {
        "threshold": {"type": "number", "default": 25.0, "description": "When a host is hot", "title": "Threshold"},
        "description": {"type": "string", "default": "a parameter of that name"},
    }
}


def goal(name: str = "balance", **more: Any) -> Goal:
    plain = {"display_name": name.title(), "efficacy_specification": SPEC}
    return Goal(uuid=str(uuid4()), name=name, **{**plain, **more})


def strategy(name: str = "mover", serves: str = "balance", **more: Any) -> tuple[Strategy, str]:
    plain = {"display_name": name.title(), "parameters_spec": PARAMETERS}
    return Strategy(uuid=str(uuid4()), name=name, goal_id=0, **{**plain, **more}), serves


@pytest.fixture
def store() -> Iterator[Store]:
    """Two goals with a strategy each; of each a template, audits in every situation, and their plans."""
    opened = Store(None)
    opened.sync_catalogue(*usual(), {"nop": "Does nothing"})
    for name in ("mover", "packer"):
        row = opened.get(Strategy, name)
        mine: dict[str, Any] = {"goal_id": row.goal_id, "strategy_id": row.id}
        opened.create(AuditTemplate(uuid=str(uuid4()), name=name, **mine))
        for state in ("PENDING", "ONGOING", "SUCCEEDED", "SUSPENDED"):
            label = f"{name}-{state}"
            audit = opened.create(Audit(uuid=str(uuid4()), name=label, audit_type="ONESHOT", state=state, **mine))
            for plan_state in ("RECOMMENDED", "ONGOING", "SUCCEEDED"):
                plan = ActionPlan(uuid=str(uuid4()), audit_id=audit.id, strategy_id=row.id, state=plan_state)
                opened.create(plan)
    yield opened
    opened.close()


def usual() -> tuple[list[Goal], list[tuple[Strategy, str]]]:
    return [goal(), goal("pack")], [strategy(), strategy("packer", "pack")]


def states(store: Store, name: str) -> tuple[list[str], list[str]]:
    """The audits' states (once PENDING, ONGOING, SUCCEEDED, SUSPENDED) and those of the plans of the first audit."""
    audits = [audit for audit in store.list(Audit) if audit.name.startswith(name)]
    return [audit.state for audit in audits], [
        plan.state for plan in store.list(ActionPlan, {"audit_id": audits[0].id})
    ]


UNTOUCHED = (["PENDING", "ONGOING", "SUCCEEDED", "SUSPENDED"], ["RECOMMENDED", "ONGOING", "SUCCEEDED"])
CANCELLED = (["CANCELLED", "CANCELLED", "SUCCEEDED", "CANCELLED"], ["CANCELLED", "CANCELLING", "SUCCEEDED"])


def pointed_to(store: Store, name: str) -> set[tuple[int, int | None]]:
    template = store.get(AuditTemplate, name)
    audits = [audit for audit in store.list(Audit) if audit.name.startswith(name)]
    return {(template.goal_id, template.strategy_id)} | {(audit.goal_id, audit.strategy_id) for audit in audits}


def test_a_first_synchronisation_creates_everything() -> None:
    store = Store(None)
    done = store.sync_catalogue(*usual(), {"nop": "Does nothing"})
    assert done == Synced(created=["goal balance", "goal pack", "strategy mover", "strategy packer", "action nop"])
    assert store.get(Strategy, "packer").goal_id == store.get(Goal, "pack").id
    assert store.get(ActionDescription, "nop").description == "Does nothing"
    store.close()


def test_the_same_catalogue_again_changes_nothing(store: Store) -> None:
    before = store.list(Goal), store.list(Strategy), store.list(ActionDescription), store.events()
    assert store.sync_catalogue(*usual(), {"nop": "Does nothing"}) == Synced()
    assert (store.list(Goal), store.list(Strategy), store.list(ActionDescription), store.events()) == before
    assert states(store, "mover") == states(store, "packer") == UNTOUCHED


def test_rewording_updates_in_place_and_cancels_nothing(store: Store) -> None:
    old_goal, old_strategy = store.get(Goal, "balance"), store.get(Strategy, "mover")
    spec = [{**SPEC[0], "description": "How many hosts run", "schema": json.dumps(
        {"type": "integer", "minimum": 0, "description": "counted"})}]  # fmt: skip
    parameters = json.loads(json.dumps(PARAMETERS).replace("When a host is hot", "Hot from here on"))
    goals = [goal(efficacy_specification=spec), goal("pack")]
    strategies = [
        strategy(display_name="The mover", parameters_spec={**parameters, "title": "New"}),
        strategy("packer", "pack"),
    ]
    done = store.sync_catalogue(goals, strategies, {"nop": "Does nothing at all"})
    assert done == Synced(reworded=["goal balance", "strategy mover", "action nop"])
    new_goal, new_strategy = store.get(Goal, "balance"), store.get(Strategy, "mover")
    assert new_goal == replace(old_goal, efficacy_specification=spec, updated_at=new_goal.updated_at)
    assert (new_strategy.uuid, new_strategy.display_name) == (old_strategy.uuid, "The mover")
    assert new_strategy.parameters_spec["properties"]["threshold"]["description"] == "Hot from here on"
    assert store.get(ActionDescription, "nop").description == "Does nothing at all"
    assert states(store, "mover") == UNTOUCHED


@pytest.mark.parametrize(
    "changed",
    [
        {"properties": {**PARAMETERS["properties"], "threshold": {"type": "number", "default": 30.0}}},
        {"properties": {**PARAMETERS["properties"], "new": {"type": "string"}}},
        {"properties": {"threshold": PARAMETERS["properties"]["threshold"]}},
    ],
    ids=["a default", "one more parameter", "the parameter named description is gone"],
)
def test_a_changed_strategy_is_replaced_and_cancels_what_it_made(store: Store, changed: dict[str, Any]) -> None:
    old = store.get(Strategy, "mover")
    strategies = [strategy(parameters_spec=changed), strategy("packer", "pack")]
    assert store.sync_catalogue(usual()[0], strategies, {}) == Synced(replaced=["strategy mover"])
    new = store.get(Strategy, "mover")
    assert new.uuid != old.uuid
    assert store.get(Strategy, old.uuid, deleted=True).deleted == old.id
    assert pointed_to(store, "mover") == {(old.goal_id, new.id)}
    assert {plan.strategy_id for plan in store.list(ActionPlan)} == {new.id, store.get(Strategy, "packer").id}
    assert states(store, "mover") == CANCELLED
    assert states(store, "packer") == UNTOUCHED


def test_a_strategy_that_serves_another_goal_is_replaced(store: Store) -> None:
    done = store.sync_catalogue(usual()[0], [strategy("mover", "pack"), strategy("packer", "pack")], {})
    assert done == Synced(replaced=["strategy mover"])
    assert store.get(Strategy, "mover").goal_id == store.get(Goal, "pack").id
    assert states(store, "mover") == CANCELLED


def test_a_changed_goal_is_replaced_with_its_strategies(store: Store) -> None:
    old = store.get(Goal, "balance")
    goals = [goal(efficacy_specification=[{**SPEC[0], "unit": "%"}]), goal("pack")]
    done = store.sync_catalogue(goals, usual()[1], {})
    assert done == Synced(replaced=["goal balance", "strategy mover"])
    new = store.get(Goal, "balance")
    assert new.uuid != old.uuid
    assert pointed_to(store, "mover") == {(new.id, store.get(Strategy, "mover").id)}
    assert states(store, "mover") == CANCELLED, "its strategy was replaced too, and that cancels audits"
    assert states(store, "packer") == UNTOUCHED


def test_a_changed_goal_alone_cancels_plans_and_not_audits(store: Store) -> None:
    row = store.get(Goal, "balance")
    audit = store.create(Audit(uuid=str(uuid4()), name="free", audit_type="ONESHOT", state="PENDING", goal_id=row.id))
    plan = store.create(ActionPlan(uuid=str(uuid4()), audit_id=audit.id, strategy_id=99, state="RECOMMENDED"))
    goals = [goal(efficacy_specification=[]), goal("pack")]
    store.sync_catalogue(goals, usual()[1], {})
    after = store.get(Audit, "free")
    assert (after.state, after.goal_id) == ("PENDING", store.get(Goal, "balance").id)
    assert store.get(ActionPlan, plan.uuid).state == "CANCELLED"


def test_a_removed_strategy_is_forgotten_by_templates_and_cancels_the_rest(store: Store) -> None:
    old = store.get(Strategy, "mover")
    assert store.sync_catalogue(usual()[0], usual()[1][1:], {}) == Synced(removed=["strategy mover"])
    assert store.find(Strategy, "mover") is None
    template = store.get(AuditTemplate, "mover")
    assert (template.goal_id, template.strategy_id) == (old.goal_id, None)
    assert states(store, "mover") == CANCELLED
    assert states(store, "packer") == UNTOUCHED
    cancelled = store.get(Audit, "mover-PENDING")
    assert cancelled.status_message == "The strategy mover was changed or removed."
    assert [event.event for event in store.events(record_uuid=cancelled.uuid)] == ["create", "cancel"]


def test_a_removed_goal_stays_in_templates_and_cancels_audits(store: Store) -> None:
    old = store.get(Goal, "balance")
    row = Audit(uuid=str(uuid4()), name="free", audit_type="ONESHOT", state="PENDING", goal_id=old.id)
    plan = store.create(
        ActionPlan(uuid=str(uuid4()), audit_id=store.create(row).id, strategy_id=99, state="RECOMMENDED")
    )
    done = store.sync_catalogue(usual()[0][1:], usual()[1][1:], {})
    assert done == Synced(removed=["goal balance", "strategy mover"])
    assert store.get(AuditTemplate, "mover").goal_id == old.id
    assert store.get(Audit, "free").state == "CANCELLED"
    assert store.get(ActionPlan, plan.uuid).state == "RECOMMENDED", "only a removed strategy cancels plans"
    assert states(store, "packer") == UNTOUCHED


def test_what_comes_back_is_new(store: Store) -> None:
    old = store.get(Strategy, "mover")
    store.sync_catalogue(usual()[0], usual()[1][1:], {})
    assert store.sync_catalogue(*usual(), {}) == Synced(created=["strategy mover"])
    assert store.get(Strategy, "mover").id > old.id


@pytest.mark.parametrize(
    ("goals", "strategies", "text"),
    [
        ([goal()], [strategy(serves="peace")], "Strategy mover serves goal peace, which no plug-in provides"),
        ([goal(), goal()], [], "Two plug-ins are called balance"),
        ([goal()], [strategy(), strategy()], "Two plug-ins are called mover"),
    ],
)
def test_a_catalogue_that_contradicts_itself_changes_nothing(
    store: Store, goals: Sequence[Goal], strategies: Sequence[tuple[Strategy, str]], text: str
) -> None:
    before = store.list(Goal), store.list(Strategy)
    with pytest.raises(InvalidInput, match=text):
        store.sync_catalogue(goals, strategies, {})
    assert (store.list(Goal), store.list(Strategy)) == before


def test_meaning_is_everything_but_words() -> None:
    assert meaning({"description": "a", "type": "x"}) == {"type": "x"}
    assert meaning({"properties": {"title": {"title": "T", "type": "x"}}}) == {"properties": {"title": {"type": "x"}}}
    assert meaning({"default": {"description": "data"}}) == {"default": {"description": "data"}}
    assert meaning([{"schema": "no JSON", "description": {"odd": 1}}]) == [
        {"schema": "no JSON", "description": {"odd": 1}}
    ]
