"""`trimtab import watcher`: templates, audits, plans and history come over from a Watcher database."""

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import Action, ActionPlan, Audit, AuditTemplate, EfficacyIndicator, Goal, Strategy
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.state import Store
from trimtab.serve import watcher_database
from trimtab.serve.compose import sync_catalogue
from trimtab.serve.effects import settle
from trimtab.serve.main import app

ROW = "id INTEGER PRIMARY KEY, uuid TEXT, created_at DATETIME, updated_at DATETIME, deleted_at DATETIME, deleted INT"
SCHEMA = {  # of release 17, without what nobody reads
    "goals": "name TEXT, display_name TEXT, efficacy_specification TEXT",
    "strategies": "name TEXT, display_name TEXT, goal_id INT, parameters_spec TEXT",
    "audit_templates": "name TEXT, description TEXT, goal_id INT, strategy_id INT, scope TEXT, default_parameters TEXT",
    "audits": "name TEXT, audit_type TEXT, state TEXT, parameters TEXT, interval TEXT, goal_id INT, strategy_id INT, "
    "scope TEXT, auto_trigger BOOLEAN, next_run_time DATETIME, hostname TEXT, start_time DATETIME, end_time DATETIME, "
    "force BOOLEAN, status_message TEXT",
    "action_plans": "audit_id INT, strategy_id INT, state TEXT, global_efficacy TEXT, hostname TEXT, "
    "status_message TEXT",
    "actions": "action_plan_id INT, action_type TEXT, input_parameters TEXT, state TEXT, parents TEXT, "
    "status_message TEXT",
    "efficacy_indicators": "name TEXT, description TEXT, unit TEXT, value NUMERIC, data FLOAT, action_plan_id INT",
}
WHEN = "2026-03-04 05:06:07.000000"


def uuid(letter: str, number: int) -> str:
    return f"{letter * 8}-0000-4000-8000-{number:012d}"


class Watcher:
    """A Watcher database of this test's own."""

    def __init__(self, path: Path, schema: dict[str, str] = SCHEMA) -> None:
        self.url = f"sqlite:///{path}"
        self.con = sqlite3.connect(path)
        self.count = dict.fromkeys(schema, 0)
        for table, columns in schema.items():
            self.con.execute(f"CREATE TABLE {table} ({ROW}, {columns})")

    def add(self, table: str, letter: str, **values: Any) -> int:
        self.count[table] += 1
        number = self.count[table]
        row = {"id": number, "uuid": uuid(letter, number), "created_at": WHEN, "deleted": 0}
        row |= {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in values.items()}
        marks = ", ".join("?" * len(row))
        self.con.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
        self.con.commit()
        return number


@pytest.fixture
def watcher(tmp_path: Path) -> Watcher:
    db = Watcher(tmp_path / "watcher.db")
    dummy = db.add("goals", "a", name="dummy", display_name="Dummy goal", efficacy_specification=[])
    db.add("goals", "a", name="old", display_name="Old", efficacy_specification=[], deleted=2, deleted_at=WHEN)
    site = db.add("goals", "a", name="of_our_site", display_name="Ours", efficacy_specification=[])
    first = db.add("strategies", "b", name="dummy", display_name="Dummy", goal_id=dummy, parameters_spec={})
    ours = db.add("strategies", "b", name="ours", display_name="Ours", goal_id=site, parameters_spec={})
    scope = [{"compute": [{"availability_zones": [{"name": "AZ1"}]}]}]
    db.add("audit_templates", "c", name="nightly", goal_id=dummy, strategy_id=first, scope=scope,
           default_parameters={"para1": 4.5})  # fmt: skip
    db.add("audit_templates", "c", name="gone", goal_id=dummy, deleted=2, deleted_at=WHEN)

    def audit(name: str, kind: str, state: str, **more: Any) -> int:
        given = {"parameters": {}, "scope": [], "auto_trigger": 0, "force": 0, "goal_id": dummy, "strategy_id": first}
        return db.add("audits", "d", name=name, audit_type=kind, state=state, **{**given, **more})

    done = audit("done", "ONESHOT", "SUCCEEDED", parameters={"para1": 3.2}, force=1)
    audit("waiting", "ONESHOT", "PENDING")
    hourly = audit("hourly", "CONTINUOUS", "ONGOING", interval="3600", hostname="ctl1", auto_trigger=1,
                   end_time="2030-01-31 22:00:00", strategy_id=None)  # fmt: skip
    audit("alarm", "EVENT", "ONGOING", goal_id=site, strategy_id=ours)

    efficacy = [{"name": "x", "description": "y", "unit": "%", "value": 50.0}]
    plan = db.add("action_plans", "e", audit_id=done, strategy_id=first, state="SUCCEEDED", global_efficacy=efficacy)
    cut = db.add("action_plans", "e", audit_id=hourly, strategy_id=first, state="ONGOING", global_efficacy={})
    nop = db.add("actions", "f", action_plan_id=plan, action_type="nop", state="SUCCEEDED", parents=[],
                 input_parameters={"message": "hi"})  # fmt: skip
    db.add("actions", "f", action_plan_id=plan, action_type="sleep", state="SKIPPED", parents=[uuid("f", nop)],
           input_parameters={"duration": 1}, status_message="Action skipped by user.")  # fmt: skip
    db.add("actions", "f", action_plan_id=cut, action_type="nop", state="SUCCEEDED", parents=[], input_parameters={})
    db.add("actions", "f", action_plan_id=cut, action_type="nop", state="ONGOING", parents=[], input_parameters={})
    db.add("efficacy_indicators", "9", name="compute_nodes_count", unit=None, value=3, data=None, action_plan_id=plan)
    db.add("efficacy_indicators", "9", name="ratio", unit="%", value=3, data=3.25, action_plan_id=plan)
    return db


def bring(watcher: Watcher, tmp_path: Path, *options: str) -> str:
    answer = CliRunner().invoke(
        app, ["import", "watcher", "--db", watcher.url, "--data-dir", str(tmp_path / "data"), *options]
    )
    assert answer.exit_code == 0, answer.output + repr(answer.exception)
    return " ".join(answer.output.replace("│", " ").split())


@pytest.fixture
def store(watcher: Watcher, tmp_path: Path) -> Any:
    bring(watcher, tmp_path)
    opened = Store(tmp_path / "data" / "trimtab.duckdb")
    yield opened
    opened.close()


def test_catalogue_rows_take_over_the_uuids_that_clients_know(store: Store) -> None:
    goal, strategy = store.get(Goal, "dummy"), store.get(Strategy, "dummy")
    assert (goal.uuid, strategy.uuid) == (uuid("a", 1), uuid("b", 1))
    assert strategy.goal_id == goal.id
    assert store.get(Goal, "server_consolidation").deleted == 0


def test_what_is_not_installed_keeps_its_name_as_a_deleted_row(store: Store) -> None:
    assert store.find(Goal, "of_our_site") is None
    gone = store.get(Goal, uuid("a", 3), deleted=True)
    assert gone.name == "of_our_site"
    assert store.get(Audit, "alarm").goal_id == gone.id


def test_templates_come_with_scope_and_default_parameters(store: Store) -> None:
    template = store.get(AuditTemplate, "nightly")
    assert template.uuid == uuid("c", 1)
    assert template.scope == [{"compute": [{"availability_zones": [{"name": "AZ1"}]}]}]
    assert template.default_parameters == {"para1": 4.5}
    assert template.strategy_id == store.get(Strategy, "dummy").id
    assert template.created_at is not None
    assert template.created_at.isoformat() == "2026-03-04T05:06:07+00:00"
    assert store.find(AuditTemplate, "gone") is None


def test_plans_come_with_actions_parents_and_indicators(store: Store) -> None:
    plan = store.get(ActionPlan, uuid("e", 1))
    assert plan.audit_id == store.get(Audit, "done").id
    assert plan.global_efficacy[0]["value"] == 50.0
    first, second = store.list(Action, {"action_plan_id": plan.id})
    assert second.parents == [first.uuid]
    assert (second.state, second.status_message) == ("SKIPPED", "Action skipped by user.")
    values = {row.name: row.data for row in store.list(EfficacyIndicator, {"action_plan_id": plan.id})}
    assert values == {"compute_nodes_count": 3.0, "ratio": 3.25}


async def test_plans_of_the_past_stay_untouched_when_effects_are_measured(store: Store) -> None:
    before = store.list(ActionPlan)

    async def never(*_: Any) -> Any:
        raise AssertionError("nothing of this cloud was measured then")

    await settle(StorePort.direct(store), never, never, 60.0, lambda *_, **__: None)
    assert store.list(ActionPlan) == before
    assert {plan.state for plan in before} == {"SUCCEEDED", "CANCELLED"}


def test_what_was_under_way_ends_cancelled_and_says_so(store: Store) -> None:
    assert store.get(Audit, "waiting").state == "CANCELLED"
    assert store.get(Audit, "alarm").state == "PENDING"
    plan = store.get(ActionPlan, uuid("e", 2))
    assert (plan.state, plan.status_message) == ("CANCELLED", watcher_database.STOPPED)
    assert [action.state for action in store.list(Action, {"action_plan_id": plan.id})] == ["SUCCEEDED", "CANCELLED"]


def test_continuous_audits_wait_unless_they_are_to_go_on(watcher: Watcher, store: Store, tmp_path: Path) -> None:
    audit = store.get(Audit, "hourly")
    assert (audit.state, audit.interval, audit.hostname, audit.auto_trigger) == ("SUSPENDED", "3600", None, True)
    assert audit.end_time is not None
    store.close()
    (tmp_path / "data" / "trimtab.duckdb").unlink()
    bring(watcher, tmp_path, "--resume")
    again = Store(tmp_path / "data" / "trimtab.duckdb")
    assert again.get(Audit, "hourly").state == "ONGOING"
    again.close()


def test_importing_again_brings_only_what_is_new(watcher: Watcher, tmp_path: Path) -> None:
    bring(watcher, tmp_path)
    watcher.add("audits", "d", name="later", audit_type="ONESHOT", state="FAILED", parameters={}, scope=[], goal_id=1,
                auto_trigger=0, force=0)  # fmt: skip
    assert "audits 5 0 1 4" in bring(watcher, tmp_path)
    opened = Store(tmp_path / "data" / "trimtab.duckdb")
    assert len(opened.list(Audit)) == 5
    assert len(opened.list(Action)) == 4
    opened.close()


def test_a_dry_run_writes_nothing(watcher: Watcher, tmp_path: Path) -> None:
    assert "audits" in bring(watcher, tmp_path, "--dry-run")
    assert not (tmp_path / "data").exists()


def test_deleted_rows_come_only_when_asked_for(watcher: Watcher, tmp_path: Path) -> None:
    bring(watcher, tmp_path, "--deleted")
    opened = Store(tmp_path / "data" / "trimtab.duckdb")
    assert opened.find(AuditTemplate, "gone") is None
    assert opened.get(AuditTemplate, "gone", deleted=True).deleted > 0
    opened.close()


def test_a_name_that_is_taken_here_is_made_unique(watcher: Watcher, tmp_path: Path) -> None:
    opened = Store(tmp_path / "mine.duckdb")
    sync_catalogue(opened)
    goal = opened.get(Goal, "dummy")
    opened.create(AuditTemplate(uuid=uuid("1", 1), name="NIGHTLY", goal_id=goal.id))
    done = opened.restore(watcher_database.translate(watcher_database.read(watcher.url)).heritage)
    assert opened.get(AuditTemplate, uuid("c", 1)).name == f"nightly-{uuid('c', 1)}"
    assert any("nightly" in note for note in done.notes)
    opened.close()


def test_columns_that_an_older_watcher_lacks_are_empty(tmp_path: Path) -> None:
    old = dict(SCHEMA)
    old["audits"] = old["audits"].replace(
        ", start_time DATETIME, end_time DATETIME, force BOOLEAN, status_message TEXT", ""
    )
    old["audit_templates"] = old["audit_templates"].replace(", default_parameters TEXT", "")
    old["efficacy_indicators"] = old["efficacy_indicators"].replace(" data FLOAT,", "")
    db = Watcher(tmp_path / "old.db", old)
    db.add("goals", "a", name="dummy", display_name="Dummy", efficacy_specification=[])
    db.add("audit_templates", "c", name="t", goal_id=1)
    db.add("audits", "d", name="x", audit_type="ONESHOT", state="SUCCEEDED", goal_id=1)
    heritage = watcher_database.translate(watcher_database.read(db.url)).heritage
    assert heritage.audits[0].start_time is None
    assert heritage.audit_templates[0].default_parameters == {}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "no database URL"),
        ("mysql://watcher:s3cret@127.0.0.1:port/watcher", "no database URL"),
        ("oracle://watcher:s3cret@db/watcher", "kind oracle: what is read is mysql"),
        ("mysql://watcher:s3cr@et@127.0.0.1/watcher", "more than one @: in a password write %40"),
        ("mysql://watcher:a/s3cr@et@127.0.0.1/watcher", "more than one @"),
        ("mysql://watcher:s3cret@127.0.0.1:1/watcher", "mysql://watcher@127.0.0.1:1/watcher cannot be read: .*refused"),
        ("mysql+mysqldb://watcher:s3cret@127.0.0.1:1/watcher", "cannot be read: .*refused"),
        ("mysql+pymysql://watcher:s3cret@127.0.0.1:1/watcher?charset=utf8&plugin=dbcounter", "refused"),
        ("mysql://watcher:x@127.0.0.1:1/watcher?passwd=s3cret&connect_timeout=soon", "cannot be read: .*soon"),
        ("mysql://watcher:s3cret@127.0.0.1:1/watcher?ssl_ca=/no/such/file", "cannot be read"),
        (
            "postgresql://watcher:s3cret@127.0.0.1:1/watcher",
            "postgresql://watcher@127.0.0.1:1/watcher cannot be read: ",
        ),
        ("postgresql+psycopg2://watcher:s3cret@127.0.0.1:1/watcher", "cannot be read: .*refused"),
        ("postgresql://watcher:s3cret@127.0.0.1:1/watcher?colour=s3cret", "cannot be read: .*colour"),
    ],
)
def test_what_is_wrong_with_the_address_is_one_line_without_the_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, told: str
) -> None:
    answer = CliRunner().invoke(app, ["import", "watcher", "--db", url, "--data-dir", str(tmp_path / "data")])
    assert isinstance(answer.exception, InvalidInput), repr(answer.exception)
    text = str(answer.exception)
    assert re.search(told, text), text
    assert len(text.splitlines()) == 1
    for secret in ("s3cret", "s3cr", "et@"):
        assert secret not in text + answer.output + caplog.text
    assert not (tmp_path / "data").exists(), "nothing was begun"


def test_a_file_that_is_no_watcher_database_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no file"):
        watcher_database.read(f"sqlite:///{tmp_path}/absent.db")
    assert not (tmp_path / "absent.db").exists()
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE goals (id INT)")
    with pytest.raises(InvalidInput, match="it has no table strategies"):
        watcher_database.read(f"sqlite:///{tmp_path}/other.db")


def test_the_database_may_be_the_one_of_watchers_own_configuration(watcher: Watcher, tmp_path: Path) -> None:
    file = tmp_path / "watcher.conf"
    open_to_all = "[DEFAULT]\nenable_authentication = false\n"
    file.write_text(f"{open_to_all}state_path = {tmp_path}/state\n[database]\nconnection = {watcher.url}\n")
    answer = CliRunner().invoke(app, ["import", "watcher", "--config", str(file)])
    assert answer.exit_code == 0, repr(answer.exception)
    opened = Store(tmp_path / "state" / "trimtab.duckdb")
    assert len(opened.list(Audit)) == 4
    opened.close()
    answer = CliRunner().invoke(app, ["import", "watcher", "--from", str(file), "--data-dir", str(tmp_path / "other")])
    assert answer.exit_code == 0, repr(answer.exception)
    assert (tmp_path / "other" / "trimtab.duckdb").exists()
    file.write_text(open_to_all)
    for arguments, told in (
        (["--config", str(file)], r"has no \[database\]connection"),
        ([], "Say --db URL, or --from"),
    ):
        answer = CliRunner().invoke(app, ["import", "watcher", *arguments])
        assert re.search(told, str(answer.exception))


def test_a_broken_json_column_names_its_row(watcher: Watcher) -> None:
    watcher.con.execute("UPDATE audits SET parameters = '{' WHERE id = 2")
    watcher.con.commit()
    with pytest.raises(InvalidInput, match=r"audits.parameters of row 2"):
        watcher_database.translate(watcher_database.read(watcher.url))
