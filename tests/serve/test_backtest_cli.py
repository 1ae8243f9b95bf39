"""`trimtab backtest`: from kept metrics to table, JSON, Parquet and report; complaints that tell what to do."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import read_model, write_model
from trimtab.platform.store.measurements import Measurements
from trimtab.serve.backtest_load import from_metrics, from_trace, rows_by_name, time_of
from trimtab.serve.backtest_policies import policies_of, policy_words
from trimtab.serve.main import app
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.truth import CloudSpec

DAY_S = 86_400.0
END_S = 20_405 * DAY_S
DAYS = 2
SPEC = CloudSpec(hosts=12, instances=90, seed=7, start_s=END_S, speed=0.0, history_s=DAYS * DAY_S)
POLICY = "workload_stabilization name=level interval=2h thresholds.instance_cpu_usage=0.02 host_choice=fullsearch"


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two days of metrics, as a Trimtab leaves them."""
    folder = tmp_path_factory.mktemp("estate")
    cloud = SimulatedCloud(SPEC)
    write_model(SPEC.model(), folder / "snapshot")
    store = Measurements(folder / "metrics")
    for day in range(DAYS):
        begin = END_S - (DAYS - day) * DAY_S
        for metric in ("instance_cpu_usage", "instance_ram_usage"):
            store.append(metric, "instance", cloud.samples(metric, "instance", begin, begin + DAY_S))
    store.close()
    return folder


def told(*arguments: str | Path, code: int = 0) -> Any:
    wide = {"COLUMNS": "160", "TERMINAL_WIDTH": "160", "NO_COLOR": "1", "TERM": "dumb"}
    answer = CliRunner().invoke(app, ["backtest", *map(str, arguments)], env=wide, prog_name="trimtab")
    if code == 0:
        assert answer.exit_code == 0, (answer.output, answer.exception)
    return answer


def refused(*arguments: str | Path) -> str:
    answer = told(*arguments, code=1)
    assert isinstance(answer.exception, Exception), answer.output
    return str(answer.exception)


def given(estate: Path) -> tuple[str | Path, ...]:
    return ("--snapshot", estate / "snapshot", "--metrics", estate / "metrics")


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, *args: Any, **more: Any) -> None:
        """Nothing."""


def test_help_teaches_the_syntax_of_policies() -> None:
    output = told("--help").output
    for word in ("--snapshot", "--metrics", "--trace", "--policy", "--policies", "--carbon", "interval=30min"):
        assert word in output


def test_prints_one_column_a_policy_with_nobody_first(estate: Path) -> None:
    output = told(*given(estate), "--days", "1", "-p", POLICY, "--carbon", "400").output
    head = next(line for line in output.splitlines() if line.split() == ["nobody", "level"])
    assert "every 120 min" in output
    assert head.index("nobody") > 20  # beside the titles
    for title in (
        "energy, kWh",
        "carbon, kg CO2e",
        "OTF, mean of hosts, %",
        "SLAV",
        "migrations",
        "moved, GiB",
        "time migrating, min",
    ):
        assert title in output
    assert "2025-11-12 00:00 to 2025-11-13 00:00 (UTC): 12 hosts, 90 instances" in output


def test_json_parquet_and_report_say_the_same(estate: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    body = json.loads(told(*given(estate), "--days", "1", "-p", POLICY, "--out", out, "--json").output)
    assert body["start_s"] == END_S - DAY_S
    nobody, level = body["policies"]
    assert level["migrations"] > 0
    assert level["audits"] == 12
    assert level["cpu_sd_mean_pp"] < nobody["cpu_sd_mean_pp"]
    rows = pq.read_table(out / "policies.parquet").to_pylist()
    assert rows == body["policies"]
    series = pq.read_table(out / "series.parquet")
    assert series.num_rows == 2 * 288
    moves = pq.read_table(out / "migrations" / "01-level.parquet")
    assert moves.num_rows == level["migrations"]
    report = (out / "report.html").read_text()
    assert report.count("<svg") == 1
    assert "http" not in report.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")
    assert moves["instance_name"][0].as_py() in report


def test_a_report_survives_odd_names(estate: Path, tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text("- {name: '_a $x_ <b>', strategy: dummy}\n- {name: '$$', strategy: dummy}\n")
    output = told(*given(estate), "--days", "0.1", "--policies", file, "--report", tmp_path / "r.html").output
    assert "_a $x_ <b>" in output
    report = (tmp_path / "r.html").read_text()
    assert "_a $x_ &lt;b&gt;" in report
    assert "<b>" not in report


def test_the_load_that_is_played_is_the_one_that_was_recorded(estate: Path) -> None:
    model = read_model(estate / "snapshot")
    found = from_metrics(model, estate / "metrics", None, None, 1)
    true = SimulatedCloud(SPEC).samples("instance_cpu_usage", "instance", END_S - DAY_S, END_S - DAY_S + 300)
    rows = model.instance_rows(true["resource"].combine_chunks())
    np.testing.assert_allclose(found.record.cpu_pct[288, rows], true["value"].to_numpy(), rtol=1e-6)
    assert (found.start_s, found.end_s) == (END_S - DAY_S, END_S)
    assert found.record.start_s == END_S - 2 * DAY_S  # the day before is the past
    assert found.used_memory_mb is not None
    assert (found.used_memory_mb <= model.demand[:, 1]).all()
    assert found.used_memory_mb.sum() < model.demand[:, 1].sum()


def test_finer_samples_are_averaged_and_strangers_named(tmp_path: Path) -> None:
    model = SPEC.model()
    store = Measurements(tmp_path)
    at = END_S + np.arange(0, 600, 60.0)
    known = str(model.instance_ids[0].as_py())
    for resource, values in ((known, np.arange(10.0) * 4), ("a-stranger", np.ones(10))):
        store.append(
            "instance_cpu_usage", "instance", pa.table({"resource": [resource] * 10, "at": at, "value": values})
        )
    store.close()
    found = from_metrics(model, tmp_path, None, None, None)
    np.testing.assert_allclose(found.record.cpu_pct[:, 0], [8.0, 28.0])
    assert found.used_memory_mb is None
    assert found.notes == (
        "1 recorded instances are not in the model and are left out (a-stranger)",
        "nothing is recorded before the start: the first audits see little",
    )


def test_a_trace_goes_by_uuid_by_name_or_is_dealt_out(tmp_path: Path) -> None:
    model = SPEC.model()
    at = END_S + np.arange(0, 2 * DAY_S, 300.0)

    def long(names: list[str]) -> Path:
        path = tmp_path / f"{names[0]}.parquet"
        table = {
            "resource": np.repeat(names, len(at)),
            "at": np.tile(at, len(names)),
            "value": np.repeat(10.0 * np.arange(1, len(names) + 1), len(at)),
        }
        pq.write_table(pa.table(table), path)
        return path

    uuids, names = model.instance_ids.to_pylist(), model.instance_names.to_pylist()
    for known, row in ((uuids, 3), (names, 4)):
        found = from_trace(model, long([known[row], known[7], "stranger"]), None, None, 1, seed=0)
        assert (found.start_s, found.end_s) == (END_S + DAY_S, END_S + 2 * DAY_S)
        np.testing.assert_array_equal(found.record.cpu_pct[:, row], np.full(576, 10))
        np.testing.assert_array_equal(found.record.cpu_pct[:, 7], np.full(576, 20))
        assert np.isnan(found.record.cpu_pct[:, 5]).all()
        assert found.notes == ("1 recorded instances are not in the model and are left out (stranger)",)
    dealt = from_trace(model, long(["a", "b", "c"]), None, None, None, seed=0)
    assert (dealt.start_s, dealt.end_s) == (END_S + DAY_S, END_S + 3 * DAY_S)
    assert np.bincount(dealt.record.cpu_pct[0].astype(int)).tolist()[10::10] == [30, 30, 30]
    assert "its 3 series are dealt out over them" in dealt.notes[0]


def test_a_name_that_two_instances_have_is_nobodys() -> None:
    model = SPEC.model()
    names = model.instance_names.to_pylist()
    names[1] = names[0]
    twins = model.with_changes(instance_names=pa.array(names, pa.string()))
    assert rows_by_name(twins, pa.array([names[0], names[2], "x"])).tolist() == [-1, 2, -1]


def test_policies_come_from_a_file_too(estate: Path, tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text(
        """
policies:
  - name: hourly
    strategy: workload_stabilization
    interval_min: 60
    parameters: {thresholds: {instance_cpu_usage: 0.05}}
    limits: {migrations_per_host: 1}
  - strategy: vm_workload_consolidation
    interval_min: 720
"""
    )
    hourly, packing, level = policies_of([], file) + policies_of([POLICY], None)
    assert (hourly.name, hourly.interval_s, hourly.limits.migrations_per_host) == ("hourly", 3600, 1)
    assert (packing.name, packing.interval_s) == ("vm_workload_consolidation", 12 * 3600)
    assert (level.name, level.interval_s) == ("level", 7200)
    assert level.parameters.thresholds.instance_cpu_usage == 0.02
    body = json.loads(told(*given(estate), "--days", "0.5", "--policies", file, "--json").output)
    assert [row["policy"] for row in body["policies"]] == ["nobody", "hourly", "vm_workload_consolidation"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dummy", {"strategy": "dummy"}),
        ("strategy=dummy name=x", {"strategy": "dummy", "name": "x"}),
        ("dummy interval=90s first=2h", {"strategy": "dummy", "interval_min": 1.5, "first_min": 120}),
        ("dummy a.b=1 a.c='two words'", {"strategy": "dummy", "parameters": {"a": {"b": 1, "c": "two words"}}}),
        ("dummy migrations_total=5", {"strategy": "dummy", "limits": {"migrations_total": 5}}),
    ],
)
def test_words_make_a_policy(text: str, found: dict[str, Any]) -> None:
    assert policy_words(text) == found


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["name=x interval=5min"], "names no strategy"),
        (["dummy quickly"], "'quickly' is not name=value"),
        (["dummy interval=soon"], "'soon' is no length of time"),
        (["nosuch"], "there is no strategy 'nosuch'"),
        (["workload_stabilization thresholds.instance_cpu_usage=7"], "less than or equal to 1"),
        (["workload_stabilization interval=10s"], "interval_min"),
        (["dummy a=1 a.b=2"], "a has a value already"),
        (["dummy 'unclosed"], "write a strategy"),
    ],
)
def test_wrong_policies_are_refused_with_the_remedy(texts: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        policies_of(texts, None)


def test_the_model_can_come_from_an_address(estate: Path, tmp_path: Path) -> None:
    served = tmp_path / "v1" / "cluster" / "model"
    served.mkdir(parents=True)
    for file in (estate / "snapshot").iterdir():
        (served / file.stem).write_bytes(file.read_bytes())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        load = ("--metrics", estate / "metrics", "--days", "0.25", "-p", POLICY, "--json")
        assert told("--url", url, *load).output == told("--snapshot", estate / "snapshot", *load).output
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_complaints_name_the_option_and_the_remedy(estate: Path, tmp_path: Path) -> None:
    assert "give --snapshot" in refused("--metrics", estate / "metrics")
    assert "give --metrics" in refused("--snapshot", estate / "snapshot")
    assert "holds no metric=instance_cpu_usage" in refused("--snapshot", estate / "snapshot", "--metrics", tmp_path)
    assert "is not within the record, which goes from 2025-11-11 00:00" in refused(
        *given(estate), "--from", "2024-01-01", "--days", "1"
    )
    assert "'noon' is no time" in refused(*given(estate), "--from", "noon")
    assert "leave one out" in refused(*given(estate), "--from", "2025-11-11", "--to", "2025-11-12", "--days", "1")
    for wrong in ("nan", "inf", "-inf", "1e300", "-1", "3000-01-01"):
        for option in ("--from", "--to"):
            assert f"{option}: {wrong!r} is not in the years 1970 to 2999" in refused(
                *given(estate), f"{option}={wrong}"
            )
    for days in ("inf", "1e9"):
        assert "days cannot be played: give at most 3,660" in refused(*given(estate), "--days", days)
    assert "is not after --from" in refused(*given(estate), "--from", "2025-11-12", "--to", "2025-11-11")
    assert "write one number" in refused(*given(estate), "--carbon", "green")
    assert "g/kWh are numbers, zero or more" in refused(*given(estate), "--carbon", "nan")
    assert "power model 'magic' does not exist" in refused(*given(estate), "--power", "magic")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "exists already" in refused(*given(estate), "--out", tmp_path / "full")
    assert "nothing answers" in refused("--url", "http://127.0.0.1:9", "--metrics", estate / "metrics")
    broken = tmp_path / "broken.yaml"
    broken.write_text("policies: {")
    assert "cannot be read as YAML" in refused(*given(estate), "--policies", broken)
    broken.write_text("[]")
    assert "give a list of policies" in refused(*given(estate), "--policies", broken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "m", "--power", "magic"], "power model 'magic'"),
        (["--metrics", "m", "--carbon", "green"], "write one number"),
        (["--metrics", "m", "--from", "0", "--to", "1000", "--days", "1"], "leave one out"),
        (["--metrics", "m", "--days", "inf"], "cannot be played"),
        ([], "give --metrics"),
    ],
)
def test_wrong_options_are_told_before_anything_is_read(options: list[str], message: str) -> None:
    assert message in refused("--snapshot", "nowhere", *options)


def test_times_are_read_as_utc_unless_they_say_otherwise() -> None:
    assert time_of("2025-11-13", "--to") == END_S
    assert time_of("2025-11-13T01:00+01:00", "--to") == END_S
    assert time_of(str(END_S), "--to") == END_S
