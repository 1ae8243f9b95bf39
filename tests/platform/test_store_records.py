"""Round trips of every kind of record through both ways in, values that do not fit, and the schema's migrations."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import (
    RECORDS,
    Action,
    ActionPlan,
    Audit,
    EfficacyIndicator,
    Explanation,
    Goal,
    Record,
    Service,
)
from trimtab.platform.states import MACHINES
from trimtab.platform.store.rows import columns, from_row, to_row
from trimtab.platform.store.schema import MIGRATIONS, Migration, create_everything, prepare
from trimtab.platform.store.state import Store
from trimtab.platform.store.transaction import BULK_FROM, UNIQUE

COMMON = "id uuid created_at updated_at deleted_at deleted "
CLAIMABLE = COMMON + "state hostname status_message owner lease_until epoch "
VERSION_1 = {
    "goal": COMMON + "name display_name efficacy_specification",
    "strategy": COMMON + "name display_name goal_id parameters_spec",
    "audit_template": COMMON + "name description goal_id strategy_id scope default_parameters",
    "audit": CLAIMABLE + "name audit_type parameters interval goal_id strategy_id scope auto_trigger next_run_time "
    "start_time end_time force",
    "action_plan": CLAIMABLE + "audit_id strategy_id candidate global_efficacy rehearsed measured",
    "action": COMMON + "action_plan_id action_type input_parameters state parents needs_room_of status_message "
    "started_at finished_at",
    "efficacy_indicator": COMMON + "action_plan_id name description unit data",
    "candidate": COMMON + "audit_id number strategy_name parameters verdict rank reason because indicators score steps "
    "node worker propose_s rehearse_s",
    "scoring_engine": COMMON + "name description metainfo",
    "service": COMMON + "name host last_seen_up",
    "action_description": COMMON + "action_type description",
    "event": COMMON + "record_kind record_uuid event old_state new_state message",
}

texts = st.text(max_size=40) | st.sampled_from(
    ["", "\0", "NULL", "'; DROP TABLE audit; --", "ß\u0130\U0001f600", '"\\']
)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
trees = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
zones = st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours)))
times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=zones)  # noqa: DTZ001 - the zone comes with it
int64 = st.integers(-(2**63), 2**63 - 1)
VALUES = {"int": int64, "text": texts, "bool": st.booleans(), "float": st.floats(allow_nan=False), "time": times}


def values(kind: type[Record]) -> dict[str, st.SearchStrategy[Any]]:
    """What each field of a kind may hold."""
    found: dict[str, st.SearchStrategy[Any]] = {}
    for name, column in columns(kind).items():
        if name in {"id", "deleted", "deleted_at"}:
            continue
        if name == "uuid":
            found[name] = st.just("")  # and names: made unique below
        elif name == "state":
            found[name] = st.sampled_from([str(state) for state in MACHINES[kind.kind].states if state != "DELETED"])
        elif column.type == "json":
            found[name] = st.dictionaries(texts, trees, max_size=3)
            if column.fallback() == []:
                found[name] = st.lists(found[name] if name not in {"parents", "needs_room_of"} else texts, max_size=3)
        else:
            found[name] = VALUES[column.type] if not column.optional else st.none() | VALUES[column.type]
    return found


@pytest.fixture(scope="module")
def store() -> Any:
    opened = Store(None)
    yield opened
    opened.close()


@pytest.mark.parametrize("kind", RECORDS.values(), ids=RECORDS)
@pytest.mark.parametrize("rows", [1, BULK_FROM + 1], ids=["one by one", "in bulk"])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_goes_in_comes_out(store: Store, kind: type[Record], rows: int, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.builds(kind, **values(kind)), min_size=1, max_size=min(rows, 3)))
    name = UNIQUE.get(kind, ("",))[0]
    records = []
    for record in islice(cycle(drawn), rows):
        changes: dict[str, Any] = {"uuid": str(uuid4())}
        if name:
            changes[name] = getattr(record, name) + changes["uuid"]
        records.append(replace(record, **changes))
    stored = store.create_many(records)
    wanted = [
        replace(record, id=new.id, created_at=record.created_at or new.created_at)
        for record, new in zip(records, stored, strict=True)
    ]
    assert stored == wanted
    assert [new.id for new in stored] == list(range(stored[0].id, stored[0].id + rows))
    assert store.list(kind, {"uuid": [record.uuid for record in records]}) == wanted


def test_not_a_number_survives_too(store: Store) -> None:
    nan = EfficacyIndicator(uuid=str(uuid4()), action_plan_id=1, name="x", data=float("nan"))
    assert np.isnan(store.create(nan).data)
    assert np.isnan(store.get(EfficacyIndicator, nan.uuid).data)


def test_numpy_values_become_plain_ones(store: Store) -> None:
    odd = Action(
        uuid=str(uuid4()),
        action_plan_id=np.int64(3),  # type: ignore[arg-type]
        action_type="nop",
        state="PENDING",
        input_parameters={"a": np.float32(0.5), "b": np.arange(2), "c": (1, 2)},
    )
    stored = store.create(odd)
    assert (type(stored.action_plan_id), stored.action_plan_id) == (int, 3)
    assert stored.input_parameters == {"a": 0.5, "b": [0, 1], "c": [1, 2]}


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("name", None, "a value is needed"),
        ("name", 5, "expected text, got int"),
        ("name", "\ud800", "surrogate"),
        ("goal_id", True, "expected int, got bool"),
        ("goal_id", 2**63, "64 bits"),
        ("force", 1, "expected bool"),
        ("start_time", datetime(2026, 1, 1), "no time zone"),  # noqa: DTZ001
        ("start_time", datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "years 1 to 9999"),
        ("parameters", [], "JSON object"),
        ("parameters", {"a": object()}, "object is not JSON"),
        ("scope", {}, "JSON list"),
        ("state", "FINISHED", "use one of PENDING"),
        ("state", "DELETED", "use one of PENDING"),
        ("uuid", "", "uuid is empty"),
        ("deleted", 5, "deleted already"),
    ],
)
@pytest.mark.parametrize("rows", [1, BULK_FROM + 1])
def test_a_value_that_does_not_fit_is_named(store: Store, field: str, value: Any, why: str, rows: int) -> None:
    def audit(**more: Any) -> Audit:
        plain: dict[str, Any] = {
            "uuid": str(uuid4()),
            "name": str(uuid4()),
            "audit_type": "ONESHOT",
            "state": "PENDING",
        }
        return Audit(**{**plain, "goal_id": 1, **more})

    before = store.count(Audit)
    with pytest.raises(InvalidInput, match=why) as caught:
        store.create_many([*(audit() for _ in range(rows - 1)), audit(**{field: value})])
    assert field in str(caught.value) or field == "deleted"
    assert store.count(Audit) == before


# -- schema --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourfulGoal(Goal):
    kind: ClassVar[str] = "goal"
    colour: str = "grey"


LATER = {**RECORDS, "goal": ColourfulGoal}
LATEST = MIGRATIONS[-1].version
ADD_COLOUR = Migration(
    LATEST + 1, "goals have a colour", lambda con: con.execute("ALTER TABLE goal ADD COLUMN colour VARCHAR")
)


def test_every_column_was_there_in_version_one_or_comes_by_a_migration() -> None:
    # A new field belongs into a migration in schema.py, and not into VERSION_1.
    con = duckdb.connect()
    con.execute("CREATE TABLE schema_version (version BIGINT, why VARCHAR)")
    con.execute("INSERT INTO schema_version VALUES (1, 'created')")
    types = {"int": "BIGINT", "bool": "BOOLEAN", "float": "DOUBLE", "time": "TIMESTAMP"}
    for kind, names in VERSION_1.items():
        known = columns(RECORDS[kind])
        typed = ", ".join(f'"{name}" {types.get(known[name].type, "VARCHAR")}' for name in names.split())
        con.execute(f'CREATE TABLE "{kind}" ({typed})')
    con.execute("CREATE TABLE idempotency_key (key VARCHAR, kind VARCHAR, uuid VARCHAR, created_at TIMESTAMP)")
    prepare(con, "version 1")


def test_explanations_of_plans_that_are_gone_go_with_the_next_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    store = Store(path)
    plans = [store.create(ActionPlan(uuid=str(uuid4()), audit_id=1, strategy_id=1, state="FAILED")) for _ in range(2)]
    store.delete(ActionPlan, plans[0].uuid)
    for plan in plans:
        store.create(Explanation(uuid=str(uuid4()), action_plan_id=plan.id))
    store.close()
    with duckdb.connect(str(path)) as con:
        next(step for step in MIGRATIONS if step.version == 5).apply(con)
    store = Store(path)
    assert [one.action_plan_id for one in store.list(Explanation, deleted=True)] == [plans[1].id]
    store.close()


def test_a_migration_carries_an_older_file_forward_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    store = Store(path)
    old = store.create(Goal(uuid=str(uuid4()), name="dummy", display_name="Dummy"))
    store.close()
    with duckdb.connect(str(path)) as con:
        assert prepare(con, "store", LATER, [ADD_COLOUR]) == LATEST + 1
        assert prepare(con, "store", LATER, [ADD_COLOUR]) == LATEST + 1, "once is enough"
        row = con.execute(f"SELECT {', '.join(columns(ColourfulGoal))} FROM goal").fetchone()
        assert row is not None
        new = from_row(ColourfulGoal, row)
    assert (new.id, new.uuid, new.name, new.created_at) == (old.id, old.uuid, "dummy", old.created_at)
    assert new.colour == "grey", "rows from before the column have the field's default"


def test_a_new_file_has_the_latest_tables_at_once() -> None:
    con = duckdb.connect()
    assert prepare(con, "store", LATER, [ADD_COLOUR]) == LATEST + 1
    row = to_row(ColourfulGoal(uuid="u", name="n", display_name="d", colour="red"))
    con.execute(f"INSERT INTO goal VALUES ({', '.join('?' * len(row))})", row)
    assert con.execute("SELECT colour FROM goal").fetchall() == [("red",)]


def test_a_failing_migration_changes_nothing() -> None:
    def half(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("ALTER TABLE goal ADD COLUMN colour VARCHAR")
        con.execute("ALTER TABLE nothing ADD COLUMN colour VARCHAR")

    con = duckdb.connect()
    prepare(con, "store")
    with pytest.raises(duckdb.CatalogException):
        prepare(con, "store", LATER, [Migration(LATEST + 1, "half", half)])
    assert prepare(con, "store") == LATEST
    names = {
        row[0] for row in con.execute("SELECT column_name FROM duckdb_columns() WHERE table_name='goal'").fetchall()
    }
    assert "colour" not in names


def test_a_file_from_the_future_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with duckdb.connect(str(path)) as con:
        prepare(con, "store", LATER, [ADD_COLOUR])
    with pytest.raises(InvalidInput, match=rf"schema version {LATEST + 1}, this Trimtab knows up to {LATEST}: upgrade"):
        Store(path)
    with duckdb.connect(str(path)) as con:  # and let go of again
        assert con.execute("SELECT max(version) FROM schema_version").fetchone() == (LATEST + 1,)


def test_a_field_without_a_migration_is_found_at_once() -> None:
    con = duckdb.connect()
    prepare(con, "store")
    with pytest.raises(InvalidInput, match=r'no column goal."colour" VARCHAR'):
        prepare(con, "store", LATER)


def test_other_peoples_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.duckdb"
    with duckdb.connect(str(foreign)) as con:
        con.execute("CREATE TABLE mine (x INTEGER)")
    with pytest.raises(InvalidInput, match="something else"):
        Store(foreign)
    text = tmp_path / "text.duckdb"
    text.write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(InvalidInput, match="cannot be opened as a store"):
        Store(text)


def test_all_tables_are_made_or_none() -> None:
    con = duckdb.connect()
    con.execute("BEGIN TRANSACTION")
    create_everything(con, RECORDS)
    con.execute("ROLLBACK")
    assert con.execute("SELECT count(*) FROM duckdb_tables()").fetchone() == (0,)
    assert prepare(con, "store") == LATEST


def test_times_are_utc(store: Store) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    stored = store.create(Service(uuid=str(uuid4()), name="applier", host="a", last_seen_up=noon))
    assert stored.last_seen_up == noon
    assert stored.last_seen_up.tzinfo is UTC
