"""Every state times every event of every machine, through the real store: no move without an edge."""

from typing import Any
from uuid import uuid4

import pytest

from trimtab.platform.errors import IllegalTransition, InvalidInput
from trimtab.platform.records import RECORDS, Audit, Claimable, Event, Goal
from trimtab.platform.states import MACHINES, Machine
from trimtab.platform.store.state import Store

FIELDS: dict[str, dict[str, Any]] = {
    "audit": {"audit_type": "ONESHOT", "goal_id": 1},
    "action_plan": {"audit_id": 1, "strategy_id": 1},
    "action": {"action_plan_id": 1, "action_type": "nop"},
    "what_if": {"name": "sweep"},
}


def make(store: Store, machine: Machine, kind: str, state: str) -> Any:
    """A live record in a state; DELETED can only be reached by deleting."""
    names: dict[str, Any] = {"name": str(uuid4())} if kind == "audit" else {}
    cls: Any = RECORDS[kind]
    before = next(s for (s, e) in machine.edges if e == "delete") if state == "DELETED" else state
    record = store.create(cls(uuid=str(uuid4()), state=before, **FIELDS[kind], **names))
    return store.delete(cls, record.uuid) if state == "DELETED" else record


@pytest.mark.parametrize("kind", MACHINES)
def test_exactly_the_edges_of_the_machine_can_be_walked(kind: str) -> None:
    machine, store = MACHINES[kind], Store(None)
    events = [*sorted({event for _, event in machine.edges}), "explode", ""]
    walked = 0
    for state in machine.states:
        for event in events:
            record = make(store, machine, kind, state)
            seen = len(store.events())
            if state == "DELETED":
                assert store.find(type(record), record.uuid) is None  # nothing can happen to it at all
                continue
            target = machine.edges.get((state, event))
            if target is None:
                with pytest.raises(IllegalTransition, match=f"is {state}: cannot {event}"):
                    store.transition(type(record), record.uuid, event, message="no")
                assert store.get(type(record), record.uuid) == record
                assert len(store.events()) == seen
                continue
            after = store.transition(type(record), record.uuid, event)
            walked += 1
            assert after.state == target
            assert store.get(type(record), record.uuid, deleted=True) == after
            happened = store.events()[-1]
            assert (happened.record_uuid, happened.event) == (record.uuid, event)
            assert (happened.old_state, happened.new_state) == (state, target)
    assert walked == len(machine.edges)
    store.close()


@pytest.mark.parametrize("kind", MACHINES)
def test_all_at_once_moves_those_that_can_and_no_others(kind: str) -> None:
    machine, store = MACHINES[kind], Store(None)
    cls: Any = RECORDS[kind]
    for event in sorted({event for _, event in machine.edges if event != "delete"}):
        made = {state: make(store, machine, kind, state) for state in machine.states if state != "DELETED"}
        mine = {"uuid": [record.uuid for record in made.values()]}
        seen = store.events(limit=10_000)
        edges = {state: to for (state, name), to in machine.edges.items() if name == event}
        assert store.transition_all(cls, mine, event, message="all") == len(edges)
        for state, record in made.items():
            after = store.get(cls, record.uuid)
            assert after.state == edges.get(state, state)
            assert (after.status_message == "all") == (state in edges)
            assert (after == record) == (state not in edges)
        log = store.events(limit=10_000)[len(seen) :]
        assert {(e.old_state, e.new_state, e.event) for e in log} == {(s, t, event) for s, t in edges.items()}
        assert len(log) == len(edges)
    store.close()


def test_a_transition_carries_changes_and_its_message() -> None:
    store = Store(None)
    audit = store.create(Audit(uuid=str(uuid4()), name="a", state="PENDING", audit_type="ONESHOT", goal_id=1))
    running = store.transition(Audit, audit.uuid, "run", {"hostname": "engine"}, message="here we go")
    assert (running.state, running.hostname, running.status_message) == ("ONGOING", "engine", "here we go")
    after = store.transition(Audit, audit.uuid, "succeed")
    assert after.status_message == "here we go", "no message leaves the old one"
    assert isinstance(after, Claimable)
    store.close()


def test_only_records_with_states_move_and_nothing_is_deleted_wholesale() -> None:
    store = Store(None)
    goal = store.create(Goal(uuid=str(uuid4()), name="g", display_name="G"))
    with pytest.raises(InvalidInput, match="A goal has no states"):
        store.transition(Goal, goal.uuid, "run")
    with pytest.raises(InvalidInput, match="one by one"):
        store.transition_all(Audit, {}, "delete")
    with pytest.raises(InvalidInput, match="A goal has no states"):
        store.transition(Goal, goal.uuid, "delete", message="gone")
    with pytest.raises(InvalidInput, match="history"):
        store.transition_all(Event, {}, "run")
    store.close()
