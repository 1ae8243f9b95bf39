"""Killing the simulated cloud at any moment: what was acknowledged is there again, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.platform.errors import CloudConflict, CloudUnavailable, InvalidInput
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.faults import Fault
from trimtab.simulator.truth import CloudSpec

SPEC = CloudSpec(hosts=6, instances=40, seed=3, start_s=20_000 * 86_400.0, speed=0.0)


def _state(cloud: SimulatedCloud, at: float | None = None) -> dict[str, Any]:
    """Everything that can be seen of a cloud."""
    if at is not None:
        cloud.fast_forward(at - cloud.now())
    inventory, now = cloud.inventory(), cloud.now()
    ids = inventory.instances["uuid"].to_pylist()
    return {
        "inventory": [table.to_pylist() for table in inventory[:3]],
        "now": now,
        "servers": cloud.servers(ids),
        "migrations": cloud.all_migrations(),
        "figures": cloud.figures(),
        "score": cloud.measure(now - 40_000, now),
        "samples": cloud.samples("instance_cpu_usage", "instance", now - 3000, now).to_pylist(),
    }


def _live_on(cloud: SimulatedCloud, steps: int = 25) -> None:
    """A cloud's eventful life."""
    inventory = cloud.inventory()
    rng = np.random.default_rng(5)
    ids = inventory.instances.filter(np.array(inventory.instances["state"].to_pylist()) == "active")["uuid"].to_pylist()
    hosts = inventory.hosts["hostname"].to_pylist()
    for step in range(steps):
        if step == 8:
            cloud.inject(Fault("migration_fails", str(rng.choice(ids)), at=cloud.now() + 20))
        elif step == 12:
            cloud.set_service(hosts[2], enabled=False, reason="noise")
        elif step == 15:
            cloud.rewrite_future(17)
        elif step == 18:
            cloud.inject(Fault("host_dies", hosts[4], at=cloud.now() + 33))
        elif step == 20:
            running = [m for m in cloud.all_migrations() if m.status == "running"]
            if running:
                cloud.abort_migration(running[0].server_id)
        else:
            with suppress(CloudConflict):
                cloud.migrate(str(rng.choice(ids)), None, live=True)
        cloud.fast_forward(float(rng.uniform(0, 12)))


def test_starting_again_gives_the_identical_cloud_with_running_migrations(tmp_path: Path) -> None:
    cloud = SimulatedCloud(SPEC, tmp_path / "journal")
    _live_on(cloud)
    assert any(m.status == "running" for m in cloud.all_migrations())
    size = (tmp_path / "journal").stat().st_size
    again = SimulatedCloud(SPEC, tmp_path / "journal")
    assert _state(again) == _state(cloud)
    assert (tmp_path / "journal").stat().st_size == size
    later = cloud.now() + 500
    without_journal = SimulatedCloud(SPEC)
    _live_on(without_journal)
    assert _state(without_journal, later) == _state(SimulatedCloud(SPEC, tmp_path / "journal"), later)


def test_a_journal_cut_anywhere_gives_the_cloud_after_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _live_on(SimulatedCloud(SPEC, path))
    raw = path.read_bytes()
    lines = raw.splitlines(keepends=True)
    end = json.loads(lines[-1])["at"] + 100
    rng = np.random.default_rng(1)
    known: dict[int, dict[str, Any]] = {}
    for cut in [1, len(lines[0]) - 1, len(lines[0]), len(raw) - 1, *rng.integers(0, len(raw), 14).tolist()]:
        whole = raw[:cut].rfind(b"\n") + 1
        torn, clean = tmp_path / "torn", tmp_path / "clean"
        torn.write_bytes(raw[:cut])
        if whole not in known:
            clean.write_bytes(raw[:whole])
            known[whole] = _state(SimulatedCloud(SPEC, clean), end)
        cloud = SimulatedCloud(SPEC, torn)
        assert torn.read_bytes() == (raw[:whole] if whole else torn.read_bytes())
        assert len(torn.read_bytes().splitlines()) == max(raw[:whole].count(b"\n"), 1)
        assert _state(cloud, end) == known[whole]
        assert _state(SimulatedCloud(SPEC, torn)) == known[whole]  # it could be written to again


def test_refused_requests_and_questions_are_not_journalled(tmp_path: Path) -> None:
    cloud = SimulatedCloud(SPEC, tmp_path / "journal")
    before = (tmp_path / "journal").read_bytes()
    _state(cloud)
    with pytest.raises(Exception, match="no server"):
        cloud.migrate("nobody", None, live=True)
    name = cloud.inventory().hosts["hostname"][0].as_py()
    cloud.set_service(name, enabled=True)  # as it is already
    with pytest.raises(InvalidInput):
        cloud.fast_forward(-1)
    assert (tmp_path / "journal").read_bytes() == before


def test_the_paced_clock_goes_on_over_restarts_and_never_backward(tmp_path: Path) -> None:
    wall = [1000.0]
    spec = replace(SPEC, start_s=None, speed=60.0)
    cloud = SimulatedCloud(spec, tmp_path / "journal", now=lambda: wall[0])
    assert cloud.now() == 1000.0
    wall[0] += 10
    assert cloud.now() == 1600.0
    cloud.fast_forward(400)
    assert cloud.now() == 2000.0
    wall[0] += 5
    again = SimulatedCloud(spec, tmp_path / "journal", now=lambda: wall[0])
    assert again.now() == cloud.now() == 2300.0
    origin, wall_origin, speed = again.pace()
    assert origin + (wall[0] - wall_origin) * speed == 2300.0
    wall[0] -= 100
    assert again.now() == 2300.0
    wall[0] += 101
    assert again.now() == 2360.0


def test_a_command_takes_effect_at_the_time_at_which_it_was_checked(tmp_path: Path) -> None:
    ticks = iter(range(10_000))  # a wall clock on which time passes whenever somebody looks
    spec = replace(SPEC, speed=1.0)
    cloud = SimulatedCloud(spec, tmp_path / "journal", now=lambda: float(next(ticks)))
    server = cloud.inventory().instances["uuid"][0].as_py()
    fault = cloud.inject(Fault("server_vanishes", server))
    (entry,) = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()[1:]]
    assert entry["at"] == entry["fault"]["at"] == fault.at
    assert cloud.servers([server]) == {}


def test_another_clouds_journal_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    SimulatedCloud(SPEC, path)
    with pytest.raises(InvalidInput, match=r"another cloud \(seed 3 -> 4\)"):
        SimulatedCloud(replace(SPEC, seed=4), path)
    SimulatedCloud(replace(SPEC, start_s=None), path)
    good = path.read_bytes()
    path.write_bytes(good + b"{nonsense}\n")
    with pytest.raises(InvalidInput, match="line 2 is no JSON object"):
        SimulatedCloud(SPEC, path)
    path.write_bytes(good + b'{"at": 1728000000.0, "command": "explode"}\n')
    with pytest.raises(InvalidInput, match="'explode'"):
        SimulatedCloud(SPEC, path)
    path.write_bytes(b'{"a": 1}\n')
    with pytest.raises(InvalidInput, match="line 1 holds no spec"):
        SimulatedCloud(SPEC, path)
    path.write_bytes(b'{"spec": {"colour": 1}, "wall_origin": 0}\n')
    with pytest.raises(InvalidInput, match="another version"):
        SimulatedCloud(SPEC, path)


def test_what_cannot_be_written_is_not_done(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    cloud = SimulatedCloud(SPEC, folder / "journal")
    server = cloud.inventory().instances["uuid"][0].as_py()
    (folder / "journal").unlink()
    (folder / "journal").mkdir()
    with pytest.raises(CloudUnavailable, match="cannot write its journal"):
        cloud.migrate(server, None, live=False)
    assert cloud.all_migrations() == []


LIFE = """
import sys
from pathlib import Path
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.truth import CloudSpec
spec = CloudSpec(hosts=6, instances=40, seed=3, start_s=20_000 * 86_400.0, speed=0.0)
cloud = SimulatedCloud(spec, Path(sys.argv[1]))
for row in cloud.inventory().instances.to_pylist():
    if row["state"] == "active":
        try:
            cloud.migrate(row["uuid"], None, live=True)
        except Exception:
            continue
        print(row["uuid"], flush=True)
        cloud.fast_forward(3.0)
"""


def test_after_kill_9_everything_acknowledged_is_there(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    child = subprocess.Popen([sys.executable, "-c", LIFE, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().strip() for _ in range(7)]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += child.stdout.read().split()
    child.wait()
    child.stdout.close()
    cloud = SimulatedCloud(SPEC, path)
    asked = [m.server_id for m in cloud.all_migrations()]
    assert asked[: len(acknowledged)] == acknowledged
    assert len(asked) - len(acknowledged) <= 1  # one may have been on disk but not yet acknowledged
    cloud.fast_forward(3600)
    assert {m.status for m in cloud.all_migrations()} == {"completed"}
