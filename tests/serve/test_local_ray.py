"""What is set before Ray is imported, who gets it, and what is said of a cluster that cannot be joined."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.peers.nodes import without_ours

from trimtab.platform.errors import TrimtabError
from trimtab.platform.settings import RaySettings, Settings
from trimtab.serve import daemon, local_ray

TELL = "import json, os; from trimtab.serve import local_ray; print(json.dumps(dict(os.environ)))"


def environment_after_import(**given: str) -> dict[str, str]:
    environ = {**without_ours(os.environ), **given}
    done = subprocess.run(
        [sys.executable, "-c", TELL], env=environ, capture_output=True, text=True, timeout=100, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return {name: value for name, value in found.items() if name.startswith("RAY_")}


def test_a_local_ray_gets_its_defaults_and_what_was_given_stays() -> None:
    assert environment_after_import() == local_ray.DEFAULTS
    assert environment_after_import(RAY_AUTH_MODE="token") == {**local_ray.DEFAULTS, "RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize("name", ["TRIMTAB_RAY__ADDRESS", "RAY_ADDRESS", "RAY_RAYLET_PID"])
def test_who_joins_a_cluster_and_who_ray_started_get_none_of_them(name: str) -> None:
    assert environment_after_import(**{name: "1"}).keys() <= {name}


def test_a_cluster_that_the_file_names_is_known_before_ray_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIMTAB_RAY__ADDRESS", raising=False)
    daemon.name_cluster(Settings())
    assert "TRIMTAB_RAY__ADDRESS" not in os.environ
    monkeypatch.setenv("TRIMTAB_RAY__ADDRESS", "so that it is taken back")
    daemon.name_cluster(Settings(ray=RaySettings(address="192.0.2.10:6379")))
    assert os.environ["TRIMTAB_RAY__ADDRESS"] == "192.0.2.10:6379"


def test_a_cluster_that_nobody_answers_for_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would try ten times for 50 seconds."""
    monkeypatch.setattr(local_ray, "THERE_S", 0.0)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(TrimtabError, match=rf"no Ray cluster answers at 127\.0\.0\.1:{port}"):
            local_ray.join(f"127.0.0.1:{port}", "trimtab")


def test_a_token_is_made_for_its_owner_alone_and_only_where_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".ray" / "auth_token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    local_ray.make_token()
    assert not file.exists()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    local_ray.make_token()
    assert not file.exists()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    local_ray.make_token()
    made = file.read_text()
    assert len(made) == 64
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    local_ray.make_token()
    assert file.read_text() == made
