"""What docs/writing-a-strategy.md promises: its blocks run as printed, and its package brings its plug-ins."""

from __future__ import annotations

import asyncio
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trimtab.platform.clocks import WallClock
from trimtab.platform.contracts import Context, Tools
from trimtab.platform.errors import ActionSkipped
from trimtab.platform.model import ClusterModel
from trimtab.platform.plugins import Plugins, load, scoring_engines
from trimtab.platform.proposal import Limits
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Snapshot
from trimtab.platform.trial import ProposeJob, TryJob, try_out
from trimtab.serve.main import app
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.driver import SimulatedDriver, local_call
from trimtab.simulator.estate import build_estate
from trimtab.simulator.rehearse import rehearse
from trimtab.simulator.truth import CloudSpec

PAGE = (Path(__file__).parents[1] / "docs" / "writing-a-strategy.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
FILE = re.compile(r"# (our_trimtab/\w+\.py)\n")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files as an installed package, entry points and all."""
    load()  # what the rest of this process works with is found before
    folder = tmp_path / "our_trimtab"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Our plug-ins."""\n')
    for block in BLOCKS:
        if found := FILE.match(block):
            (tmp_path / found[1]).write_text(block[found.end() :])
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    project = tomllib.loads(toml)["project"]
    about = tmp_path / f"our_trimtab-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "our_trimtab"]:
        del sys.modules[name]


def test_every_block_runs_as_printed(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, Any] = {"__name__": "page"}
    run = [block for block in BLOCKS if not FILE.match(block)]
    assert (len(run), len(BLOCKS)) == (7, 12)
    for number, block in enumerate(run, start=1):
        exec(compile(block, f"writing-a-strategy.md, block {number}", "exec"), space)
    told = capsys.readouterr().out
    assert "without" not in told.splitlines()[0]
    assert re.search(r"nobody: \d+ hosts, [\d.]+ kWh, 0 moves\n", told)


def test_its_package_is_found_and_its_strategy_goes_from_a_proposal_to_a_plan(package: Path) -> None:
    plugins: Plugins = load.__wrapped__()
    assert {"retire"} == set(plugins.strategies) - set(load().strategies)
    assert {"retirement"} == set(plugins.goals) - set(load().goals)
    assert {"announce"} == set(plugins.actions) - set(load().actions)
    assert {"largest_first"} == set(plugins.planners) - set(load().planners)
    assert "busy" in scoring_engines()
    goal, strategy = plugins.goals["retirement"], plugins.strategy("retire")
    assert [one.name for one in plugins.of_goal("retirement")] == ["retire"]
    snapshot = Snapshot(ClusterModel.from_arrow(*build_estate(20, 120, seed=4)), 0.0)
    job = ProposeJob("retire", {"trait": "HW_CPU_X86_AVX512F", "most": 1}, 0)
    for point in (*strategy.grid(), job.parameters):
        parameters = read_parameters(strategy, {"trait": "HW_CPU_X86_AVX512F", **point})
        (candidate,) = strategy.propose(snapshot, parameters, Context())
        assert set(candidate.indicators) == {indicator.name for indicator in goal.indicators}
        for planner in (plugins.planners["capacity"], plugins.planners["largest_first"]):
            tried = try_out(snapshot, TryJob(candidate, planner, rehearse, Limits(), 0))
            assert tried.plan is not None, tried.reasons
            assert tried.reasons == ()
        assert goal.global_efficacy(candidate.indicators)[0]["value"] == candidate.indicators["retired_hosts_count"]


def test_the_action_of_the_page_skips_where_there_is_nothing_to_tell(package: Path) -> None:

    cloud = SimulatedDriver(local_call(SimulatedCloud(CloudSpec(hosts=2, instances=2, history_s=600.0))))
    handler = load.__wrapped__().actions["announce"](Tools(cloud, WallClock(), WallClock()))
    with pytest.raises(ActionSkipped, match="nothing to tell"):
        asyncio.run(handler.pre_condition(handler.schema(text="")))


def test_every_command_and_page_it_names_exists() -> None:
    named = {tuple(match.split()) for match in re.findall(r"(?:\$ |`)trimtab ([a-z]+(?: [a-z]+)?)", PAGE)}
    assert {("plan", "explain"), ("scoringengine", "list"), ("backtest",)} <= named
    for command in named:
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0, command
    for page in re.findall(r"\]\((\w[\w-]*\.md)\)", PAGE):
        assert (Path(__file__).parents[1] / "docs" / page).exists(), page
