"""The command line: help that teaches, one line for what is wrong, and `up` to `down` as a person does it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest
from typer.testing import CliRunner

from trimtab.platform.store.schema import LATEST
from trimtab.serve.main import app

COMMANDS = {
    (): ("demo", "up", "down", "audit", "plan", "snapshot", "db", "sync", "import"),
    ("db",): ("upgrade", "version", "backup", "purge"),
    ("audit",): ("create", "list", "show", "candidates", "cancel"),
    ("plan",): ("list", "show", "explain", "start", "cancel"),
    ("scoringengine",): ("list", "show"),
    ("snapshot",): ("export", "import"),
}
OPTIONS = {
    ("demo",): ("--hosts", "--instances", "--seed", "--goal", "--trace", "--report", "--port"),
    ("up",): ("--data-dir", "--port", "--foreground", "TRIMTAB_CLOUD__HOSTS"),
    ("audit", "create"): ("--goal", "--strategy", "--audit-template", "--parameter", "--json", "TRIMTAB_URL"),
    ("plan", "start"): ("--follow", "uuid"),
    ("snapshot", "import"): ("--data-dir", "--json", "folder"),
}
SMALL = {
    "TRIMTAB_CLOUD__HOSTS": "12",
    "TRIMTAB_CLOUD__INSTANCES": "60",
    "TRIMTAB_CLOUD__SPEED": "120",
    "TRIMTAB_RAY__DASHBOARD": "false",
    "TRIMTAB_RAY__NUM_CPUS": "1",
}


def trimtab(
    *arguments: str, folder: Path | None = None, timeout: float = 60, more: Mapping[str, str] | None = None
) -> Any:
    """Run the command as a person would, in a wide terminal without colours."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRIMTAB_")}
    return subprocess.run(
        [sys.executable, "-m", "trimtab.serve.main", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=folder,
        env={**clean, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **(more or {})},
    )


def helped(*command: str) -> str:
    """The help of a command, asked for in this process because that is faster."""
    wide = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1", "TERM": "dumb"}
    told = CliRunner().invoke(app, [*command, "--help"], env=wide, prog_name="trimtab")
    assert told.exit_code == 0, told.output
    return told.output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- help ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", COMMANDS, ids=" ".join)
def test_help_names_every_command_with_a_word_on_it(group: tuple[str, ...]) -> None:
    told = helped(*group)
    for command in COMMANDS[group]:
        assert re.search(rf"^\W*{command}\s+\w+,? \w+", told, re.MULTILINE), f"{command} is not explained"


@pytest.mark.parametrize("command", OPTIONS, ids=" ".join)
def test_help_of_a_command_names_its_options(command: tuple[str, ...]) -> None:
    told = helped(*command).lower()
    for option in OPTIONS[command]:
        assert option.lower() in told, option


def test_the_first_help_says_where_to_begin() -> None:
    assert "Try trimtab demo first" in trimtab("--help").stdout


# -- what is wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("up", "--port", "99999"), "option port = 99999 .command line.: .* 65535"),
        (("up", "--port", "many"), "--port.*valid integer"),
        (("demo", "--hosts", "1"), "option cloud.hosts = 1 .command line.: .* 2"),
        (("audit", "create", "--parameter", "granularity"), "'granularity': write name=value"),
        (("audit", "create", "--colour", "red"), "No such option.*--colour"),
        (("dmeo",), "No such command.*dmeo"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_bad_option_is_named_in_one_line(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    told = trimtab(*arguments, folder=tmp_path)
    assert told.returncode == 2
    assert re.search(complaint, told.stderr), told.stderr
    assert "Traceback" not in told.stderr
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


def test_a_bad_environment_is_named_like_an_option(tmp_path: Path) -> None:
    told = trimtab("up", folder=tmp_path, more={"TRIMTAB_CLOUD__SPEED": "-3"})
    assert told.returncode == 2
    expected = r"error: option cloud\.speed = '-3' \(environment TRIMTAB_CLOUD__SPEED\): .*greater than 0\b.*\n"
    assert re.fullmatch(expected, told.stderr), told.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "list"),
        ("audit", "create", "--goal", "dummy"),
        ("plan", "list", "--json"),
        ("plan", "start", "some-plan"),
        ("snapshot", "export", "there"),
    ],
    ids=" ".join,
)
def test_when_nothing_answers_it_says_how_to_start_it(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    told = trimtab(*arguments, folder=tmp_path, more={"TRIMTAB_URL": url})
    assert told.returncode == 1
    assert told.stderr.startswith(f"error: nothing answers at {url}: start it with `trimtab up`")
    assert len(told.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [], "no half an export"


def test_down_without_up_says_what_to_do(tmp_path: Path) -> None:
    told = trimtab("down", "--data-dir", str(tmp_path))
    assert (told.returncode, told.stderr) == (1, f"error: nothing runs on {tmp_path}: start it with `trimtab up`\n")


def test_an_import_of_what_is_no_model_names_the_file(tmp_path: Path) -> None:
    told = trimtab("snapshot", "import", str(tmp_path / "nowhere"), "--data-dir", str(tmp_path / "data"))
    assert told.returncode == 1
    assert "nodes.parquet is missing" in told.stderr
    assert not (tmp_path / "data").exists()


# -- the whole way ---------------------------------------------------------------------------------------


class Kept:
    """One data folder on one port, and how to ask what runs there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder / "data", free_port()
        self.family: set[psutil.Process] = set()

    def run(self, *arguments: str, fails: bool = False, timeout: float = 240) -> Any:
        more = {**SMALL, "TRIMTAB_DATA_DIR": str(self.folder), "TRIMTAB_URL": f"http://127.0.0.1:{self.port}"}
        told = trimtab(*arguments, timeout=timeout, more=more)
        assert bool(told.returncode) == fails, f"{arguments}: {told.stdout}\n{told.stderr}"
        return told

    def up(self) -> None:
        self.run("up", "--port", str(self.port))
        pid = json.loads((self.folder / "trimtab.pid").read_text())["pid"]
        supervisor = psutil.Process(pid)
        self.family |= {supervisor, *supervisor.children(recursive=True)}

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def listening_elsewhere(self) -> set[str]:
        """Addresses beside loopback at which any of the processes listens."""
        everywhere = [one for process in self.family for one in process.net_connections("inet")]
        ips = {one.laddr.ip.removeprefix("::ffff:") for one in everywhere if one.status == psutil.CONN_LISTEN}
        assert ips, "nothing listens at all"
        return {ip for ip in ips if not ip_address(ip).is_loopback}

    def left(self) -> list[psutil.Process]:
        """Processes that still live, of those there were at the start."""
        _, alive = psutil.wait_procs(list(self.family), timeout=20)
        return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    one = Kept(tmp_path)
    yield one
    if (one.folder / "trimtab.pid").exists():
        trimtab("down", "--data-dir", str(one.folder), timeout=120)
    for process in one.left():
        process.kill()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_up_audits_applies_exports_and_goes_down_without_a_trace(kept: Kept, tmp_path: Path) -> None:
    kept.up()
    assert kept.listening_elsewhere() == set()
    assert "runs already" in kept.run("up", "--port", str(kept.port), fails=True).stderr

    audit = kept.json("audit", "create", "--goal", "server_consolidation", "--name", "first")
    assert (audit["state"], audit["name"]) == ("SUCCEEDED", "first")
    candidates = kept.json("audit", "candidates", "first")
    assert {"do_nothing", "vm_workload_consolidation"} <= {row["strategy_name"] for row in candidates}
    (plan,) = kept.json("plan", "list")
    assert plan["audit_uuid"] == audit["uuid"]
    assert plan["state"] == "RECOMMENDED", "a fragmented cloud of twelve hosts has something to consolidate"
    assert "action plan is SUCCEEDED" in kept.run("plan", "start", plan["uuid"]).stdout
    shown = kept.json("plan", "show", plan["uuid"])
    assert shown["actions"]
    assert {action["state"] for action in shown["actions"]} == {"SUCCEEDED"}

    copy = tmp_path / "copy.duckdb"
    assert kept.json("db", "version")["file"] == LATEST, "the running one is asked"
    assert "has all records" in kept.run("db", "backup", str(copy)).stdout
    with duckdb.connect(str(copy), read_only=True) as con:
        assert con.execute("SELECT name, state FROM audit").fetchall() == [("first", "SUCCEEDED")]
    assert "nothing to remove" in kept.run("db", "purge", "--yes").stdout
    for command in (("db", "upgrade"), ("sync",), ("import", "watcher", "--db", "sqlite:///nowhere")):
        assert re.match(r"error: Trimtab runs on .* `trimtab down`", kept.run(*command, fails=True).stderr)

    export = tmp_path / "export"
    assert "12 hosts, 60 instances" in kept.run("snapshot", "export", str(export)).stdout
    assert "exists already" in kept.run("snapshot", "export", str(export), fails=True).stderr

    kept.family |= set(psutil.Process(json.loads((kept.folder / "trimtab.pid").read_text())["pid"]).children(True))
    began = time.monotonic()
    assert "stopped" in kept.run("down").stdout
    assert kept.left() == [], f"{time.monotonic() - began:.0f} s after `down`"
    assert "nothing runs" in kept.run("down", fails=True).stderr

    kept.up()
    assert [(row["name"], row["state"]) for row in kept.json("audit", "list")] == [("first", "SUCCEEDED")]
    assert kept.json("plan", "list")[0]["state"] == "SUCCEEDED"
    kept.run("down")
    assert kept.left() == []

    fresh = tmp_path / "fresh"
    imported = trimtab("snapshot", "import", str(export), "--data-dir", str(fresh), "--json")
    assert imported.returncode == 0, imported.stderr
    summary = json.loads(imported.stdout)
    assert (summary["hosts"], summary["instances"]) == (12, 60)
    refused = trimtab("snapshot", "import", str(export), "--data-dir", str(kept.folder))
    assert "has a cloud already" in refused.stderr
