"""Trimtab killed while Nova moves servers: the one that comes after it finds out what happened, and goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from tests.lab.cloud import Lab, begun, clouds_yaml, elsewhere, migrate, options_of
from tests.lab.conftest import OnLab
from tests.peers import server

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


def kill_all_of(data_dir: Path) -> int:
    """Everything that runs on a data folder gets SIGKILL; how many processes that were."""
    family = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if process.environ().get("TRIMTAB_DATA_DIR") == str(data_dir):
                family.append(process)
        except psutil.Error:  # it has ended
            continue
    for process in family:
        if process.is_running():
            process.kill()
    psutil.wait_procs(family, timeout=30)
    return len(family)


def test_killed_in_the_middle_nobody_is_moved_twice(lab: Lab, tmp_path: Path) -> None:
    options = options_of(lab, clouds_yaml(lab, tmp_path / "clouds.yaml"))
    servers = lab.movable()[:6]
    to, since = elsewhere(lab, servers), time.time()
    lab.lasting(servers, 20)
    try:
        with server.running(tmp_path, options) as url:
            first = OnLab(url, lab.tokens())
            first.until("/v1/cluster", lambda body: body["version"] > 0, 120)
            plan = first.act([migrate(lab, one, to[one]) for one in servers])
            first.start(plan)
            lab.until(lambda: len(begun(lab, since)) >= 2, 120)
            assert kill_all_of(tmp_path / "data") > 5
            assert len(begun(lab, since)) < len(servers), "too late: all are on their way"
        (tmp_path / "data" / "ready.json").unlink()
        with server.running(tmp_path, options) as url:
            second = OnLab(url, lab.tokens())
            ended = second.ended(plan, 600)
            messages = [a["status_message"] for a in second.actions(plan["uuid"]) if a["state"] != "SUCCEEDED"]
    finally:
        lab.lasting(servers, None)
    assert ended["state"] == "SUCCEEDED", messages
    assert {one: at for one, at in lab.where().items() if one in to} == to
    assert begun(lab, since) == dict.fromkeys(servers, 1)
