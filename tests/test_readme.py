"""What the README promises: its strategy works as printed, and every command it names exists."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from trimtab.platform.contracts import Context, Strategy
from trimtab.platform.model import ClusterModel
from trimtab.platform.proposal import Migrate
from trimtab.platform.rules import judge
from trimtab.platform.snapshot import Snapshot
from trimtab.serve.main import app
from trimtab.simulator.estate import build_estate

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_strategy_of_the_readme_relieves_the_hottest_host() -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code) == 1
    assert len([line for line in code[0].splitlines() if line.strip()]) <= 40
    space: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code[0], "README.md", "exec"), space)
    strategy = space["RelieveHottest"]()
    assert isinstance(strategy, Strategy)
    model = ClusterModel.from_arrow(*build_estate(12, 90, seed=2))
    need = strategy.needs(None)[0]
    busy = np.where(model.host_of == 3, 95.0, 5.0)
    snapshot = Snapshot(model, 0.0, measured={need: busy})
    (candidate,) = strategy.propose(snapshot, space["Parameters"](threshold=1.0), Context())
    assert judge(model, candidate) == []
    (move,) = candidate.steps
    assert isinstance(move, Migrate)
    assert model.host_of[move.instance] != move.destination
    calm = Snapshot(model, 0.0, measured={need: np.zeros(model.instances)})
    assert strategy.propose(calm, space["Parameters"](), Context()) == []


def test_every_command_the_readme_names_exists() -> None:
    named = {tuple(m.split()) for m in re.findall(r"\$ trimtab ([a-z]+(?: (?:create|start|export))?)", README)}
    assert len(named) >= 4
    for command in named:
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0, command
