"""The real thing: Ray actors, Serve, HTTP over sockets; parts are killed, and nothing is lost or done twice."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import httpx
import psutil
import pytest
import ray
from ray import serve

from trimtab.platform import engine
from trimtab.platform.compute import InProcess
from trimtab.platform.contracts import Score
from trimtab.platform.planner import PLANNERS
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Limits
from trimtab.platform.runtime import actors
from trimtab.platform.runtime.compute import RayCompute
from trimtab.platform.settings import Settings
from trimtab.platform.store.port import StorePort
from trimtab.serve import compose
from trimtab.serve.client import Client
from trimtab.serve.events import MOST_STREAMS
from trimtab.simulator.rehearse import rehearse

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[compose.Running]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("trimtab"),
        port=port,
        cloud={"hosts": 60, "instances": 600, "seed": 5, "speed": 30.0},
        ray={"num_cpus": 2, "dashboard": False},
        lease_s=5.0,
    )
    yield compose.deploy(settings)
    compose.shutdown()


@pytest.fixture
def client(running: compose.Running) -> Iterator[Client]:
    with Client(running.api_url) as one:
        deadline = time.monotonic() + 60
        while one.cluster()["version"] == 0:
            assert time.monotonic() < deadline, "the cloud was never collected"
            time.sleep(0.2)
        yield one


def pid_of(title: str) -> int:
    """The process that runs an actor, by the title Ray gives it, among those this Ray started."""
    found = [
        process.pid
        for process in psutil.Process().children(recursive=True)
        if " ".join(process.cmdline()).startswith(f"ray::{title}")
    ]
    assert len(found) == 1, f"{title}: {found}"
    return found[0]


def pid_of_actor(name: str) -> int:
    """The process of a named actor, by its own word."""
    actor: Any = ray.get_actor(name, namespace=actors.NAMESPACE)
    answer: Any = ray.get(actor.ping.remote())
    return int(actors.answered(answer))


def until(said: Callable[[], Any], within_s: float = 90.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (value := said()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)
    return value


def test_an_audit_is_rehearsed_on_two_workers_and_applied_although_parts_are_killed(
    running: compose.Running, client: Client
) -> None:
    audit = client.create("audits", {"audit_type": "ONESHOT", "goal": "server_consolidation"})
    audit = client.wait("audits", audit["uuid"])
    assert audit["state"] == "SUCCEEDED", audit["status_message"]
    candidates = client.candidates(audit["uuid"])
    assert len({c["worker"] for c in candidates}) >= 2, "rehearsals ran on one worker only"
    assert all(c["node"] for c in candidates)
    plan = client.plan_of(audit["uuid"])
    client.start(plan["uuid"])

    def done() -> int:
        states = [a["state"] for a in client.all("actions", action_plan_uuid=plan["uuid"])]
        return sum(state == "SUCCEEDED" for state in states)

    until(lambda: done() >= 5)
    os.kill(pid_of("ServeReplica:trimtab:applier"), signal.SIGKILL)
    until(lambda: done() >= 15)
    os.kill(pid_of_actor("cloud"), signal.SIGKILL)
    plan = client.wait("action_plans", plan["uuid"], timeout_s=240)
    actions = client.all("actions", detail=True, action_plan_uuid=plan["uuid"])
    wrong = [a["status_message"] for a in actions if a["state"] != "SUCCEEDED"]
    assert (plan["state"], wrong) == ("SUCCEEDED", [])
    wanted = sorted(a["input_parameters"]["resource_id"] for a in actions if a["action_type"] == "migrate")
    assert sorted(m.server_id for m in running.ask_cloud("all_migrations")) == wanted, "all done, none twice"

    until(lambda: client.effect(plan["uuid"])["measured"].get("started_at_s"))
    running.ask_cloud("fast_forward", DAY_S)
    measured = until(lambda: client.effect(plan["uuid"])["measured"].get("hosts_in_use"))
    assert measured == candidates[0]["score"]["hosts_in_use"]


def test_acknowledged_records_survive_the_death_of_the_state_actor(running: compose.Running, client: Client) -> None:
    made = client.create("audit_templates", {"name": "survivor", "goal": "dummy"})
    os.kill(pid_of_actor("state"), signal.SIGKILL)
    assert until(lambda: client.show("audit_templates", made["uuid"]))["name"] == "survivor"
    audit = client.create("audits", {"audit_type": "ONESHOT", "goal": "dummy"})
    assert client.wait("audits", audit["uuid"])["state"] == "SUCCEEDED"


def test_engine_and_applier_give_signs_of_life_and_audits_repeat(client: Client) -> None:
    def alive() -> dict[str, str]:
        return {service["name"]: service["status"] for service in client.all("services")}

    assert until(lambda: len(alive()) == 2 and alive()) == {
        "watcher-decision-engine": "ACTIVE",
        "watcher-applier": "ACTIVE",
    }
    audit = client.create("audits", {"audit_type": "CONTINUOUS", "interval": "2", "goal": "dummy"})
    until(lambda: len(client.all("action_plans", audit_uuid=audit["uuid"])) >= 3)
    os.kill(pid_of_actor("engine"), signal.SIGKILL)
    many = len(client.all("action_plans", audit_uuid=audit["uuid"]))
    plans = until(lambda: len(p := client.all("action_plans", audit_uuid=audit["uuid"])) > many and p)
    assert client.show("audits", audit["uuid"])["state"] == "ONGOING"
    assert [plan["state"] for plan in plans].count("RECOMMENDED") == 1
    assert client.cancel_audit(audit["uuid"])["state"] == "CANCELLED"


def test_ray_and_this_process_give_the_same_scores(running: compose.Running) -> None:
    model = ray.get_actor("model", namespace=actors.NAMESPACE)
    goal = load().goals["workload_balancing"]

    async def scores(compute: Any) -> list[dict[str, Any]]:
        jobs = engine.jobs_for(load(), goal, None, {}, 0)
        needs = [need for s in load().of_goal(goal.name) for need in s.needs(s.parameters())]
        frozen = await actors.freeze_through(model, [], needs, [])
        store = StorePort(actors.call_of(None, "store"))  # not asked
        parts = engine.Parts(store, freeze_nothing, compute, load(), PLANNERS, rehearse, Limits())
        entries = await engine.explore(parts, goal, frozen, jobs)
        assert all(entry.error is None for entry in entries)
        return [asdict(entry.tried.score or Score()) for entry in entries]

    async def both() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return await scores(InRay()), await scores(HereWith())

    remote, here = asyncio.run(both())
    assert remote == here
    assert len(remote) > 2


class InRay(RayCompute):
    """Always on Ray, however little work it is."""

    async def map(self, function: Any, shared: Any, items: Any, estimated_s: float) -> Any:
        return await super().map(function, shared, items, 10.0)


class HereWith(InProcess):
    """In this process, also when the snapshot is a reference."""

    async def map(self, function: Any, shared: Any, items: Any, estimated_s: float) -> Any:
        return await super().map(function, await shared, items, estimated_s)


async def freeze_nothing(*_: Any) -> engine.Frozen:
    raise AssertionError("not asked")


def test_who_stops_listening_to_events_makes_room(running: compose.Running, client: Client) -> None:
    """Replicas do not ask the proxy whether a client is still there: the proxy tells."""
    url = f"{running.api_url}/v1/events"
    for _ in range(MOST_STREAMS + 5):
        for _ in range(100):
            with httpx.stream("GET", url, timeout=20) as stream:
                if stream.status_code == 200:
                    assert "retry" in next(stream.iter_text())
                    break
            time.sleep(0.1)  # the one before has not been noticed yet
        else:
            raise AssertionError("streams that nobody listens to are still open")


def test_actors_and_deployments_have_telling_names(running: compose.Running) -> None:
    names = {named["name"] for named in ray.util.list_named_actors(all_namespaces=True)}
    assert {"state", "model", "engine", "cloud"} <= names
    assert set(serve.status().applications["trimtab"].deployments) == {"api", "applier"}
