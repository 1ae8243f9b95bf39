"""`trimtab whatif` as people type it, in this process; its report, as people show it."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from trimtab.platform.errors import Conflict, TrimtabError
from trimtab.platform.store.parts import Results
from trimtab.serve import whatif_command
from trimtab.serve.main import app
from trimtab.serve.whatif_report import render, sheet_of
from trimtab.simulator.whatif.reading import read_sweep

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "whatif.yaml"
POLICIES = [{"name": "nobody"}, {"name": "pack <tight>", "strategy": "vm_workload_consolidation", "interval_min": 120}]
SMALL: dict[str, Any] = {
    "name": "a small one",
    "base": {"hosts": 8, "instances": 40},
    "horizon_h": 6,
    "past_h": 6,
    "axes": {"policy": POLICIES, "seeds": {"count": 2}, "load": [{"name": "$normal$"}, {"name": "more", "scale": 1.5}]},
}


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.json"
    path.write_text(json.dumps(SMALL))
    return path


def trimtab(*arguments: str | Path) -> str:
    answer = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_a_scenario_is_run_summed_up_and_reported(scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = trimtab("whatif", scenario, "--local", "--series", "--out", out)
    assert "8 cells computed in" in told
    assert "energy kwh" in told
    assert "pack" in told
    results = Results(out)
    assert results.counts() == (8, 0)
    assert len(list((out / "series").glob("*.parquet"))) == 8
    assert json.loads((out / "scenario.json").read_text())["name"] == "a small one"
    assert "What if: a small one" in (out / "report.html").read_text()
    assert "0 cells computed" in trimtab("whatif", "run", scenario, "--local", "--series", "--out", out)
    summary = json.loads(trimtab("whatif", scenario, "--local", "--series", "--json", "--out", out))
    assert (summary["cells_total"], summary["cells_resumed"], summary["cells_failed"]) == (8, 8, 0)
    point = summary["points"][1]
    assert (point["policy"], point["seeds"]) == ("pack <tight>", 2)
    energy = point["figures"]["energy_kwh"]
    assert 0 < energy["low"] <= energy["mean"] <= energy["high"]


def test_results_go_to_a_folder_of_the_scenarios_name(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trimtab("whatif", scenario, "--local")
    assert (tmp_path / "out" / "whatif" / "a-small-one" / "report.html").is_file()
    assert whatif_command.slug("../..") == "what-if"
    scenario.write_text(json.dumps({**SMALL, "name": "a small:one", "horizon_h": 1}))
    with pytest.raises(Conflict, match="holds the results of 'a small one', not of 'a small:one': give --out"):
        trimtab("whatif", scenario, "--local")
    assert "8 cells computed" in trimtab("whatif", scenario, "--local", "--out", "out/whatif/a-small-one")


def test_check_counts_cells_or_tells_every_fault(scenario: Path) -> None:
    assert "54 cells = 3 topologies x 2 loads x 3 policies x 3 seeds" in trimtab("whatif", "check", EXAMPLE)
    scenario.write_text(json.dumps({**SMALL, "colour": 1, "horizon_h": -1}))
    with pytest.raises(TrimtabError) as caught:
        CliRunner().invoke(app, ["whatif", "check", str(scenario)], catch_exceptions=False)
    assert "the scenario has 2 faults" in str(caught.value)
    assert "colour: unknown field" in str(caught.value)
    with pytest.raises(TrimtabError, match="cannot be read"):
        CliRunner().invoke(app, ["whatif", "nowhere.yaml"], catch_exceptions=False)


def test_two_runs_do_not_share_a_folder(scenario: Path, tmp_path: Path) -> None:
    with (
        whatif_command.alone(tmp_path),
        pytest.raises(Conflict, match="in use by another"),
    ):
        trimtab("whatif", scenario, "--local", "--out", tmp_path)


def test_figures_that_are_none_are_refused_before_anything_is_computed(scenario: Path, tmp_path: Path) -> None:
    with pytest.raises(TrimtabError, match="there is no figure 'beauty': use one of duration_s"):
        trimtab("whatif", scenario, "--local", "--x", "beauty", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_report_needs_nothing_from_outside_and_names_stay_text(scenario: Path, tmp_path: Path) -> None:
    trimtab("whatif", scenario, "--local", "--series", "--x", "migrations", "--out", tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(http|(?:src|href)=\"(?!#)", html)
    assert "pack &lt;tight&gt;" in html
    assert "pack <tight>" not in html
    assert "The trade-off: migrations against overload, host-minutes" in html
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) >= 6, "front, spreads and three series"
    for drawing in drawings:
        ET.fromstring(drawing)  # names did not break it


def test_a_report_of_failures_only_says_so() -> None:
    sweep = read_sweep(SMALL)
    from trimtab.simulator.whatif import rows

    table: pa.Table = rows.table_of([rows.failed(cell, "its worker was <lost>") for cell in sweep.cells])
    html = render(sheet_of(sweep.scenario.to_json(), table))
    assert "its worker was &lt;lost&gt;" in html
    assert "2 (2 failed)" in html


def test_points_come_in_the_order_of_the_scenario() -> None:
    sweep = read_sweep(SMALL)
    from trimtab.simulator.whatif import rows

    shuffled = rows.table_of([rows.failed(cell, "x") for cell in reversed(sweep.cells)])
    points = sheet_of(sweep.scenario.to_json(), shuffled).points
    assert [(p.load, p.policy) for p in points] == [
        (load, policy) for load in ("$normal$", "more") for policy in ("nobody", "pack <tight>")
    ]


def test_numbers_and_times_are_short() -> None:
    assert [whatif_command.short(v) for v in (0.0, 1234.5, 12.345, 0.00012)] == ["0", "1,234", "12.3", "0.00012"]
    assert [whatif_command.duration(s) for s in (3, 300, 7200)] == ["3 s", "5 min", "2.0 h"]
