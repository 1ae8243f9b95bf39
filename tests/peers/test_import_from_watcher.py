"""`trimtab import watcher` on a database that Watcher's own code made and filled; then Trimtab works with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.peers import environments, server
from tests.peers.conftest import needed
from tests.peers.server import PLAN_ENDED, Trimtab
from tests.peers.workers import HERE, bare_environment

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

SCOPE = [{"compute": [{"availability_zones": [{"name": "AZ1"}]}]}]
STOPPED = "Was under way in Watcher when it was imported."


@dataclass(frozen=True)
class Move:
    """A Trimtab that was started on what came from Watcher."""

    trimtab: Trimtab
    uuids: dict[str, str]  # of Watcher's rows, by what they stand for
    told: str  # by the import
    told_again: str  # by the import of what was there already

    def __getitem__(self, place: str) -> dict[str, Any]:
        """A record by its path and its name in Watcher's database."""
        path, _, name = place.partition(" ")
        kind = {"audit_templates": "template", "action_plans": "plan", "strategies": "strategy"}.get(path, path[:-1])
        body: dict[str, Any] = self.trimtab.get(f"/v1/{path}/{self.uuids[f'{kind} {name}']}")
        return body


def imported(database: Path, folder: Path) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "trimtab.serve.main", "import", "watcher"]
    command += ["--db", f"sqlite:///{database}", "--data-dir", str(folder)]
    environment = {**bare_environment(), "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.replace("│", " ").split())


@pytest.fixture(scope="module")
def move(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Move]:
    needed("watcher")
    folder = tmp_path_factory.mktemp("move")
    database = folder / "watcher.db"
    python = str(environments.programs("watcher") / "python")
    command = [python, "-W", "ignore", str(HERE / "watcher_worker.py"), str(database), str(folder)]
    made = subprocess.run(command, env=bare_environment(), capture_output=True, text=True, timeout=200, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    before = database.read_bytes()
    told, again = (imported(database, folder / "trimtab" / "data") for _ in range(2))
    assert database.read_bytes() == before
    with server.running(folder / "trimtab", {}) as url:
        yield Move(Trimtab(url, {}), json.loads(made.stdout.splitlines()[-1])["uuids"], told, again)


def test_everything_that_was_not_deleted_comes_once(move: Move) -> None:
    counts = {"audit templates": (3, 1), "audits": (11, 1), "action plans": (4, 1), "actions": (7, 1)}
    for name, (count, left_out) in {**counts, "efficacy indicators": (2, 0)}.items():
        assert f"{name} {count} {left_out} {count} 0" in move.told
        assert f"{name} {count} {left_out} 0 {count}" in move.told_again
    for name in ("goals", "strategies"):  # Trimtab has two of the three itself
        assert f"{name} 3 0 1 2" in move.told
    assert "goal of_our_site is not installed here" in move.told
    for path, name in (
        ("audit_templates", "template"),
        ("audits", "audit"),
        ("action_plans", "plan"),
        ("actions", "action"),
    ):
        known = {row["uuid"] for row in move.trimtab.get(f"/v1/{path}")[path]}
        assert known == {
            uuid for key, uuid in move.uuids.items() if key.startswith(f"{name} ") and not key.endswith("thrown away")
        }


def test_templates_are_as_they_were(move: Move) -> None:
    template = move["audit_templates nightly"]
    assert (template["name"], template["description"], template["scope"]) == ("nightly", "Every night", SCOPE)
    assert template["default_parameters"] == {"para1": 4.5}
    assert (template["goal_name"], template["strategy_name"]) == ("dummy", "dummy")
    assert template["goal_uuid"] == move.uuids["goal dummy"]
    assert move["audit_templates bare"]["description"] == "changed"
    assert move["audit_templates of our site"]["strategy_uuid"] in {move.uuids["strategy ours"], None}


def test_audits_are_as_they_were_but_none_is_under_way(move: Move) -> None:
    states = {"PENDING": "CANCELLED", "ONGOING": "CANCELLED"}
    for state in ("PENDING", "ONGOING", "SUCCEEDED", "FAILED", "CANCELLED", "SUSPENDED"):
        audit = move[f"audits oneshot {state}"]
        assert audit["state"] == states.get(state, state)
        assert audit["status_message"] == (STOPPED if state in states else f"as {state} as can be")
        assert (audit["parameters"], audit["scope"]) == ({"para1": 3.2, "para2": "hello"}, SCOPE)
    hourly = move["audits hourly"]
    assert (hourly["audit_type"], hourly["state"], hourly["interval"]) == ("CONTINUOUS", "SUSPENDED", "3600")
    assert hourly["auto_trigger"] is True
    assert hourly["start_time"]
    assert hourly["end_time"]
    cron = move["audits cron"]
    assert (cron["interval"], cron["force"], cron["state"]) == ("*/5 * * * *", True, "SUSPENDED")
    assert move["audits alarm"]["audit_type"] == "EVENT"
    assert move["audits undecided"]["strategy_uuid"] is None


def test_plans_actions_and_figures_are_as_they_were(move: Move) -> None:
    plan = move["action_plans packed"]
    assert (plan["state"], plan["status_message"]) == ("SUCCEEDED", "One or more actions were skipped.")
    assert plan["audit_uuid"] == move.uuids["audit packed"]
    assert plan["strategy_name"] == "vm_workload_consolidation"
    assert {row["name"]: row["value"] for row in plan["efficacy_indicators"]} == {
        "compute_nodes_count": 4.0,
        "released_nodes_ratio": 37.5,
    }
    assert plan["global_efficacy"][0]["value"] == 50.0
    migrate, resized, skipped = move.trimtab.actions(plan["uuid"])
    assert [migrate["action_type"], resized["action_type"], skipped["action_type"]] == ["migrate", "resize", "nop"]
    assert migrate["input_parameters"]["destination_node"] == "cmp2"
    assert (resized["parents"], skipped["parents"]) == ([migrate["uuid"]], [resized["uuid"]])
    assert (skipped["state"], skipped["status_message"]) == ("SKIPPED", "Action skipped by user. Reason: no need")
    cut = move["action_plans cut"]
    assert (cut["state"], cut["status_message"]) == ("CANCELLED", STOPPED)
    assert [row["state"] for row in move.trimtab.actions(cut["uuid"])] == ["SUCCEEDED", "CANCELLED", "CANCELLED"]
    assert move["action_plans superseded"]["state"] == "SUPERSEDED"


def test_work_goes_on_with_what_came(move: Move) -> None:
    trimtab = move.trimtab
    audit = trimtab.audited(goal=None, audit_template_uuid=move.uuids["template nightly"])
    assert (audit["goal_uuid"], audit["parameters"]["para1"]) == (move.uuids["goal dummy"], 4.5)
    hourly = f"/v1/audits/{move.uuids['audit hourly']}"
    answer = trimtab.ask("PATCH", hourly, [{"op": "replace", "path": "/state", "value": "ONGOING"}])
    assert answer.status_code == 200, answer.text
    resumed = trimtab.until(hourly, lambda body: body["next_run_time"] is not None)
    assert resumed["state"] == "ONGOING"
    waiting = f"/v1/action_plans/{move.uuids['plan waiting']}"
    assert trimtab.get(waiting)["state"] == "RECOMMENDED"
    trimtab.post(f"{waiting}/start", {})
    assert trimtab.until(waiting, lambda body: body["state"] in PLAN_ENDED)["state"] == "SUCCEEDED"
