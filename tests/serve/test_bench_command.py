"""`trimtab bench planetlab` on a small made-up day: table, JSON, Parquet, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from trimtab.platform.errors import InvalidInput
from trimtab.serve.bench_command import bench


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    columns = {
        "vm_index": pa.array(range(8), pa.uint16()),
        "name": [f"vm{n}" for n in range(8)],
        "cpu_pct": pa.array(rng.integers(0, 60, (8, 288)).tolist(), pa.list_(pa.uint8(), 288)),
    }
    pq.write_table(pa.table(columns), tmp_path / "20990101.parquet")
    return tmp_path


def asked(traces: Path, *more: str) -> list[str]:
    return ["planetlab", "--day", "20990101", "--data", str(traces), "--hosts", "10", "--policy", "dvfs", *more]


def test_the_table_has_both_modes(traces: Path) -> None:
    result = CliRunner().invoke(bench, asked(traces, "--policy", "LR-MMT"))
    assert result.exit_code == 0, result.output
    for word in ("reference", "sound", "DVFS", "LR-MMT-1.2", "PlanetLab 20990101, 8 VMs on 10 hosts"):
        assert word in result.output


def test_rows_go_out_as_json_and_parquet(traces: Path) -> None:
    out = traces / "rows" / "all.parquet"
    result = CliRunner().invoke(bench, asked(traces, "--mode", "sound", "--json", "--out", str(out)))
    found = json.loads(result.stdout)
    assert [(row["mode"], row["policy"]) for row in found] == [("sound", "DVFS")]
    assert pq.read_table(out).to_pylist() == found


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--mode", "wrong"), "reference, sound or both"),
        (("--policy", "XX"), "no policy"),
        (("--order", "x"), "no order"),
    ],
)
def test_wrong_options_say_what_is_right(traces: Path, more: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(bench, asked(traces, *more))
    assert isinstance(result.exception, InvalidInput)
    assert words in str(result.exception)


def test_without_a_folder_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIMTAB_SHARED", raising=False)
    result = CliRunner().invoke(bench, ["planetlab"])
    assert isinstance(result.exception, InvalidInput)
    assert "--data FOLDER" in str(result.exception)
