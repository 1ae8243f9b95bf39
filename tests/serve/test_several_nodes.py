"""A Ray cluster of several nodes, with a token: all of them work, and nodes, supervisors and heads may be lost."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.peers.nodes import Nodes, Program, kill_family, nodes, until, without_ours
from tests.peers.server import AUDIT_ENDED, PLAN_ENDED, Trimtab, free_port

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="every node has a loopback address of its own"),
]

# As many parameter sets as make it worth to send them to the cluster; they wait while somebody says so.
PATIENT = """
import os, time
from pathlib import Path
from pydantic import BaseModel
HERE = Path(__file__).parent
class Parameters(BaseModel):
    number: int = 0
class Patient:
    name = "patient"
    display_name = "Waits until it may go on"
    goal = "server_consolidation"
    parameters = Parameters
    models = ("compute",)
    def needs(self, parameters): return []
    def grid(self): return [{"number": n} for n in range(12)]
    def propose(self, snapshot, parameters, context):
        (HERE / f"began-{os.getpid()}").touch()
        while (HERE / "wait").exists():
            time.sleep(0.05)
        (HERE / f"ended-{parameters.number}").touch()
        return []
"""


def install(folder: Path) -> None:
    """Put the patient strategy where Python looks for packages, as pip would."""
    about = folder / "patient-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: patient\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[trimtab.strategies]\npatient = patient_plugin:Patient\n")
    (folder / "patient_plugin.py").write_text(PATIENT)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head and one more node."""
    with nodes() as found:
        plugins = tmp_path_factory.mktemp("plugins")
        install(plugins)
        found.environment["PYTHONPATH"] = str(plugins)
        found.add()
        found.add()
        yield found


@pytest.fixture(scope="module")
def program(cluster: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A Trimtab that is told of the cluster by its file alone."""
    toml = f'lease_s = 5.0\n[ray]\naddress = "{cluster.address}"\n'
    toml += "[cloud]\nhosts = 40\ninstances = 300\nseed = 5\nspeed = 30.0\n"
    made = Program(tmp_path_factory.mktemp("trimtab"), cluster.environment, toml)
    yield made
    made.end()


@pytest.fixture
def api(program: Program) -> Trimtab:
    """The API of that Trimtab, started where the test before did not leave it running."""
    return Trimtab(program.url, {}) if program.running() else program.up()


def ended(api: Trimtab, audit: dict[str, Any]) -> dict[str, Any]:
    return api.until(f"/v1/audits/{audit['uuid']}", lambda body: body["state"] in AUDIT_ENDED, 180.0)


def planned(api: Trimtab, audit: dict[str, Any]) -> dict[str, Any]:
    (plan,) = api.get("/v1/action_plans/detail", audit_uuid=audit["uuid"])["action_plans"]
    assert api.ask("POST", f"/v1/action_plans/{plan['uuid']}/start").status_code < 300
    return dict(plan)


def carried_out(api: Trimtab, plan: dict[str, Any]) -> str:
    path = f"/v1/action_plans/{plan['uuid']}"
    return str(api.until(path, lambda body: body["state"] in PLAN_ENDED, 240.0)["state"])


CONSOLIDATION = {"audit_type": "ONESHOT", "goal": "server_consolidation"}


def test_both_nodes_work_and_all_else_stays_where_the_program_runs(cluster: Nodes, api: Trimtab) -> None:
    audit = ended(api, api.post("/v1/audits", CONSOLIDATION))
    assert audit["state"] == "SUCCEEDED", audit
    head, other = cluster.node_id(0), cluster.node_id(1)
    candidates = api.get(f"/v1/audits/{audit['uuid']}/candidates")["candidates"]
    assert {one["node"] for one in candidates} == {head[:12], other[:12]}
    actors = cluster.listed("actors", state="ALIVE")
    assert {"state", "cloud", "model", "engine", "whatifs"} <= {one["name"] for one in actors}
    assert len([one for one in actors if one["class_name"].startswith("ServeReplica:trimtab:")]) == 2
    assert {one["node_id"] for one in actors} == {head}
    assert carried_out(api, planned(api, audit)) == "SUCCEEDED"


def test_without_the_token_nobody_gets_in(cluster: Nodes, program: Program, api: Trimtab) -> None:
    for path in ("/api/v0/actors", "/api/jobs/", "/api/version"):
        assert cluster.ask_dashboard(path).status_code == 401
        assert cluster.ask_dashboard(path, Authorization=f"Bearer {'0' * 64}").status_code == 403
    # Who runs Trimtab's commands is told where the token is, and needs no variables.
    bare = Program(program.config.parent / "bare", without_ours(os.environ), "")
    bare.config.write_text(program.config.read_text())
    assert "schema version" in bare.run("db", "version").stdout
    refused = bare.run("db", "version", RAY_AUTH_MODE="disabled", RAY_NUM_REDIS_GET_RETRIES="2")
    assert refused.returncode == 1
    assert "RAY_AUTH_MODE=token" in refused.stderr
    assert api.exists("/v1/audits")


def test_a_node_that_is_lost_in_the_middle_of_an_audit_costs_nothing(cluster: Nodes, api: Trimtab) -> None:
    plugins = Path(cluster.environment["PYTHONPATH"])
    for trace in (*plugins.glob("began-*"), *plugins.glob("ended-*")):
        trace.unlink()
    (plugins / "wait").touch()
    lost, lost_id = cluster.started[-1], cluster.node_id(1)
    there = {one.pid for one in lost.children(recursive=True)}
    audit = api.post("/v1/audits", CONSOLIDATION)

    def began() -> set[int]:
        return {int(trace.name.partition("-")[2]) for trace in plugins.glob("began-*")}

    until(lambda: began() & there and began() - there)
    kill_family(lost)
    assert api.get(f"/v1/audits/{audit['uuid']}")["state"] == "ONGOING"
    (plugins / "wait").unlink()
    audit = ended(api, audit)
    assert audit["state"] == "SUCCEEDED", audit
    assert len(list(plugins.glob("ended-*"))) == 12, "what was begun there was done elsewhere"
    candidates = api.get(f"/v1/audits/{audit['uuid']}/candidates")["candidates"]
    assert len(candidates) > 1
    assert not [one for one in candidates if one["verdict"] == "failed" or one["node"] == lost_id[:12]]
    cluster.started.pop()
    cluster.add()  # as the operator does, for the tests that follow


def test_only_one_trimtab_runs_on_a_cluster(cluster: Nodes, program: Program, api: Trimtab) -> None:
    other = Program(program.config.parent / "other", cluster.environment, f'[ray]\naddress = "{cluster.address}"\n')
    refused = other.run("up")
    assert refused.returncode == 1
    assert "another Trimtab runs on this Ray cluster" in refused.stderr
    assert api.exists("/v1/audits"), "the first one has been stopped"
    assert {one["name"] for one in cluster.listed("actors", state="ALIVE")} >= {"state", "engine"}


def test_who_is_killed_is_followed_by_another_that_goes_on(cluster: Nodes, program: Program, api: Trimtab) -> None:
    acts = [{"action_type": "sleep", "input_parameters": {"duration": 8}}]
    slow = {"goal": "unclassified", "strategy": "actuator", "parameters": {"actions": acts}}
    plan = planned(api, ended(api, api.post("/v1/audits", {"audit_type": "ONESHOT", **slow})))
    until(lambda: [one["state"] for one in api.actions(plan["uuid"])] == ["ONGOING"])
    os.kill(program.supervisor().pid, signal.SIGKILL)
    old, new = program.port, free_port()
    program.config.write_text(program.config.read_text().replace(f"port = {old}\n", f"port = {new}\n"))
    program.port, program.url = new, f"http://127.0.0.1:{new}"
    after = program.up()
    assert carried_out(after, plan) == "SUCCEEDED"
    ports = {
        one.laddr.port
        for process in cluster.started[0].children(recursive=True)
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }
    assert new in ports
    assert old not in ports


def test_a_head_that_is_lost_ends_the_program_and_nothing_stored_is_lost(
    cluster: Nodes, program: Program, api: Trimtab
) -> None:
    made = api.post("/v1/audit_templates", {"name": "survivor", "goal": "dummy"})
    supervisor = program.supervisor()
    for node in cluster.started:
        kill_family(node)
    until(lambda: not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE)
    cluster.started.clear()
    cluster.add()  # as systemd does
    again = program.up()
    assert again.get(f"/v1/audit_templates/{made['uuid']}")["name"] == "survivor"


def test_down_leaves_nothing_on_the_cluster(cluster: Nodes, program: Program, api: Trimtab) -> None:
    assert api.exists("/v1/audits")
    assert program.run("down").returncode == 0
    until(lambda: not cluster.listed("actors", state="ALIVE"))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", program.port)) != 0
