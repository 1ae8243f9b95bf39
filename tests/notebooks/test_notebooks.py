"""Every notebook runs from top to bottom in a kernel of this environment, and is stored without outputs."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

# What must be true in the kernel when all cells have run; a notebook without an entry must only run.
FACTS = {
    "01-first-audit": """
import sys
from trimtab.platform import ranking

assert not {"ray", "fastapi"} & set(sys.modules), "the notebook is meant to need neither Ray nor HTTP"
for name, number in winners.items():
    assert ranking.beats(plugins.goals[name], scores[number], scores[0]), f"{name}: no better than doing nothing"

assert list(comparison.columns) == [(n, kind) for n in chosen for kind in ("rehearsed", "measured")]
assert comparison.notna().all(axis=None)
for name, number in chosen.items():
    measured, rehearsed = comparison[name, "measured"], comparison[name, "rehearsed"]
    assert measured["moves"] == rehearsed["moves"] == len(plans[number].migrations()), name
    assert measured["hosts_in_use"] == rehearsed["hosts_in_use"], name
    assert measured["rules_broken"] == 0, name
    assert abs(measured["energy_kwh"] / rehearsed["energy_kwh"] - 1) < 0.02, name
nothing, consolidated, balanced = (comparison[name, "measured"] for name in chosen)
assert consolidated["hosts_in_use"] < 0.6 * nothing["hosts_in_use"]
assert consolidated["energy_kwh"] < 0.8 * nothing["energy_kwh"]
assert balanced["cpu_sd_pp"] < 0.5 * nothing["cpu_sd_pp"]
assert consolidated["slatah"] < nothing["slatah"]

touched = {move.server_id for cloud, _ in lived.values() for move in cloud.all_migrations()}
untouchable = set(model.instance_ids.filter(~model.movable).to_pylist())
assert touched and untouchable and not touched & untouchable, "an instance outside the scope was moved"
""",
    "02-first-strategy": """
import sys

assert not {"ray", "fastapi", "duckdb"} & set(sys.modules), "the notebook is meant to need pure functions only"
assert len(plan.migrations()) == len(candidate.steps) > 0
assert rehearsals["cool_down"].score.overload_min_after < rehearsals["do nothing"].score.overload_min_after
assert compared.notna().all(axis=None)
assert compared.loc["nobody", "migrations"] == 0 < compared.loc["cool_down, hourly", "migrations"]
overload_min = compared["overload, host-min"]
assert overload_min["cool_down, hourly"] < 0.1 * overload_min["nobody"]
assert compared.loc["cool_down, hourly", "moved, GiB"] < compared.loc["stabilization, hourly", "moved, GiB"]
assert moved[0] > moved[-1] and overload[0] < overload[-1], "a lower threshold moves more and leaves less overload"
""",
    "03-what-if": """
import sys

assert not {"ray", "fastapi"} & set(sys.modules), "the notebook is meant to need neither Ray nor HTTP"
assert len(frame) == len(sweep.cells) == 72 and (frame.error == "").all()
mean = frame.groupby(["topology", "load", "policy"])[["energy_kwh", "overload_min"]].mean()
for topology in frame.topology.unique():
    for load in frame.load.unique():
        at = mean.loc[topology, load]
        assert at.loc["balance hourly", "overload_min"] < 0.1 * at.loc["nobody", "overload_min"]
        assert at.loc["consolidate daily", "energy_kwh"] < 0.9 * at.loc["nobody", "energy_kwh"]
fails = frame[(frame.topology == "ten hosts fail at 9") & (frame.policy == "nobody")]
assert (fails.down_min > 0).all() and (frame[frame.topology == "as it is"].down_min == 0).all()
assert shown.groupby("policy").size().eq(288).all()
""",
    "04-planetlab": """
import sys

assert not {"ray", "fastapi", "duckdb"} & set(sys.modules), "the notebook is meant to need pure functions only"
if real:
    assert (table["migrations"] == table["published migrations"]).all()
    assert ((table["energy, kWh"] - table["published kWh"]).abs() < 1e-4).all()
vanish, stay = (seen[-1].vms for seen in ticks.values())
assert vanish <= stay == len(traces)
assert switched["memory_binds"].migrations < 0.5 * base.migrations
assert switched["artefacts_count"].slatah < base.slatah
assert spread.std().gt(0).all()
""",
}


def test_there_are_notebooks_and_facts_only_of_those() -> None:
    assert NOTEBOOKS
    assert set(FACTS) <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_without_outputs_and_without_traces_of_its_author(path: Path) -> None:
    notebook = _read(path)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata.language_info) == {"name"}
    for cell in notebook.cells:
        assert not cell.metadata, cell.id
        if cell.cell_type == "code":
            assert cell.outputs == [], cell.id
            assert cell.execution_count is None, cell.id


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom_and_shows_what_it_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # nobody's own start-up files
    shared = Path(os.environ.get("TRIMTAB_SHARED", Path(__file__).parents[3] / "shared"))
    if (shared / "data" / "planetlab").is_dir():
        monkeypatch.setenv("TRIMTAB_PLANETLAB", str(shared / "data" / "planetlab"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    before = path.read_bytes()
    copy = Path(shutil.copy(path, tmp_path))
    notebook = _read(copy)
    shown = len(notebook.cells)
    if path.stem in FACTS:
        new_cell: Any = nbformat.v4.new_code_cell  # not typed
        notebook.cells.append(new_cell(FACTS[path.stem]))

    _run(notebook, tmp_path)

    outputs = [output for cell in notebook.cells[:shown] if cell.cell_type == "code" for output in cell.outputs]
    warnings = [output.text for output in outputs if "Warning:" in output.get("text", "")]
    assert not warnings, "cells warned"
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.read_bytes() == before
    left_behind = set(os.listdir(tmp_path)) - {copy.name, "ipython"}
    assert not left_behind, "the notebook wrote files"


def _run(notebook: Any, folder: Path) -> None:
    """Run all cells in a fresh kernel; its channels are sockets in the file system, so nothing listens on a port."""
    with tempfile.TemporaryDirectory(prefix="kernel-") as short:  # the names of such sockets may not be long
        config = Config()
        config.KernelManager.transport = "ipc"
        config.KernelManager.ip = f"{short}/channel"
        config.KernelManager.connection_file = f"{short}/connection.json"
        where = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, config=config, timeout=200, kernel_name="python3", resources=where).execute()


def _read(path: Path) -> Any:
    read: Any = nbformat.read  # not typed
    return read(path, as_version=4)
