"""`trimtab import watcher` from databases that clouds really have: a MariaDB and a PostgreSQL of these tests' own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_OID, uuid4, uuid5

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import Action, ActionPlan, Audit, AuditTemplate, EfficacyIndicator, Goal
from trimtab.platform.store.state import Store
from trimtab.serve import watcher_database
from trimtab.serve.main import app

pytestmark = pytest.mark.peers

PASSWORD = "p:ss/w@rd%x"
WHEN = datetime(2026, 3, 4, 5, 6, 7)  # noqa: DTZ001 (as Watcher stores it)
TEXT, SHORT, MOMENT = sa.Text(), sa.String(255), sa.DateTime()


def tables() -> sa.MetaData:
    """Watcher's tables as its release 17 makes them, with its types."""
    meta = sa.MetaData()

    def table(table_name: str, /, **columns: Any) -> None:
        common: list[sa.Column[Any]] = [
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("uuid", sa.String(36), unique=True),
            *(sa.Column(column, MOMENT) for column in ("created_at", "updated_at", "deleted_at")),
            sa.Column("deleted", sa.Integer),
        ]
        made = [sa.Column(column, *(kind if isinstance(kind, tuple) else (kind,))) for column, kind in columns.items()]
        sa.Table(table_name, meta, *common, *made, mysql_engine="InnoDB", mysql_charset="utf8")

    def to(table: str) -> tuple[Any, ...]:
        return sa.Integer, sa.ForeignKey(f"{table}.id")

    table("goals", name=sa.String(63), display_name=sa.String(63), efficacy_specification=TEXT)
    table("strategies", name=sa.String(63), display_name=sa.String(63), goal_id=to("goals"), parameters_spec=TEXT)
    table("audit_templates", name=sa.String(63), description=SHORT, goal_id=to("goals"), strategy_id=to("strategies"),
          scope=TEXT, default_parameters=TEXT)  # fmt: skip
    table("audits", name=sa.String(63), audit_type=sa.String(20), state=sa.String(20), parameters=TEXT,
          interval=sa.String(36), goal_id=to("goals"), strategy_id=to("strategies"), scope=TEXT,
          auto_trigger=sa.Boolean(), next_run_time=MOMENT, hostname=SHORT, start_time=MOMENT, end_time=MOMENT,
          force=sa.Boolean(), status_message=SHORT)  # fmt: skip
    table("action_plans", audit_id=to("audits"), strategy_id=to("strategies"), state=sa.String(20),
          global_efficacy=TEXT, hostname=SHORT, status_message=SHORT)  # fmt: skip
    table("actions", action_plan_id=to("action_plans"), action_type=SHORT, input_parameters=TEXT,
          state=sa.String(20), parents=TEXT, status_message=SHORT)  # fmt: skip
    table("efficacy_indicators", name=sa.String(63), description=SHORT, unit=sa.String(63), value=sa.Numeric(),
          data=sa.Float(), action_plan_id=to("action_plans"))  # fmt: skip
    return meta


def fill(address: sa.URL) -> None:
    """A goal, a strategy, a template, two audits, and a plan with two actions and an indicator."""
    engine, meta = sa.create_engine(address), tables()
    meta.create_all(engine)

    with engine.begin() as connection:

        def add(table: str, number: int, **values: Any) -> None:
            row = {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in values.items()}
            mine = {"id": number, "uuid": str(uuid5(NAMESPACE_OID, f"{table} {number}"))}
            connection.execute(meta.tables[table].insert().values(**mine, created_at=WHEN, deleted=0, **row))

        add("goals", 1, name="dummy", display_name="Dummy goal", efficacy_specification=[])
        add("strategies", 1, name="dummy", display_name="Dummy", goal_id=1, parameters_spec={})
        add("audit_templates", 1, name="nächtlich", description="über Nacht", goal_id=1, strategy_id=1,
            scope=[{"compute": [{"host_aggregates": [{"id": 1}]}]}], default_parameters={"para1": 4.5})  # fmt: skip
        both = {"goal_id": 1, "strategy_id": 1, "scope": []}
        add("audits", 1, name="done", audit_type="ONESHOT", state="SUCCEEDED", parameters={"para1": 3.2}, force=True,
            auto_trigger=False, **both)  # fmt: skip
        add("audits", 2, name="hourly", audit_type="CONTINUOUS", state="ONGOING", parameters={}, force=False,
            auto_trigger=True, interval="*/5 * * * *", next_run_time=WHEN, end_time=WHEN, **both)  # fmt: skip
        add("action_plans", 1, audit_id=1, strategy_id=1, state="SUCCEEDED", global_efficacy=[{"value": 50.0}])
        add("actions", 1, action_plan_id=1, action_type="nop", state="SUCCEEDED", parents=[], input_parameters={})
        add("actions", 2, action_plan_id=1, action_type="sleep", state="FAILED", parents=["x"],
            input_parameters={"duration": 1.5}, status_message="Größe")  # fmt: skip
        add("efficacy_indicators", 1, name="ratio", unit="%", value=3, data=3.25, action_plan_id=1)
    engine.dispose()


# -- servers -----------------------------------------------------------------------------------------


def program(name: str) -> str:
    """Where a program is; skips where it is not installed."""
    places = [os.environ["PATH"], "/usr/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*command: str, given: str | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=given, timeout=120)
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-500:]}{done.stderr[-500:]}"


@contextmanager
def served(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """A server of a test's own, from the moment it listens."""
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, log.read_text()[-1000:]
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.URL]:
    """A MariaDB with a filled database of Watcher's."""
    server, install, client = program("mariadbd"), program("mariadb-install-db"), program("mariadb")
    home, port = tmp_path_factory.mktemp("mariadb"), free_port()
    as_root = ["--user=root"] if os.geteuid() == 0 else []
    run(install, "--no-defaults", *as_root, f"--datadir={home}/data", "--auth-root-authentication-method=normal",
        "--skip-test-db")  # fmt: skip
    command = [server, "--no-defaults", *as_root, f"--datadir={home}/data", f"--socket={home}/socket",
               f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={home}/pid"]  # fmt: skip
    with served(command, port, home / "log"):
        words = "CREATE DATABASE watcher CHARACTER SET utf8mb3;" + "".join(
            f"CREATE USER watcher@'{host}' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON watcher.* TO watcher@'{host}';"
            for host in ("localhost", "127.0.0.1")
        )
        run(client, "--no-defaults", "--user=root", f"--socket={home}/socket", given=words)
        address = sa.URL.create("mysql+pymysql", "watcher", PASSWORD, "127.0.0.1", port, "watcher")
        fill(address)
        yield address


@pytest.fixture(scope="module")
def postgresql() -> Iterator[sa.URL]:
    """A PostgreSQL with a filled database of Watcher's."""
    server, init, make = program("postgres"), program("initdb"), program("createdb")
    port, somebody = free_port(), list[str]()
    with TemporaryDirectory(prefix="trimtab-postgresql-") as home:  # unlike pytest's, others may be let in
        if os.geteuid() == 0:  # as whom the server refuses to run
            somebody = [program("runuser"), "-u", "postgres", "--"]
            if subprocess.run([*somebody, "true"], capture_output=True, check=False).returncode:
                pytest.skip("there is no user postgres, and PostgreSQL does not run as root")
            shutil.chown(home, "postgres")
        secret = Path(home, "password")
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        run(*somebody, init, "-D", f"{home}/data", "-U", "watcher", "-A", "scram-sha-256", f"--pwfile={secret}",
            "-E", "UTF8")  # fmt: skip
        command = [*somebody, server, "-D", f"{home}/data", "-p", str(port), "-h", "127.0.0.1", "-k", home]
        with served(command, port, Path(home, "log")):
            address = sa.URL.create("postgresql+psycopg", "watcher", PASSWORD, "127.0.0.1", port, "watcher")
            run("env", f"PGPASSWORD={PASSWORD}", make, "-h", "127.0.0.1", "-p", str(port), "-U", "watcher", "watcher")
            fill(address)
            yield address


@pytest.fixture(params=["mariadb", "postgresql"])
def address(request: pytest.FixtureRequest) -> sa.URL:
    """Each of them."""
    found: sa.URL = request.getfixturevalue(request.param)
    return found


def written(address: sa.URL, scheme: str, more: str = "") -> str:
    """As an operator writes it into watcher.conf."""
    return f"{scheme}://watcher:{quote(PASSWORD, safe='')}@127.0.0.1:{address.port}/watcher{more}"


# -- tests -------------------------------------------------------------------------------------------


def test_everything_comes_over_as_it_was(address: sa.URL, tmp_path: Path) -> None:
    url = written(address, address.get_backend_name())
    answer = CliRunner().invoke(app, ["import", "watcher", "--db", url, "--data-dir", str(tmp_path)])
    assert answer.exit_code == 0, repr(answer.exception)
    store = Store(tmp_path / "trimtab.duckdb")
    template = store.get(AuditTemplate, "nächtlich")
    assert (template.description, template.default_parameters) == ("über Nacht", {"para1": 4.5})
    assert template.scope == [{"compute": [{"host_aggregates": [{"id": 1}]}]}]
    assert template.created_at == WHEN.replace(tzinfo=UTC)
    assert template.goal_id == store.get(Goal, "dummy").id
    done, hourly = store.get(Audit, "done"), store.get(Audit, "hourly")
    assert (done.force, done.auto_trigger, done.parameters) == (True, False, {"para1": 3.2})
    assert (hourly.state, hourly.auto_trigger, hourly.interval) == ("SUSPENDED", True, "*/5 * * * *")
    assert hourly.end_time == WHEN.replace(tzinfo=UTC)
    (plan,) = store.list(ActionPlan)
    assert (plan.audit_id, plan.global_efficacy) == (done.id, [{"value": 50.0}])
    first, second = store.list(Action)
    assert (first.state, second.state, second.status_message) == ("SUCCEEDED", "FAILED", "Größe")
    assert second.input_parameters == {"duration": 1.5}
    assert [one.data for one in store.list(EfficacyIndicator)] == [3.25]
    store.close()


def test_the_address_may_be_the_one_of_watcher_conf_whichever_driver_it_names(address: sa.URL) -> None:
    for scheme, more in {
        "mysql": (("mysql+mysqldb", "?charset=utf8mb4"), ("mysql+pymysql", "?charset=utf8&plugin=dbcounter")),
        "postgresql": (("postgres", ""), ("postgresql+psycopg2", "?sslmode=prefer")),
    }[address.get_backend_name()]:
        assert len(watcher_database.read(written(address, scheme, more))["audits"]) == 2


def test_who_may_not_come_in_is_told_so_without_the_password(address: sa.URL) -> None:
    wrong = written(address, address.get_backend_name()).replace("p%3Ass", "s3cret")
    with pytest.raises(InvalidInput, match=r"watcher cannot be read: .*(denied|failed)") as caught:
        watcher_database.read(wrong)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidInput, match=r"nowhere cannot be read: ") as caught:
        watcher_database.read(written(address, address.get_backend_name()).replace("/watcher", "/nowhere"))
    assert PASSWORD not in str(caught.value)


def test_rows_that_come_while_it_is_read_do_not_tear_it(address: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan and its actions are written after audits and plans were read: none of them, not half of them."""
    engine, meta = sa.create_engine(address), tables()
    written_late: list[str] = []
    every = watcher_database._all

    def then_something_is_written(given: Any, table: Any) -> Any:
        if table.name == "actions" and not written_late:
            common = {"id": 99, "created_at": WHEN, "deleted": 0}
            plan = {**common, "uuid": str(uuid4()), "audit_id": 1, "strategy_id": 1, "state": "RECOMMENDED"}
            action = {**common, "uuid": str(uuid4()), "action_plan_id": 99, "action_type": "nop", "state": "PENDING"}
            with engine.begin() as connection:
                connection.execute(meta.tables["action_plans"].insert().values(**plan))
                connection.execute(meta.tables["actions"].insert().values(**action))
            written_late.append(table.name)
        return every(given, table)

    monkeypatch.setattr(watcher_database, "_all", then_something_is_written)
    found = watcher_database.read(written(address, address.get_backend_name()))
    assert written_late == ["actions"]
    assert {row["action_plan_id"] for row in found["actions"]} <= {row["id"] for row in found["action_plans"]}
    with engine.begin() as connection:
        for name in ("actions", "action_plans"):
            connection.execute(meta.tables[name].delete().where(meta.tables[name].c.id == 99))
    engine.dispose()
