"""Cloud and applier are killed at random moments, both in every run; the plan is done, and nothing twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pyarrow as pa
import pytest

from trimtab.platform.model import ClusterModel, write_model
from trimtab.platform.records import Action, ActionPlan, Audit, Goal, Strategy
from trimtab.platform.store.state import Store
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.faults import Fault
from trimtab.simulator.truth import CloudSpec

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("crash_processes.py")
SPEED = 90.0
LIMITS = (2, 4)
SERVERS = [f"vm{n}" for n in range(12)]
LONGEST_S = 60.0  # wall time after which a run is lost


class Nursery:
    """Where processes come from in a few milliseconds."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def order(self, **what: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._read())
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


class Role:
    """One part of the system: what it is started with, life after life, and how each life ends."""

    def __init__(self, nursery: Nursery, role: str, arguments: dict[str, Any], ends: list[dict[str, Any]]) -> None:
        self.nursery, self.role, self.arguments, self.ends = nursery, role, arguments, ends
        self.deaths = 0
        self.over = False
        self.start()

    def start(self) -> None:
        self.end = self.ends[self.deaths] if self.deaths < len(self.ends) else {}
        owner = {"owner": f"applier {self.deaths}"} if self.role == "applier" else {}
        fatal = self.end if "method" in self.end else None
        self.pid = self.nursery.order(start=self.role, **{"with": {**self.arguments, **owner, "fatal": fatal}})["pid"]
        self.born: float | None = None

    def look(self, *, begun: bool) -> bool:
        """Kill it if its time has come, start it again if it is dead; True when it has ended by itself.

        Its time is counted from the moment when the plan had begun.
        """
        if self.born is None and begun:
            self.born = time.monotonic()
        if self.born and time.monotonic() - self.born > self.end.get("after_s", float("inf")):
            os.kill(self.pid, signal.SIGKILL)
            self.end = {}
        ended = self.nursery.order(poll=self.pid)["ended"]
        if ended is None:
            return False
        if ended == -signal.SIGKILL:
            self.deaths += 1
            self.start()
            return False
        self.over = True
        assert ended == 0, f"the {self.role} ended with {ended}"
        return True

    def stop(self) -> None:
        if self.over:
            return
        os.kill(self.pid, signal.SIGKILL)
        while self.nursery.order(poll=self.pid)["ended"] is None:
            time.sleep(0.005)


def uuid_of(name: str) -> str:
    return str(uuid5(NAMESPACE_OID, name))


def estate(folder: Path) -> None:
    hosts = [f"h{n}" for n in range(6)]
    rows: dict[str, Any] = {"uuid": [uuid_of(h) for h in hosts], "hostname": hosts, "vcpus": [16.0] * 6}
    rows |= {"memory_mb": [262_144.0] * 6, "disk_gb": [1_000.0] * 6}
    vms: dict[str, Any] = {"uuid": [uuid_of(vm) for vm in SERVERS], "name": SERVERS}
    vms |= {"node": [uuid_of(f"h{n % 3}") for n in range(12)], "vcpus": [2.0] * 12}
    vms |= {"memory_mb": [8_192.0 + 1_024 * n for n in range(12)], "disk_gb": [10.0] * 12}
    write_model(ClusterModel.from_arrow(pa.table(rows), pa.table(vms)), folder)


def plan(chance: random.Random) -> list[Action]:
    """Empties h0, h1 and h2 into h3, h4 and h5: two are disabled when they are empty, one before."""

    def action(name: str, kind: str, wanted: dict[str, Any], *parents: str) -> Action:
        return Action(
            uuid=uuid_of(f"do {name}"),
            action_plan_id=1,
            action_type=kind,
            input_parameters=wanted,
            state="PENDING",
            parents=[uuid_of(f"do {parent}") for parent in parents],
        )

    def disable(host: str, *parents: str) -> Action:
        wanted = {"resource_id": uuid_of(host), "resource_name": host, "state": "disabled"}
        return action(host, "change_nova_service_state", {**wanted, "disabled_reason": "watcher_disabled"}, *parents)

    actions, done = [disable("h0")], list[str]()
    for number, vm in enumerate(SERVERS):
        source = f"h{number % 3}"
        wanted = {"resource_id": uuid_of(vm), "resource_name": vm, "source_node": source}
        wanted |= {"destination_node": f"h{3 + number // 4}", "migration_type": "live" if number % 5 else "cold"}
        parents = chance.sample(done, min(len(done), chance.randint(0, 1)))
        actions.append(action(vm, "migrate", wanted, *(["h0"] if source == "h0" else []), *parents))
        done.append(vm)
    actions += [disable(f"h{n}", *SERVERS[n::3]) for n in (1, 2)]
    return [*actions, action("last", "nop", {"message": "done"}, "h1", "h2")]


def ends(chance: random.Random, methods: list[str]) -> list[dict[str, Any]]:
    """How the first lives of a process end: at a time, or in the middle of something."""
    found: list[dict[str, Any]] = []
    for _ in range(chance.randint(1, 2)):
        when = chance.choice(["before", "after"])
        at_an_instant = {"method": chance.choice(methods), "nth": chance.randint(1, 4), "when": when}
        found.append(chance.choice([at_an_instant, {"after_s": chance.uniform(0.0, 0.5)}]))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_moment_the_plan_is_done_and_nothing_twice(seed: int, nursery: Nursery, tmp_path: Path) -> None:
    chance = random.Random(seed)
    estate(tmp_path / "estate")
    spec = CloudSpec(start_s=1.7e9, speed=SPEED, history_s=0.0, estate=str(tmp_path / "estate"), as_assumed=True)
    unlucky = chance.choice([None, *SERVERS[:6]])
    journal = tmp_path / "journal"
    first = SimulatedCloud(spec, journal)
    if unlucky:
        first.inject(Fault("migration_fails", uuid_of(unlucky)))
    origin, at_first = json.loads(journal.read_text().splitlines()[0])["wall_origin"], journal.stat().st_size
    with_store(tmp_path, plan(chance))

    folder = {"folder": str(tmp_path)}
    clock = {"clock": [spec.start_s, origin, SPEED], "limits": LIMITS}
    cloud = Role(nursery, "cloud", {**folder, "spec": spec.to_json()}, ends(chance, ["migrate", "servers"]))
    applier = Role(nursery, "applier", {**folder, **clock}, ends(chance, ["migrate", "transitions"]))
    began = time.monotonic()
    try:
        begun = False
        while not applier.look(begun=begun):
            begun = begun or journal.stat().st_size > at_first
            assert not cloud.look(begun=begun)
            assert time.monotonic() - began < LONGEST_S, "the plan did not come to its end"
            time.sleep(0.01)
    finally:
        cloud.stop()
        applier.stop()
    assert cloud.deaths >= 1
    assert applier.deaths >= 1
    judge(tmp_path, SimulatedCloud(spec, journal), unlucky)


def with_store(folder: Path, actions: list[Action]) -> None:
    store = Store(folder / "store.duckdb")
    store.create(Goal(uuid=uuid_of("goal"), name="goal", display_name="goal"))
    store.create(Strategy(uuid=uuid_of("strategy"), name="strategy", display_name="strategy", goal_id=1))
    store.create(Audit(uuid=uuid_of("audit"), name="audit", audit_type="ONESHOT", state="SUCCEEDED", goal_id=1))
    store.create(ActionPlan(uuid=uuid_of("plan"), audit_id=1, strategy_id=1, state="PENDING"))
    store.create_many(actions)
    store.close()


def judge(folder: Path, cloud: SimulatedCloud, unlucky: str | None) -> None:
    """Counts on the cloud's side, and compares with what the store says."""
    trips = cloud.all_migrations()
    assert Counter(trip.server_id for trip in trips) == Counter(uuid_of(vm) for vm in SERVERS)  # all, and none twice
    status = {trip.server_id: trip.status for trip in trips}
    assert status == {uuid_of(vm): "failed" if vm == unlucky else "completed" for vm in SERVERS}
    for trip in trips:
        running = [t for t in trips if t.started_at <= trip.started_at < (t.ended_at or 0)]
        assert len(running) <= LIMITS[1]
        loads = Counter(host for t in running for host in (t.source, t.destination))
        assert max(loads.values()) <= LIMITS[0]

    store = Store(folder / "store.duckdb")
    done, actions = store.get(ActionPlan, uuid_of("plan")), store.list(Action)
    for action in actions:
        if action.action_type == "migrate":
            wanted = action.input_parameters
            failed = status[wanted["resource_id"]] == "failed"
            assert action.state == ("FAILED" if failed else "SUCCEEDED"), action.status_message
            where = cloud.servers([wanted["resource_id"]])[wanted["resource_id"]].host
            assert where == wanted["source_node" if failed else "destination_node"]
    unlucky_host = f"h{SERVERS.index(unlucky) % 3}" if unlucky else ""
    for host in ("h0", "h1", "h2"):
        service, action = cloud.service(host), store.get(Action, uuid_of(f"do {host}"))
        assert service is not None
        stays = host == unlucky_host and host != "h0"  # a host that could not be emptied is not disabled
        assert (action.state, service.enabled) == (("SKIPPED", True) if stays else ("SUCCEEDED", False))
    assert store.get(Action, uuid_of("do last")).state == "SUCCEEDED"
    assert done.state == ("FAILED" if unlucky else "SUCCEEDED")
    assert done.epoch >= 2  # somebody took it over from the dead
    events = Counter((event.record_uuid, event.event) for event in store.events(limit=10_000))
    assert max(events.values()) == 1  # nothing began or ended twice
    store.close()
