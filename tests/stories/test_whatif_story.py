"""What-ifs on real Ray: killed workers, a killed actor and a killed state, and no cell lost or computed twice."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from trimtab.platform.runtime import actors
from trimtab.platform.runtime.cells import on_cluster
from trimtab.platform.settings import Settings
from trimtab.serve import compose
from trimtab.serve.client import Client

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[compose.Running]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("trimtab"),
        port=port,
        cloud={"hosts": 20, "instances": 120, "seed": 5, "speed": 30.0},
        ray={"num_cpus": 2, "dashboard": False},
        lease_s=3.0,
    )
    yield compose.deploy(settings)
    compose.shutdown()


def kill(name: str) -> None:
    actor: Any = ray.get_actor(name, namespace=actors.NAMESPACE)
    answer: Any = ray.get(actor.ping.remote())
    os.kill(int(actors.answered(answer)), signal.SIGKILL)


def done_cells(client: Client, uuid: str, at_least: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        body = client.show("whatifs", uuid)
        if body["cells_done"] >= at_least:
            return
        assert body["state"] in {"PENDING", "ONGOING"}, body
        assert time.monotonic() < deadline, body
        time.sleep(0.05)


def test_a_sweep_goes_on_although_its_actor_and_the_state_are_killed(running: compose.Running) -> None:
    often = {"name": "often", "strategy": "workload_stabilization", "interval_min": 30}
    scenario = {"name": "story", "axes": {"policy": [{"name": "nobody"}, often], "seeds": {"count": 80}}}
    with Client(running.api_url) as client:
        whatif = client.create_whatif(scenario)
        done_cells(client, whatif["uuid"], 10)
        kill("whatifs")
        before = {cell["key"]: cell["cpu_s"] for cell in client.cells(whatif["uuid"])}
        done_cells(client, whatif["uuid"], len(before) + 10)
        kill("state")
        ended = client.wait("whatifs", whatif["uuid"], timeout_s=240)
        assert (ended["state"], ended["cells_done"], ended["cells_failed"]) == ("SUCCEEDED", 160, 0), ended
        cells = client.cells(whatif["uuid"], limit=None)
        assert len({cell["key"] for cell in cells}) == len(cells) == 160
        after = {cell["key"]: cell["cpu_s"] for cell in cells}
        assert before.items() <= after.items(), "what was finished was not computed again"
        assert "What if: story" in client.whatif_report(whatif["uuid"])
        client.delete("whatifs", whatif["uuid"])
        assert whatif["uuid"] not in {one["uuid"] for one in client.all("whatifs")}


def deadly(log: str, item: int) -> int:
    """Writes down that it was begun; items 7 and 13 kill their worker, 13 every time."""
    with Path(log).open("a") as file:
        file.write(f"{item}\n")
    begun = Path(log).read_text().split().count(str(item))
    if item == 13 or (item == 7 and begun == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


def test_a_cell_that_kills_its_worker_twice_is_given_up_and_the_others_are_computed(
    running: compose.Running, tmp_path: Path
) -> None:
    del running  # its Ray is used
    log = str(tmp_path / "log")

    async def all_of_them() -> dict[int, Any]:
        found: dict[int, Any] = {}
        async for ended in on_cluster(deadly, log, list(range(40))):
            found.update(ended)
        return found

    found = asyncio.run(all_of_them())
    assert sorted(found) == list(range(40))
    assert "given up after 2 lost workers" in found[13].error
    assert {n: ran.value for n, ran in found.items() if n != 13} == {n: 2 * n for n in range(40) if n != 13}
    assert Path(log).read_text().split().count("13") <= 2, "not tried for ever; blame of a batch is shared"
