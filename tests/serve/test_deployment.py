"""docs/deploy.md and the files in docs/deploy: what they name exists, and programs that read them can."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml

from trimtab.platform.records import Service
from trimtab.platform.runtime import actors
from trimtab.platform.settings import Settings
from trimtab.platform.states import MACHINES
from trimtab.serve import figures, local_ray, monitoring
from trimtab.serve.configuration import OTHERS, options, read, sections
from trimtab.serve.main import app

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deploy.md"
FILES = sorted((ROOT / "docs" / "deploy").iterdir())
METRIC = re.compile(r"\b(?:ray_)?trimtab_\w+")


def text_of(name: str) -> str:
    return (ROOT / "docs" / "deploy" / name).read_text()


def manifests() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(text_of("kuberay.yaml"))}


def container() -> Any:
    (found,) = manifests()["RayCluster"]["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    return found


def unit() -> list[tuple[str, str]]:
    lines = [line for line in text_of("trimtab.service").splitlines() if "=" in line and not line.startswith("#")]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def is_a_command(words: list[str]) -> bool:
    """Whether these words, after the program's name, are one of its commands with options that it has."""
    found: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and hasattr(found, "commands"):
        found = found.commands.get(rest.pop(0))
    known = {option for parameter in getattr(found, "params", ()) for option in parameter.opts}
    return found is not None and not hasattr(found, "commands") and set(rest) <= known


# -- options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [PAGE, *FILES], ids=lambda file: file.name)
def test_every_variable_is_an_option(file: Path) -> None:
    known = {f"TRIMTAB_{path.upper().replace('.', '__')}" for path in options()}
    known |= {f"TRIMTAB_{name.upper()}" for name in OTHERS}
    assert set(re.findall(r"\bTRIMTAB_[A-Z0-9_]+", file.read_text())) <= known


def test_every_option_that_the_page_names_exists() -> None:
    named = re.findall(r"`(\w+\.\w+)`", PAGE.read_text())
    paths = {path for path in named if path.partition(".")[0] in sections()}
    assert paths
    assert paths <= set(options())


def test_every_example_of_the_page_is_a_configuration(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        tomllib.loads(block)
        (tmp_path / "trimtab.toml").write_text(block)
        secret = {"TRIMTAB_KEYSTONE_AUTHTOKEN__PASSWORD": "secret"}
        found = read(config=tmp_path / "trimtab.toml", environ=secret)
        assert not [*found.notes, *found.hints]


def test_every_line_of_the_environment_sets_something_that_is_read(tmp_path: Path) -> None:
    lines = [line.removeprefix("#") for line in text_of("environment").splitlines() if re.match(r"#?[A-Z_]+=", line)]
    names = {line.partition("=")[0] for line in lines}
    of_others = {name for name in names if not name.startswith("TRIMTAB_")}
    assert of_others == {"OS_CLIENT_CONFIG_FILE", "RAY_AUTH_TOKEN_PATH"}
    environ = dict(line.split("=", 1) for line in lines if line.startswith("TRIMTAB_") and not line.endswith("="))
    (tmp_path / "trimtab.toml").touch()
    configured = read(config=tmp_path / "trimtab.toml", environ=environ)
    assert configured.settings.ray.address == "192.0.2.10:6379"
    assert not configured.hints


# -- commands ----------------------------------------------------------------------------------------


def test_the_unit_starts_a_command_that_exists() -> None:
    (command,) = [value for name, value in unit() if name == "ExecStart"]
    program, *words = shlex.split(command)
    assert program == "/opt/trimtab/bin/trimtab"
    assert is_a_command(words)
    assert not is_a_command(["up", "--colour"])
    assert not is_a_command(["upwards"])


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here")
    copy = tmp_path / "trimtab.service"
    # It wants the programs that a unit starts to be there.
    copy.write_text(text_of("trimtab.service").replace("/opt/trimtab/bin/trimtab", sys.executable))
    told = subprocess.run([program, "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False)
    assert "trimtab.service" not in told.stderr
    assert told.returncode == 0, told.stderr


def test_the_container_starts_a_command_that_exists_and_copies_files_that_do() -> None:
    lines = text_of("Containerfile").replace("\\\n", "").splitlines()
    (command,) = [line.removeprefix("CMD ") for line in lines if line.startswith("CMD ")]
    program, *words = json.loads(command)
    assert program == "trimtab"
    assert is_a_command(words)
    for line in lines:
        if line.startswith("COPY ") and "--from=" not in line:
            *sources, _ = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources), line
    (check,) = [line.partition("CMD ")[2] for line in lines if line.strip().startswith("HEALTHCHECK")]
    compile(json.loads(check)[2], "health check", "exec")


def test_the_pod_starts_a_command_that_exists() -> None:
    (script,) = container()["args"]
    (line,) = [line for line in script.splitlines() if "trimtab" in line]
    begin, program, *words = line.split()
    assert (begin, program) == ("exec", "trimtab")
    assert is_a_command(words)
    shell = shutil.which("bash")
    if shell is not None:
        subprocess.run([shell, "-n"], input=script, text=True, timeout=60, check=True)


def test_ray_asks_for_a_token_wherever_it_is_deployed() -> None:
    assert ("Environment", "RAY_AUTH_MODE=token") in unit()
    assert re.search(r"^ENV .*\bRAY_AUTH_MODE=token\b", text_of("Containerfile").replace("\\\n", ""), re.MULTILINE)
    given = {one["name"]: one.get("value", one.get("valueFrom")) for one in container()["env"]}
    assert given["RAY_AUTH_MODE"] == "token"
    assert given["RAY_AUTH_TOKEN"]["secretKeyRef"]["key"] in manifests()["Secret"]["stringData"]


# -- Kubernetes --------------------------------------------------------------------------------------


def test_the_pod_is_configured_whole(tmp_path: Path) -> None:
    found = manifests()
    file = tmp_path / "trimtab.toml"
    file.write_text(found["ConfigMap"]["data"]["trimtab.toml"])
    environ = {}
    for one in container()["env"]:
        reference = one.get("valueFrom", {}).get("secretKeyRef")
        environ[one["name"]] = one["value"] if reference is None else found["Secret"]["stringData"][reference["key"]]
    assert environ.pop("TRIMTAB_CONFIG") == "/etc/trimtab/trimtab.toml"
    configured = read(config=file, environ=environ)
    assert not [*configured.notes, *configured.hints]
    assert configured.settings.auth == "keystone"
    assert configured.settings.ray.address == "127.0.0.1:6379"
    clouds = yaml.safe_load(found["Secret"]["stringData"]["clouds.yaml"])["clouds"]
    assert configured.settings.openstack.cloud in clouds
    mounts = {mount["mountPath"] for mount in container()["volumeMounts"]}
    assert str(configured.settings.data_dir) in mounts
    (port,) = [port["containerPort"] for port in container()["ports"]]
    assert port == configured.settings.port
    of_a_local_ray = {name: value for name, value in local_ray.DEFAULTS.items() if name.startswith("RAY_SERVE_")}
    assert of_a_local_ray.items() <= environ.items()


def test_the_parts_of_the_manifest_find_each_other() -> None:
    found = manifests()
    pod = found["RayCluster"]["spec"]["headGroupSpec"]["template"]["spec"]
    assert "workerGroupSpecs" not in found["RayCluster"]["spec"], "the state actor is pinned to no node"
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container()["volumeMounts"]}
    assert found["Service"]["spec"]["selector"]["ray.io/cluster"] == found["RayCluster"]["metadata"]["name"]
    names = {found[kind]["metadata"]["name"] for kind in ("Secret", "ConfigMap", "PersistentVolumeClaim")}
    assert names == {"trimtab"}


# -- metrics -----------------------------------------------------------------------------------------


class Noted:
    """Ray's metrics, of which only the names are kept, as its exporter tells them."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def kind(self, *endings: str) -> Callable[..., Any]:
        def made(name: str, _: str, *, tag_keys: tuple[str, ...] = (), boundaries: object = None) -> Any:
            self.names |= {f"ray_{name}{ending}" for ending in endings}
            return SimpleNamespace(set=lambda *_: None)

        return made


def metrics_of_ray(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    noted = Noted()
    kinds = {"Gauge": noted.kind(""), "Counter": noted.kind("_total")}
    kinds["Histogram"] = noted.kind("_bucket", "_sum", "_count")
    monkeypatch.setattr(actors, "metrics", SimpleNamespace(**kinds))
    actors.Gauges()

    async def nothing() -> None:
        return

    actors.Notifier(lambda _: nothing())
    return noted.names


def metrics_of_the_api() -> set[str]:
    names = re.findall(r'^        "(\w+)": (.*),$', Path(figures.__file__).read_text(), re.MULTILINE)
    assert ("version", "collector.version") in names
    numbers = {name: 1.0 for name, value in names if value != "collector.fault" and not value.startswith("[")}

    async def count(*_: object) -> int:
        return 1

    async def cluster() -> dict[str, float]:
        return numbers

    async def services(_: Any) -> list[Service]:
        return [Service(uuid="u", name="watcher-applier", host="h")]

    store = SimpleNamespace(count=count, list=services)
    wired: Any = SimpleNamespace(store=store, cluster=cluster, settings=Settings())
    told = bytes(asyncio.run(monitoring.metrics(wired)).body).decode()
    return set(re.findall(r"^(trimtab_\w+)", told, re.MULTILINE))


def expressions() -> Iterator[str]:
    for group in yaml.safe_load(text_of("alerts.yaml"))["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
    for panel in json.loads(text_of("dashboard.json"))["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def test_every_metric_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    there = metrics_of_the_api() | metrics_of_ray(monkeypatch)
    assert {"trimtab_audits", "trimtab_cluster_power_w", "ray_trimtab_notifications_lost"} <= there
    named = {name for expression in expressions() for name in METRIC.findall(expression)}
    page = set(re.findall(r"`((?:ray_)?trimtab_\w+)`", PAGE.read_text()))
    assert len(named) > 20
    assert named | page <= there


def test_every_state_exists_and_every_bracket_is_closed() -> None:
    states = {str(state) for machine in MACHINES.values() for state in machine.states}
    for expression in expressions():
        assert set(re.findall(r'state="(\w+)"', expression)) <= states
        assert all(expression.count(a) == expression.count(b) for a, b in ("()", "[]", "{}"))


def test_prometheus_understands_the_alerts() -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool here")
    file = str(ROOT / "docs" / "deploy" / "alerts.yaml")
    told = subprocess.run([program, "check", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, told.stderr


def test_alerts_and_panels_have_names_of_their_own() -> None:
    alerts = [rule["alert"] for group in yaml.safe_load(text_of("alerts.yaml"))["groups"] for rule in group["rules"]]
    board = json.loads(text_of("dashboard.json"))
    for names in (alerts, [panel["title"] for panel in board["panels"]], [panel["id"] for panel in board["panels"]]):
        assert len(set(names)) == len(names)
    (variable,) = board["templating"]["list"]
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {f"${{{variable['name']}}}"}
