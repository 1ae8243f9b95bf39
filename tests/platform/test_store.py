"""The store's promises: lookups, lists, idempotent creation, claims, outcomes, deletion, one owner, many threads."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cmp_to_key
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import Conflict, IllegalTransition, InvalidInput, NotFound, TrimtabError
from trimtab.platform.records import (
    Action,
    ActionPlan,
    Audit,
    AuditTemplate,
    CandidateRecord,
    EfficacyIndicator,
    Event,
    Explanation,
    Goal,
    Service,
    Strategy,
)
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.state import Store
from trimtab.platform.store.transaction import BULK_FROM, Move


class Moment:
    """A clock that stands still until told otherwise."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def passes(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
def store(moment: Moment) -> Iterator[Store]:
    opened = Store(None, moment)
    yield opened
    opened.close()


def new_audit(**more: Any) -> Audit:
    plain: dict[str, Any] = {"uuid": str(uuid4()), "name": str(uuid4()), "audit_type": "ONESHOT", "state": "PENDING"}
    return Audit(**{**plain, "goal_id": 1, **more})


def new_plan(**more: Any) -> ActionPlan:
    return ActionPlan(**{"uuid": str(uuid4()), "audit_id": 0, "strategy_id": 1, "state": "RECOMMENDED", **more})


def new_action(**more: Any) -> Action:
    plain = {"uuid": str(uuid4()), "action_plan_id": 0, "action_type": "nop", "state": "PENDING"}
    return Action(**{**plain, **more})


def new_candidate(number: int) -> CandidateRecord:
    return CandidateRecord(uuid=str(uuid4()), audit_id=0, number=number, strategy_name="dummy", verdict="ranked")


# -- lookups -------------------------------------------------------------------------------------


def test_a_record_is_found_by_id_uuid_and_name(store: Store) -> None:
    audit = store.create(new_audit(name="Night Shift"))
    uuid = audit.uuid
    for ident in (audit.id, str(audit.id), uuid, uuid.upper(), uuid.replace("-", ""), "Night Shift", "nIGHT sHIFT"):
        assert store.get(Audit, ident) == audit


@pytest.mark.parametrize(
    ("ident", "message"),
    [("nope", "Audit nope could"), (7, "Audit 7 could"), (10**30, "Audit 10"), ("", "Audit  could")],
)
def test_what_is_not_there_is_named(store: Store, ident: int | str, message: str) -> None:
    with pytest.raises(NotFound, match=message + ".* not be found"):
        store.get(Audit, ident)
    assert store.find(Audit, ident) is None


def test_not_found_speaks_the_wires_words(store: Store) -> None:
    for kind, text in (
        (AuditTemplate, "AuditTemplate x could not be found"),
        (ActionPlan, "ActionPlan x could not be found"),
        (Service, "The service x cannot be found."),
    ):
        with pytest.raises(NotFound) as caught:
            store.get(kind, "x")
        assert str(caught.value) == text
    assert store.find(Audit, "\ud800") is None


def test_a_deleted_record_is_found_only_on_request_and_frees_its_name(store: Store) -> None:
    first = store.create(AuditTemplate(uuid=str(uuid4()), name="t", goal_id=1))
    gone = store.delete(AuditTemplate, first.uuid)
    assert gone.deleted == first.id
    assert gone.deleted_at is not None
    assert store.find(AuditTemplate, "t") is None
    assert store.get(AuditTemplate, "t", deleted=True) == gone
    with pytest.raises(NotFound):
        store.delete(AuditTemplate, first.uuid)
    second = store.create(AuditTemplate(uuid=str(uuid4()), name="t", goal_id=1))
    assert store.get(AuditTemplate, "t", deleted=True) == second, "a live one comes first"
    assert store.list(AuditTemplate) == [second]
    assert store.list(AuditTemplate, deleted=True) == [gone, second]


# -- lists ---------------------------------------------------------------------------------------

SORTABLE = ["id", "uuid", "name", "state", "strategy_id", "hostname", "next_run_time", "force", "epoch", "parameters"]
few: Callable[..., Any] = st.sampled_from
audits = st.builds(
    new_audit,
    state=few(["PENDING", "ONGOING", "FAILED"]),
    strategy_id=few([None, 1, 2]),
    hostname=few([None, "", "a", "B", "ä", "\U0001f600"]),
    next_run_time=few([None, datetime(2020, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)]),
    force=st.booleans(),
    epoch=few([0, -1, 5]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_pages_put_together_equal_the_plain_sorted_list(data: st.DataObject) -> None:
    store = Store(None)
    everything = store.create_many(data.draw(st.lists(audits, max_size=12)))
    key, way = data.draw(few(SORTABLE)), data.draw(few(["asc", "desc"]))
    where = data.draw(few([{}, {"force": True}, {"strategy_id": None}, {"strategy_id": [1, None]}, {"state": ()},
                           {"hostname": ["a", "ä"], "state": "PENDING"}]))  # fmt: skip
    limit = data.draw(st.integers(1, 5))

    def matches(audit: Audit) -> bool:
        return all(
            getattr(audit, name) in value if isinstance(value, list | tuple) else getattr(audit, name) == value
            for name, value in where.items()
        )

    def compare(a: Audit, b: Audit) -> int:  # nulls first, then by value, then by id
        x, y = getattr(a, key), getattr(b, key)
        if x == y:
            return a.id - b.id
        if x is None or y is None:
            return -1 if x is None else 1
        return -1 if x < y else 1

    wanted = sorted(filter(matches, everything), key=cmp_to_key(compare), reverse=way == "desc")
    pages: list[Audit] = []
    marker = None
    while page := store.list(Audit, where, limit=limit, marker=marker, sort_key=key, sort_dir=way):
        assert len(page) <= limit
        pages += page
        marker = page[-1].uuid
    assert pages == wanted == store.list(Audit, where, sort_key=key, sort_dir=way)
    assert store.count(Audit, where) == len(wanted)
    store.close()


def test_a_marker_deleted_between_two_pages_keeps_its_place(store: Store) -> None:
    made = store.create_many([new_audit(state="FAILED") for _ in range(4)])
    store.delete(Audit, made[1].uuid)
    assert store.list(Audit, marker=made[1].uuid) == made[2:]


def test_services_page_by_number(store: Store) -> None:
    made = store.create_many([Service(uuid=str(uuid4()), name="applier", host=host) for host in "abc"])
    assert store.list(Service, marker=str(made[0].id)) == made[1:]


@pytest.mark.parametrize(
    ("question", "error", "text"),
    [
        ({"sort_key": "colour"}, InvalidInput, "Invalid sort key: colour"),
        ({"sort_key": 'id" --'}, InvalidInput, 'Invalid sort key: id" --'),
        (
            {"sort_dir": "up"},
            InvalidInput,
            "Invalid sort direction: up. Acceptable values are 'asc' or 'desc'",
        ),
        ({"limit": 0}, InvalidInput, "Limit must be positive"),
        ({"marker": "nope"}, NotFound, "Audit nope could not be found"),
        ({"where": {"bogus": 1}}, InvalidInput, 'Unknown argument: "bogus"'),
        ({"where": {"scope": []}}, InvalidInput, "Audit.scope holds JSON and cannot be searched"),
        ({"where": {"goal_id": "x"}}, InvalidInput, "Audit.goal_id cannot be 'x': expected int, got str"),
    ],
)
def test_a_wrong_question_gets_the_apis_answer(
    store: Store, question: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        store.list(Audit, **question)
    assert str(caught.value) == text


# -- creating and updating -----------------------------------------------------------------------


def test_a_taken_name_or_uuid_is_a_conflict(store: Store) -> None:
    audit = store.create(new_audit(name="Mine"))
    with pytest.raises(Conflict, match="An audit with UUID or name mine already exists"):
        store.create(new_audit(name="mine"))
    with pytest.raises(Conflict, match=audit.uuid):
        store.create(new_audit(uuid=audit.uuid.upper()))
    template = AuditTemplate(uuid=str(uuid4()), name="t", goal_id=1)
    store.create(template)
    with pytest.raises(Conflict, match="An audit_template with UUID or name t already exists"):
        store.create(replace(template, uuid=str(uuid4())))
    with pytest.raises(Conflict, match=r"(?i)twin"):
        store.create_many([new_audit(name="twin"), new_audit(name="TWIN")])
    with pytest.raises(Conflict, match="mine"):
        store.create_many([*(new_audit() for _ in range(BULK_FROM)), new_audit(name="mine")])
    assert store.count(Audit) == 1


def test_odd_uuids_are_taken_only_once_too(store: Store) -> None:
    store.create(new_audit(uuid="ABC"))
    for records in ([new_audit(uuid="ABC")], [new_audit(), new_audit(uuid="ABC")]):
        with pytest.raises(Conflict, match="ABC"):
            store.create_many(records)
    store.create_many([new_audit(uuid="abc"), new_audit(uuid="aBC")])
    assert store.get(Audit, "ABC").uuid == "ABC"


def test_a_service_is_one_name_on_one_host(store: Store) -> None:
    store.create(Service(uuid=str(uuid4()), name="applier", host="a"))
    store.create(Service(uuid=str(uuid4()), name="applier", host="b"))
    with pytest.raises(Conflict, match="applier on a already exists"):
        store.create(Service(uuid=str(uuid4()), name="applier", host="a"))


def test_asking_again_with_the_same_key_creates_nothing(store: Store) -> None:
    first = store.create(new_audit(), key="k")
    store.transition(Audit, first.uuid, "run")
    again = store.create(new_audit(name=first.name), key="k")
    assert (again.uuid, again.state) == (first.uuid, "ONGOING")
    assert store.count(Audit) == 1
    assert store.create(new_audit(), key="other").uuid != first.uuid
    with pytest.raises(Conflict, match=f"key k belongs to audit {first.uuid}"):
        store.create(new_plan(), key="k")


def test_update_changes_what_it_is_told_and_says_when(store: Store, moment: Moment) -> None:
    audit = store.create(new_audit())
    moment.passes(5)
    changed = store.update(Audit, audit.uuid, {"hostname": "engine-1", "scope": [{"compute": []}], "name": "x"})
    assert changed == replace(audit, hostname="engine-1", scope=[{"compute": []}], name="x", updated_at=moment.at)
    assert store.get(Audit, audit.uuid) == changed


@pytest.mark.parametrize("name", ["id", "uuid", "state", "deleted", "created_at", "owner", "epoch", "lease_until"])
def test_what_the_store_guards_cannot_be_changed_directly(store: Store, name: str) -> None:
    audit = store.create(new_audit())
    for change in (
        lambda: store.update(Audit, audit.uuid, {name: None}),
        lambda: store.transition(Audit, audit.uuid, "run", {name: None}),
        lambda: store.transition_all(Audit, {}, "run", {name: None}),
        lambda: store.save_outcome(audit.uuid, event=None, epoch=None, audit_changes={name: None}),
    ):
        with pytest.raises(InvalidInput, match=f"Audit.{name} is kept by the store"):
            change()
    assert store.get(Audit, audit.uuid) == audit


def test_updates_refuse_unknown_fields_taken_names_and_history(store: Store) -> None:
    audit, other = store.create_many([new_audit(name="a"), new_audit(name="b")])
    with pytest.raises(InvalidInput, match="Audit has no field colour"):
        store.update(Audit, audit.uuid, {"colour": 1})
    with pytest.raises(Conflict, match="name B already exists"):
        store.update(Audit, audit.uuid, {"name": "B"})
    assert store.update(Audit, other.uuid, {"name": "B"}).name == "B", "one's own name in another case is free"
    store.transition(Audit, audit.uuid, "run")
    assert store.update(Audit, other.uuid, {"hostname": "e"}, state="PENDING").hostname == "e"
    with pytest.raises(Conflict, match=f"audit {other.uuid} is PENDING, no longer ONGOING"):
        store.update(Audit, other.uuid, {"hostname": "late"}, state="ONGOING")
    assert store.get(Audit, other.uuid).hostname == "e"
    with pytest.raises(InvalidInput, match="history"):
        store.update(Event, store.events()[0].uuid, {"message": "never happened"})


# -- claims --------------------------------------------------------------------------------------


def test_a_claim_holds_until_its_lease_ends(store: Store, moment: Moment) -> None:
    audit = store.create(new_audit())
    mine = store.claim(Audit, audit.uuid, "one", 30)
    assert (mine.owner, mine.epoch, mine.lease_until) == ("one", 1, moment.at + timedelta(seconds=30))
    with pytest.raises(Conflict, match="belongs to one until"):
        store.claim(Audit, audit.uuid, "two", 30)
    assert store.claimable(Audit, ["PENDING"]) == []
    moment.passes(30)
    assert [row.uuid for row in store.claimable(Audit, ["PENDING"])] == [audit.uuid]
    assert store.renew(Audit, audit.uuid, "one", 1, 10).lease_until == moment.at + timedelta(seconds=10)
    moment.passes(10)
    theirs = store.claim(Audit, audit.uuid, "two", 30)
    assert (theirs.owner, theirs.epoch) == ("two", 2)
    for late in (
        lambda: store.renew(Audit, audit.uuid, "one", 1, 10),
        lambda: store.release(Audit, audit.uuid, "one", 1),
        lambda: store.renew(Audit, audit.uuid, "two", 1, 10),
        lambda: store.update(Audit, audit.uuid, {"hostname": "one"}, epoch=1),
        lambda: store.transition(Audit, audit.uuid, "run", epoch=1),
        lambda: store.save_outcome(audit.uuid, event=None, epoch=1, plan=new_plan()),
    ):
        with pytest.raises(Conflict, match="epoch 2"):
            late()
    free = store.release(Audit, audit.uuid, "two", 2)
    assert (free.owner, free.lease_until, free.epoch) == (None, None, 2)
    assert store.claim(Audit, audit.uuid, "one", 1).epoch == 3
    assert store.claim(Audit, audit.uuid, "one", 1).epoch == 4, "claiming one's own again fences the earlier self off"
    assert store.count(ActionPlan) == 0


def test_an_actions_epoch_is_that_of_its_plan(store: Store) -> None:
    plan = store.create(new_plan())
    action = store.create(new_action(action_plan_id=plan.id))
    store.claim(ActionPlan, plan.uuid, "applier", 30)
    with pytest.raises(Conflict, match="epoch 1"):
        store.transition(Action, action.uuid, "begin", epoch=0)
    assert store.transition(Action, action.uuid, "begin", epoch=1).state == "ONGOING"
    with pytest.raises(InvalidInput, match="has no epoch"):
        store.update(Goal, store.create(Goal(uuid=str(uuid4()), name="g", display_name="G")).uuid, {}, epoch=1)


def test_of_many_claimants_exactly_one_wins(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.duckdb")
    made = store.create_many([new_audit() for _ in range(5)])

    def claim(task: tuple[str, str]) -> str | None:
        uuid, owner = task
        try:
            return store.claim(Audit, uuid, owner, 60).owner
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        for audit in made:
            owners = [owner for owner in pool.map(claim, [(audit.uuid, f"w{i}") for i in range(8)]) if owner]
            assert owners == [store.get(Audit, audit.uuid).owner]
            assert store.get(Audit, audit.uuid).epoch == 1
    store.close()


def test_claimable_rows_come_oldest_first(store: Store) -> None:
    made = store.create_many([new_audit(state=state) for state in ("PENDING", "ONGOING", "PENDING", "FAILED")])
    assert store.claimable(Audit, ["ONGOING", "PENDING"]) == made[:3]
    store.claim(Audit, made[0].uuid, "me", 60)
    assert store.claimable(Audit, ["PENDING"]) == [made[2]]


# -- outcomes ------------------------------------------------------------------------------------


def test_an_outcome_is_stored_whole(store: Store, moment: Moment) -> None:
    audit = store.create(new_audit(state="ONGOING"))
    moment.passes(1)
    actions = [new_action(input_parameters={"n": n}, parents=[str(n)]) for n in range(300)]
    plan = store.save_outcome(
        audit.uuid,
        event="succeed",
        epoch=0,
        status_message="fine",
        audit_changes={"next_run_time": moment.at},
        candidates=[new_candidate(n) for n in range(20)],
        plan=new_plan(),
        actions=actions,
        indicators=[EfficacyIndicator(uuid=str(uuid4()), action_plan_id=0, name="x", data=0.5)],
    )
    assert plan is not None
    assert plan.audit_id == audit.id
    after = store.get(Audit, audit.uuid)
    assert (after.state, after.status_message, after.next_run_time) == ("SUCCEEDED", "fine", moment.at)
    stored = store.list(Action, {"action_plan_id": plan.id})
    assert [(a.uuid, a.input_parameters, a.parents) for a in stored] == [
        (a.uuid, a.input_parameters, a.parents) for a in actions
    ]
    assert [c.number for c in store.list(CandidateRecord, {"audit_id": audit.id})] == list(range(20))
    assert [i.data for i in store.list(EfficacyIndicator, {"action_plan_id": plan.id})] == [0.5]
    _, event = store.events(record_uuid=audit.uuid)
    assert (event.event, event.old_state, event.new_state, event.message, event.created_at) == (
        "succeed", "ONGOING", "SUCCEEDED", "fine", moment.at)  # fmt: skip


def test_an_outcome_that_cannot_be_stored_leaves_nothing(store: Store) -> None:
    audit = store.create(new_audit(state="ONGOING"))
    twin = new_action()
    bad: dict[str, Any]
    for bad, error in (
        ({"event": "succeed", "actions": [new_action() for _ in range(20)] + [twin, twin]}, Conflict),
        ({"event": "succeed", "actions": [new_action(action_type=None)]}, InvalidInput),
        ({"event": "resume"}, IllegalTransition),
    ):
        with pytest.raises(error):
            store.save_outcome(audit.uuid, epoch=None, candidates=[new_candidate(1)], plan=new_plan(), **bad)
    with pytest.raises(InvalidInput, match="belong to a plan"):
        store.save_outcome(audit.uuid, event="succeed", epoch=None, actions=[new_action()])
    assert store.get(Audit, audit.uuid) == audit
    assert [store.count(kind) for kind in (CandidateRecord, ActionPlan, Action, Event)] == [0, 0, 0, 1]


def test_an_outcome_without_event_leaves_the_state(store: Store) -> None:
    audit = store.create(new_audit(state="ONGOING", audit_type="CONTINUOUS"))
    assert store.save_outcome(audit.uuid, event=None, epoch=0, status_message="nothing to do") is None
    after = store.get(Audit, audit.uuid)
    assert (after.state, after.status_message) == ("ONGOING", "nothing to do")
    assert [event.event for event in store.events()] == ["create", "update"]


# -- deletion ------------------------------------------------------------------------------------


def test_a_plan_takes_its_actions_indicators_and_explanations_along(store: Store) -> None:
    audit = store.create(new_audit(state="ONGOING"))
    plan, other = (
        store.save_outcome(
            audit.uuid,
            event=None,
            epoch=None,
            plan=new_plan(),
            actions=[new_action(state=state) for state in ("PENDING", "ONGOING", "SUCCEEDED")],
            indicators=[EfficacyIndicator(uuid=str(uuid4()), action_plan_id=0, name="x")],
            explanations=[Explanation(uuid=str(uuid4()), action_plan_id=0, reason={"why": ["so"]})],
        )
        for _ in range(2)
    )
    assert plan is not None
    assert other is not None
    gone = store.delete(ActionPlan, plan.uuid)
    assert (gone.state, gone.deleted) == ("DELETED", plan.id)
    assert store.find(ActionPlan, plan.uuid) is None
    for action in store.list(Action, {"action_plan_id": plan.id}, deleted=True):
        assert (action.state, action.deleted, action.deleted_at) == ("DELETED", action.id, gone.deleted_at)
    assert store.count(EfficacyIndicator, {"action_plan_id": plan.id}) == 0
    assert store.count(Action, {"action_plan_id": other.id}) == 3
    assert store.count(EfficacyIndicator, {"action_plan_id": other.id}) == 1
    kept = store.list(Explanation, deleted=True)
    assert [one.action_plan_id for one in kept] == [other.id], "nobody can ask for those of a plan that is gone"
    assert sorted(event.event for event in store.events() if event.event != "create") == ["delete"] * 4


def test_what_is_under_way_cannot_be_deleted(store: Store) -> None:
    audit = store.create(new_audit(state="ONGOING"))
    with pytest.raises(IllegalTransition, match="audit is ONGOING: cannot delete"):
        store.delete(Audit, audit.uuid)
    assert store.get(Audit, audit.uuid) == audit


def test_events_can_be_followed(store: Store) -> None:
    made = store.create_many([new_audit() for _ in range(3)])
    assert store.transition_all(Audit, {}, "run", message="all") == 3
    store.transition(Audit, made[0].uuid, "fail", message="broken")
    everything = store.events()
    assert [event.id for event in everything] == sorted(event.id for event in everything)
    assert store.events(limit=2) == everything[:2]
    assert store.events(everything[1].id) == everything[2:]
    assert [event.event for event in store.events(record_uuid=made[0].uuid)] == ["create", "run", "fail"]


# -- the file ------------------------------------------------------------------------------------


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.duckdb"
    store = Store(path)
    audit = store.create(new_audit(name="a"), key="k")
    store.checkpoint()
    other = store.create(new_audit(name="b"))
    store.close()
    store.close()
    with pytest.raises(Conflict, match="closed"):
        store.get(Audit, "a")
    store = Store(path)
    assert store.list(Audit) == [audit, other]
    assert store.create(new_audit(name="a"), key="k") == audit
    assert store.create(new_audit()).id == other.id + 1
    store.close()


def test_a_second_opener_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    store = Store(path)
    with pytest.raises(Conflict, match=r"is owned by process \d+: stop it"):
        Store(path)
    program = "import sys; from trimtab.platform.store.state import Store, Path; Store(Path(sys.argv[1]))"
    other = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "Conflict" in other.stderr
    assert "is owned by process" in other.stderr
    store.create(new_audit())
    store.close()
    Store(path).close()


def test_many_threads_may_use_one_store(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: store.create(new_audit(name=f"a{n}")), range(40)))
        found = list(pool.map(lambda audit: store.get(Audit, audit.name), made))
    assert found == made
    assert sorted(audit.id for audit in made) == list(range(1, 41))


async def test_the_port_says_what_the_store_says(store: Store) -> None:
    port = StorePort.direct(store)
    await port.sync_catalogue(
        [Goal(uuid=str(uuid4()), name="g", display_name="G")],
        [(Strategy(uuid=str(uuid4()), name="s", display_name="S", goal_id=0), "g")],
        {},
    )
    strategy = await port.get(Strategy, "S")
    audit = await port.create(new_audit(strategy_id=strategy.id), key="k")
    (other,) = await port.create_many([new_audit()])
    assert await port.list(Audit, {"goal_id": 1}, limit=1, marker=audit.uuid) == [other]
    assert await port.count(Audit) == 2
    assert (await port.find(Audit, "nope")) is None
    await port.update(Audit, audit.uuid, {"hostname": "e"})
    assert await port.claimable(Audit, ["PENDING"]) == store.list(Audit)
    audit = await port.claim(Audit, audit.uuid, "e", 60)
    await port.renew(Audit, audit.uuid, "e", audit.epoch, 60)
    await port.transition(Audit, audit.uuid, "run", {"hostname": "f"}, message="m", epoch=audit.epoch)
    plan = await port.save_outcome(audit.uuid, event="succeed", epoch=audit.epoch, plan=new_plan())
    assert plan == store.list(ActionPlan)[0]
    await port.release(Audit, audit.uuid, "e", audit.epoch)
    assert await port.transition_all(Audit, {"uuid": other.uuid}, "cancel") == 1
    await port.delete(Audit, audit.uuid)
    assert [e.event for e in await port.events(0, 10, audit.uuid)] == ["create", "update", "run", "succeed", "delete"]
    await port.checkpoint()
    await port.close()
    with pytest.raises(Conflict):
        store.events()


def test_many_transitions_are_as_good_as_one_after_the_other(tmp_path: Path) -> None:
    """Some fail, some follow each other, more than fit a single statement: the same records, errors and events."""
    outcomes = []
    for name in ("one by one", "together"):
        store = Store(tmp_path / f"{name}.duckdb", lambda: datetime(2026, 1, 1, tzinfo=UTC))
        made = store.create_many(
            [Action(uuid=str(UUID(int=n + 1)), action_plan_id=1, action_type="nop", state="PENDING") for n in range(20)]
        )
        moves = [Move(Action, a.uuid, "begin", {"started_at": datetime(2026, 1, 2, tzinfo=UTC)}) for a in made[:15]]
        moves += [Move(Action, made[0].uuid, "succeed", {}, "well done")]
        moves += [Move(Action, made[18].uuid, "succeed", {}), Move(Action, str(UUID(int=99)), "begin", {})]
        moves += [Move(Action, made[19].uuid, "skip", {}, "no need")]
        if name == "together":
            results = store.transitions(moves)
        else:
            results = []
            for move in moves:
                try:
                    results.append(
                        store.transition(move.kind, move.uuid, move.event, move.changes, message=move.message)
                    )
                except TrimtabError as error:
                    results.append(error)
        said = [(type(r).__name__, str(r)) if isinstance(r, TrimtabError) else r for r in results]
        events = [(e.record_uuid, e.event, e.old_state, e.new_state, e.message) for e in store.events()]
        outcomes.append((said, store.list(Action), events))
        store.close()
    assert outcomes[0] == outcomes[1]
    assert sum(isinstance(said, tuple) for said in outcomes[0][0]) == 2
