"""What the store keeps in memory is what is on disk: after changes, conflicts, deletions, and between processes."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import Conflict
from trimtab.platform.records import Audit, Goal
from trimtab.platform.store.kept import MOST_PAGES, Kept
from trimtab.platform.store.state import Store


def audit(name: str, **more: Any) -> Audit:
    return Audit(uuid=str(uuid4()), name=name, audit_type="ONESHOT", state="PENDING", goal_id=1, **more)


@given(
    st.lists(
        st.tuples(st.sampled_from(["make", "rename", "move", "move all", "clash", "look"]), st.integers(0, 5)),
        max_size=12,
    )
)
@settings(max_examples=25, deadline=None)
def test_a_store_that_remembers_answers_like_one_that_reads(steps: list[tuple[str, int]]) -> None:
    store = Store(None)
    made = [store.create(audit("first", parameters={"a": [1]}))]
    for number, (step, which) in enumerate(steps):
        one = made[which % len(made)]
        match step:
            case "make":
                made.append(store.create(audit(f"made {number}")))
            case "rename":
                store.update(Audit, one.uuid, {"name": f"renamed {number}"})
            case "move" if store.get(Audit, one.uuid).state == "PENDING":
                store.transition(Audit, one.uuid, "run")
            case "move all":
                store.transition_all(Audit, {"id": one.id}, "cancel")
            case "clash":
                with pytest.raises(Conflict):
                    store.create_many([audit(f"never {number}"), audit(store.get(Audit, one.uuid).name)])
            case _:
                store.list(Audit, limit=3)
        pending = store.list(Audit, {"state": "PENDING"}, sort_key="name", sort_dir="desc", limit=3)
        remembered = [store.get(Audit, row.uuid) for row in made]
        page = store.list(Audit)
        store._kept = Kept()  # as if it had just been opened
        assert [store.get(Audit, row.uuid) for row in made] == remembered
        assert store.list(Audit) == page == remembered
        assert store.list(Audit, {"state": "PENDING"}, sort_key="name", sort_dir="desc", limit=3) == pending
    store.close()


def test_a_row_that_was_never_committed_is_not_found() -> None:
    store = Store(None)
    store.create(audit("taken"))
    never = audit("never")
    with pytest.raises(Conflict):
        store.create_many([never, audit("TAKEN")])
    assert store.find(Audit, never.uuid) is None
    assert store.create(never).name == "never"  # its uuid is free
    store.close()


def test_a_deleted_row_is_shown_only_where_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.duckdb")
    goal = store.create(Goal(uuid=str(uuid4()), name="g", display_name="G"))
    assert store.get(Goal, goal.uuid) == goal
    store.delete(Goal, goal.uuid)
    assert store.find(Goal, goal.uuid) is None
    assert store.get(Goal, goal.uuid, deleted=True).deleted == goal.id
    store.close()


def test_no_more_records_are_kept_than_allowed() -> None:
    kept = Kept(most=2)
    rows = [Goal(id=number, uuid=str(number), name=str(number), display_name="") for number in (1, 2, 3)]
    kept.keep(rows[:2])
    kept.records(Goal, [1])
    kept.keep(rows[2:])
    assert set(kept.records(Goal, [1, 2, 3])) == {1, 3}


def test_a_page_read_before_a_commit_is_not_remembered() -> None:
    store = Store(None)
    store.create(audit("there"))

    def half_done() -> None:
        with store._transaction() as tx:
            tx.insert([audit("never")])
            assert len(tx.rows(Audit, {}, limit=10)) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_done()
    assert [one.name for one in store.list(Audit, limit=10)] == ["there"]
    store.close()


def test_pages_are_read_again_when_there_are_too_many() -> None:
    kept = Kept()
    read: list[str] = []

    def ask(what: str) -> None:
        def answer() -> list[int]:
            read.append(what)
            return [1]

        kept.page(Goal, what, answer, keep=True)

    for number in [*range(MOST_PAGES), 0, MOST_PAGES, MOST_PAGES]:
        ask(str(number))
    assert read == [str(number) for number in range(MOST_PAGES + 1)]
    kept.forget(Audit, ())
    ask(str(MOST_PAGES))
    assert len(read) == MOST_PAGES + 1, "rows of another kind were written"
    kept.forget(Goal, ())
    ask(str(MOST_PAGES))
    assert len(read) == MOST_PAGES + 2


def test_the_same_bytes_are_the_same_record() -> None:
    there = audit("a", parameters={"deep": [{"er": 1}]})
    one, two = pickle.loads(pickle.dumps([there, there])), pickle.loads(pickle.dumps(there))
    assert one[0] is one[1] is two
    assert pickle.loads(pickle.dumps(replace(there, name="b"))).name == "b", "a changed record has bytes of its own"


def test_records_travel_whole() -> None:
    there = audit("a", parameters={"deep": [{"er": 1}]}, scope=[{"compute": []}])
    assert pickle.loads(pickle.dumps(there)) == there
