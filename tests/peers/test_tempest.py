"""The API tests of Watcher's tempest plug-in, against Trimtab behind Keystone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from tests.peers import environments, server
from tests.peers.conftest import needed
from tests.peers.identity import Keystone
from tests.peers.server import Trimtab
from tests.peers.workers import HERE, bare_environment

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1200)]

API_TESTS = "watcher_tempest_plugin.tests.api.admin"
AT_LEAST = 60  # pass: a test that is no longer found is noticed
ITS_OWN_BUG = "Skipped until bug: "  # what the plug-in itself holds back


@pytest.fixture(scope="module")
def guarded(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trimtab]:
    """Trimtab behind Keystone, and in its catalogue."""
    keystone.user("trimtab", "service", ["service"])
    options = {
        "TRIMTAB_AUTH": "keystone",
        "TRIMTAB_KEYSTONE_AUTHTOKEN__AUTH_URL": keystone.url,
        "TRIMTAB_KEYSTONE_AUTHTOKEN__USERNAME": "trimtab",
        "TRIMTAB_KEYSTONE_AUTHTOKEN__PASSWORD": keystone.passwords["trimtab"],
    }
    with server.running(tmp_path_factory.mktemp("guarded"), options) as url:
        keystone.endpoint("watcher", "infra-optim", url)
        yield Trimtab(url, {"X-Auth-Token": keystone.token("admin", "admin")})


def tempest_run(folder: Path, keystone: Keystone, package: str, optimize: dict[str, str]) -> dict[str, Any]:
    """All tests under a package of the plug-in; what became of them."""
    folder.mkdir(exist_ok=True)
    config = ConfigParser(interpolation=None)
    config["auth"] = {
        "admin_username": "admin",
        "admin_password": keystone.passwords["admin"],
        "admin_project_name": "admin",
        "admin_domain_name": "Default",
    }
    config["identity"] = {"uri_v3": f"{keystone.url}/v3", "auth_version": "v3", "region": ""}
    config["service_available"] = {"watcher": "true"}
    config["oslo_concurrency"] = {"lock_path": str(folder)}
    config["DEFAULT"] = {"log_file": str(folder / "tempest.log")}
    config["optimize"] = {"resource_check_interval": "0.2", "resource_timeout": "60", **optimize}
    with (folder / "tempest.conf").open("w") as file:
        config.write(file)
    outcome = folder / "outcome.json"
    command = [str(environments.programs("tempest") / "python"), str(HERE / "tempest_run.py"), package, str(outcome)]
    done = subprocess.run(
        command,
        env={
            **bare_environment(),
            "TEMPEST_CONFIG": "tempest.conf",
            "TEMPEST_CONFIG_DIR": str(folder),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(outcome.read_text())
    return found


def test_the_api_tests_of_the_plug_in_pass(guarded: Trimtab, keystone: Keystone, tmp_path: Path) -> None:
    needed("tempest")
    # Without a smallest microversion tests send the one that they need, or none where they need none.
    outcome = tempest_run(tmp_path / "tempest", keystone, API_TESTS, {"max_microversion": "latest"})
    assert outcome["failed"] == {}, "\n".join(f"{name}:\n{trace}" for name, trace in outcome["failed"].items())
    assert {why for why in outcome["skipped"].values() if not why.startswith(ITS_OWN_BUG)} == set()
    assert len(outcome["passed"]) >= AT_LEAST
    assert guarded.get("/v1/audits")["audits"] == []  # they tidy up
