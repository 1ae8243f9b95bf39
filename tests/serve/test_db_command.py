"""`trimtab db` and `trimtab sync`: the file is carried forward with a copy kept, told about, copied and purged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pytest
from typer.testing import CliRunner

from trimtab.platform.errors import TrimtabError
from trimtab.platform.records import Action, ActionPlan, Audit, AuditTemplate, Goal, Strategy
from trimtab.platform.store.schema import LATEST
from trimtab.platform.store.state import Store
from trimtab.serve.main import app

WIDE = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


class Desk:
    """A data folder, and an operator who types commands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder / "data", folder / "data" / "trimtab.duckdb"

    def run(self, *command: str, answer: str = "") -> str:
        """What a command tells, as words."""
        told = CliRunner().invoke(app, [*command, "--data-dir", str(self.folder)], input=answer, env=WIDE)
        if isinstance(told.exception, TrimtabError):
            raise told.exception
        assert told.exit_code == 0, told.output + repr(told.exception)
        return " ".join(told.output.replace("│", " ").split())

    def refused(self, *command: str, answer: str = "") -> str:
        """What a command that does nothing tells."""
        told = CliRunner().invoke(app, [*command, "--data-dir", str(self.folder)], input=answer, env=WIDE)
        assert told.exit_code == 1
        return str(told.exception) if isinstance(told.exception, TrimtabError) else told.output

    def grow_old(self) -> None:
        """Make the file one of the version before the last: without the column that came with it."""
        with duckdb.connect(str(self.file)) as con:
            con.execute("ALTER TABLE action_plan DROP COLUMN rolls_back")
            con.execute("ALTER TABLE action_plan DROP COLUMN settled")
            con.execute("ALTER TABLE candidate DROP COLUMN planner")
            con.execute("UPDATE schema_version SET version = 7")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def store(desk: Desk) -> Iterator[Store]:
    """The file of the desk, open; close it before a command is typed."""
    now = [datetime.now(UTC) - timedelta(days=30)]
    opened = Store(desk.file, lambda: now[0])
    yield opened
    opened.close()


def new(cls: Any, **fields: Any) -> Any:
    return cls(uuid=str(uuid4()), **fields)


def history(store: Store, name: str, plans: int = 2) -> Goal:
    """A goal whose audit has plans of three actions; the plans are deleted."""
    goal = store.create(new(Goal, name=name, display_name=name))
    strategy = store.create(new(Strategy, name=name, display_name=name, goal_id=goal.id))
    store.create(new(AuditTemplate, name=name, goal_id=goal.id))
    audit = store.create(new(Audit, name=name, audit_type="ONESHOT", state="SUCCEEDED", goal_id=goal.id))
    for _ in range(plans):
        plan = store.create(new(ActionPlan, audit_id=audit.id, strategy_id=strategy.id, state="SUCCEEDED"))
        store.create_many([new(Action, action_plan_id=plan.id, action_type="nop", state="SUCCEEDED") for _ in range(3)])
        store.delete(ActionPlan, plan.uuid)
    return goal


def in_file(desk: Desk, kind: type[Any]) -> int:
    """How many rows of a kind the file has, deleted ones too."""
    opened = Store(desk.file)
    try:
        return len(opened.list(kind, deleted=True))
    finally:
        opened.close()


# -- upgrade and version -----------------------------------------------------------------------------


def test_an_upgrade_makes_a_file_where_there_is_none(desk: Desk) -> None:
    assert f"made with schema version {LATEST}" in desk.run("db", "upgrade")
    assert f"nothing to do, it has schema version {LATEST}" in desk.run("db", "upgrade")
    assert sorted(one.name for one in desk.folder.iterdir()) == ["trimtab.duckdb", "trimtab.duckdb.lock"]


def test_an_older_file_is_carried_forward_and_a_copy_of_it_is_kept(desk: Desk, store: Store) -> None:
    history(store, "balance")
    store.close()
    desk.grow_old()
    assert f"schema version 7, this Trimtab needs {LATEST}: `trimtab db upgrade`" in desk.run("db", "version")
    told = desk.run("db", "upgrade")
    copy = desk.folder / "trimtab.duckdb.v7"
    assert f"from schema version 7 to {LATEST} as it was: {copy}" in told
    assert json.loads(desk.run("db", "version", "--json")) == {"file": LATEST, "program": LATEST}
    assert in_file(desk, Action) == 6
    with duckdb.connect(str(copy), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM action").fetchone() == (6,)
        assert con.execute("SELECT max(version) FROM schema_version").fetchone() == (7,)


def test_the_copy_can_be_put_back_and_no_copy_is_overwritten(desk: Desk, store: Store) -> None:
    history(store, "balance")
    store.close()
    desk.grow_old()
    desk.run("db", "upgrade")
    copy = desk.folder / "trimtab.duckdb.v7"
    desk.file.write_bytes(copy.read_bytes())
    assert str(desk.folder / "trimtab.duckdb.v7.2") in desk.run("db", "upgrade")
    assert in_file(desk, ActionPlan) == 2
    assert copy.exists()


def test_a_copy_beside_the_log_of_another_file_is_refused_until_that_is_removed(desk: Desk) -> None:
    killed = "from trimtab.platform.store.state import os, Path, Store; import sys; "
    killed += "kept = Store(Path(sys.argv[1])); os._exit(0)"
    subprocess.run([sys.executable, "-c", killed, str(desk.file)], check=True, timeout=60)
    log = desk.folder / "trimtab.duckdb.wal"
    assert log.exists(), "a process that is killed leaves its log"
    copy = desk.folder / "copy.duckdb"
    left = log.read_bytes()
    desk.run("db", "backup", str(copy))
    desk.file.write_bytes(copy.read_bytes())
    log.write_bytes(left)
    for command in ("version", "upgrade"):
        assert "remove what is named .wal and start again" in desk.refused("db", command)
    log.unlink()
    assert "nothing to do" in desk.run("db", "upgrade")


def test_a_newer_file_is_refused_and_left_as_it_is(desk: Desk) -> None:
    desk.run("db", "upgrade")
    with duckdb.connect(str(desk.file)) as con:
        con.execute(f"INSERT INTO schema_version VALUES ({LATEST + 1}, 'of tomorrow')")
    assert f"schema version {LATEST + 1}, this Trimtab knows up to {LATEST}" in desk.run("db", "version")
    for command in (("db", "upgrade"), ("db", "purge"), ("db", "backup", str(desk.folder / "copy")), ("sync",)):
        told = desk.refused(*command)
        assert f"has schema version {LATEST + 1}, this Trimtab knows up to {LATEST}: upgrade Trimtab" in told, command
    assert not list(desk.folder.glob("*.v*")), "no copy of what was not touched"


@pytest.mark.parametrize("command", [("version",), ("purge",), ("backup", "copy.duckdb")], ids=" ".join)
def test_without_a_file_nothing_is_made(desk: Desk, command: tuple[str, ...]) -> None:
    assert "trimtab.duckdb: `trimtab db upgrade` or `trimtab up` makes it" in desk.refused("db", *command)
    assert not desk.folder.exists()


def test_other_peoples_files_are_refused(desk: Desk) -> None:
    desk.folder.mkdir()
    with duckdb.connect(str(desk.file)) as con:
        con.execute("CREATE TABLE mine (x INTEGER)")
    assert "is a DuckDB file of something else" in desk.refused("db", "version")
    assert "is a DuckDB file of something else" in desk.refused("db", "upgrade")
    desk.file.write_text("this is no database, whatever its name says" * 100)
    assert "cannot be opened as a store" in desk.refused("db", "version")


def test_an_error_is_one_line_on_the_error_stream_and_exit_code_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trimtab.serve.main", "db", "version", "--data-dir", str(tmp_path / "deep")]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=None)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == (
        f"error: there is no file {tmp_path}/deep/trimtab.duckdb: `trimtab db upgrade` or `trimtab up` makes it\n"
    )


def test_a_file_that_another_process_holds_is_left_alone(desk: Desk, store: Store) -> None:
    store.list(Goal)
    for command in (("db", "upgrade"), ("db", "purge"), ("sync",), ("db", "backup", str(desk.folder / "copy"))):
        assert "is owned by process" in desk.refused(*command), command


# -- backup ------------------------------------------------------------------------------------------


def test_a_backup_is_a_store_with_all_rows(desk: Desk, store: Store) -> None:
    history(store, "balance")
    store.close()
    copy = desk.folder / "it's a copy.duckdb"
    assert "has all records of" in desk.run("db", "backup", str(copy))
    opened = Store(copy)
    assert len(opened.list(Action, deleted=True)) == 6
    assert opened.create(new(Goal, name="later", display_name="later")).id == 2
    opened.close()
    assert "exists already" in desk.refused("db", "backup", str(copy))
    assert "cannot be written" in desk.refused("db", "backup", str(desk.folder / "nowhere" / "copy.duckdb"))


def test_a_backup_can_be_taken_of_a_store_that_is_in_use(desk: Desk, store: Store, tmp_path: Path) -> None:
    history(store, "balance")
    store.backup(tmp_path / "copy.duckdb")
    history(store, "later")
    opened = Store(tmp_path / "copy.duckdb")
    assert [goal.name for goal in opened.list(Goal)] == ["balance"]
    opened.close()


# -- purge -------------------------------------------------------------------------------------------


def test_a_dry_run_of_a_purge_tells_what_would_go_and_removes_nothing(desk: Desk, store: Store) -> None:
    history(store, "balance")
    store.close()
    told = desk.run("db", "purge", "--dry-run")
    assert "action plan 2 2" in told
    assert "action 6 6" in told
    assert "would be removed" in told
    assert in_file(desk, Action) == 6


def test_a_purge_asks_and_removes_what_was_deleted(desk: Desk, store: Store) -> None:
    history(store, "balance")
    store.close()
    assert "Remove 8 rows for good? [y/N]" in desk.refused("db", "purge", answer="n\n")
    assert in_file(desk, Action) == 6
    told = desk.run("db", "purge", answer="y\n")
    assert "action plan 2 2" in told.partition("[y/N]")[2]
    assert (in_file(desk, Action), in_file(desk, ActionPlan), in_file(desk, Audit)) == (0, 0, 1)
    assert "nothing to remove" in desk.run("db", "purge", "--yes")


def test_a_purge_keeps_what_was_deleted_lately(desk: Desk, store: Store) -> None:
    history(store, "balance")  # thirty days ago
    store.close()
    assert "nothing to remove" in desk.run("db", "purge", "-d", "31", "--yes")
    assert "action 6 6" in desk.run("db", "purge", "-d", "29", "--yes")


def test_a_purge_of_at_most_so_many_rows_takes_whole_groups(desk: Desk, store: Store) -> None:
    history(store, "balance")  # two groups of a plan and three actions
    store.close()
    assert "no whole group has at most 3 rows" in desk.run("db", "purge", "-n", "3", "--yes")
    told = desk.refused("db", "purge", "--max-number", "5", answer="n\n")
    assert "There are 8 rows, more than --max-number. Remove 4 of them for good? [y/N]" in told
    assert in_file(desk, Action) == 6
    desk.run("db", "purge", "--max-number", "5", "--yes")
    assert in_file(desk, Action) == 3


def test_a_purge_of_a_goal_takes_a_deleted_one_and_what_hangs_on_it(desk: Desk, store: Store) -> None:
    goal = history(store, "balance")
    history(store, "other")
    store.close()
    assert "is not deleted: only what is deleted can be purged" in desk.refused("db", "purge", "--goal", "balance")
    assert "could not be found" in desk.refused("db", "purge", "--goal", "nothing")
    opened = Store(desk.file)
    opened.delete(Goal, goal.uuid)
    opened.close()
    told = desk.run("db", "purge", "-t", goal.uuid, "-e", "--dry-run")
    assert "nothing to remove" in told, "a live strategy, audit and template hang on it"
    told = desk.run("db", "purge", "--goal", "balance", "--yes")
    for count in ("goal 1 1", "strategy 1 1", "audit template 1 1", "audit 1 1", "action plan 2 2", "action 6 6"):
        assert count in told
    opened = Store(desk.file)
    assert [one.name for one in opened.list(Goal, deleted=True)] == ["other"]
    opened.close()


# -- sync --------------------------------------------------------------------------------------------


def test_sync_takes_in_the_installed_plug_ins_and_then_has_nothing_to_do(desk: Desk) -> None:
    told = desk.run("sync")
    assert "new goal" in told
    assert "vm_workload_consolidation" in told
    assert in_file(desk, Goal) >= 11
    assert desk.run("sync") == "nothing to do: the catalogue has what is installed"


def test_sync_tells_what_is_removed_and_what_is_replaced(desk: Desk) -> None:
    desk.run("sync")
    opened = Store(desk.file)
    opened.create(new(Goal, name="of_yesterday", display_name="Yesterday"))
    opened.update(Goal, opened.get(Goal, "dummy").uuid, {"display_name": "Dumb"})
    opened.update(Goal, opened.get(Goal, "unclassified").uuid, {"efficacy_specification": [{"name": "x"}]})
    opened.close()
    told = desk.run("sync")
    assert "removed goal of_yesterday" in told
    assert "reworded goal dummy" in told
    assert "replaced goal unclassified" in told
