"""What a backtest is given, read: policies from words or YAML, recorded load from kept metrics or a trace file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import MEMORY, ClusterModel
from trimtab.platform.model.compute import Floats
from trimtab.platform.plugins import load
from trimtab.platform.schema import read, read_parameters
from trimtab.platform.snapshot import Need
from trimtab.platform.store.measurements import Measurements
from trimtab.simulator.backtest import Record, when
from trimtab.simulator.closed_loop import Policy
from trimtab.simulator.load import SAMPLE_S, Load, from_planetlab
from trimtab.simulator.whatif.cell_run import policy_of
from trimtab.simulator.whatif.scenario import PolicyPoint

DAY_S = 86_400.0
CPU, RAM = "instance_cpu_usage", "instance_ram_usage"
MINUTES = {"s": 1 / 60, "min": 1.0, "h": 60.0, "d": 1440.0}
USUAL = ("workload_stabilization", "vm_workload_consolidation")
HOW = "write a strategy, then what you want to say of name=..., interval=30min, first=5min, PARAMETER=VALUE"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A record, the time to be played, the memory in use [V] where it is known, and what was noticed on the way."""

    record: Record
    start_s: float
    end_s: float
    used_memory_mb: Floats | None
    notes: tuple[str, ...]


# -- policies ----------------------------------------------------------------------------------


def policies(texts: Sequence[str], file: Path | None) -> list[Policy]:
    """Policies from `--policy` and `--policies`; without any the usual strategies, every hour.

    Raises:
        InvalidInput: names the policy, what is wrong with it and what is known.
    """
    given = [policy_words(text) for text in texts]
    if file is not None:
        given += _of_file(file)
    given = given or [{"strategy": name} for name in USUAL]
    points = []
    for number, one in enumerate(given, start=1):
        label = one.get("name") or one.get("strategy") or "nobody"
        strategy = load().strategies.get(str(one.get("strategy")))
        if strategy is not None:
            read_parameters(strategy, one.get("parameters", {}))  # tells more of a wrong one
        points.append(read(PolicyPoint, {"name": str(label), **one}, f"policy {number} ({label})"))
    return [policy_of(point) for point in points]


def policy_words(text: str) -> dict[str, Any]:
    """A policy as the command line writes it: `workload_stabilization interval=30min thresholds.x=0.05 name=eager`.

    Raises:
        InvalidInput: it has no strategy, or words that are not name=value.
    """
    try:
        first, *words = shlex.split(text)
    except ValueError as error:
        raise InvalidInput(f"policy {text!r}: {HOW}") from error
    if "=" in first:
        words, first = [first, *words], ""
    found: dict[str, Any] = {"strategy": first} if first else {}
    parameters: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidInput(f"policy {text!r}: {word!r} is not name=value; {HOW}")
        if name in {"name", "strategy"}:
            found[name] = value
        elif name in {"interval", "first"}:
            found[f"{name}_min"] = minutes(value, f"policy {text!r}: {name}")
        elif name in {"migrations_per_host", "migrations_total"}:
            found.setdefault("limits", {})[name] = _value(value)
        else:
            _put(parameters, name.split("."), _value(value))
    if "strategy" not in found:
        raise InvalidInput(f"policy {text!r} names no strategy; {HOW}")
    return {**found, **({"parameters": parameters} if parameters else {})}


def minutes(text: str, what: str) -> float:
    """A length of time such as 90s, 30min, 2h or 1d; a bare number counts minutes.

    Raises:
        InvalidInput: it is none; `what` says of what.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|m|h|d)?", text.strip())
    if found is None:
        raise InvalidInput(f"{what}: {text!r} is no length of time: write 90s, 30min, 2h or 1d")
    return float(found[1]) * MINUTES[{"m": "min", None: "min"}.get(found[2], found[2])]


def _put(into: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for step in path[:-1]:
        below = into.setdefault(step, {})
        if not isinstance(below, dict):
            raise InvalidInput(f"parameter {'.'.join(path)}: {step} has a value already")
        into = below
    into[path[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _of_file(file: Path) -> list[dict[str, Any]]:
    import yaml  # type: ignore[import-untyped,unused-ignore]  # its stubs are a package of their own

    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{file} cannot be read as YAML: {' '.join(str(error).split())}") from error
    rows = raw.get("policies") if isinstance(raw, Mapping) else raw
    if not isinstance(rows, list) or not rows:
        raise InvalidInput(f"{file}: give a list of policies, or a mapping with such a list under `policies`")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not isinstance(row.get("parameters", {}), dict):
            raise InvalidInput(f"{file}: policy {number} is no mapping: give name, strategy, interval_min, parameters")
    return rows


# -- times -------------------------------------------------------------------------------------


def time_of(text: str, what: str) -> float:
    """A time as people write it (2026-11-15, 2026-11-15T06:00, UTC unless it says otherwise) or seconds since 1970.

    Raises:
        InvalidInput: it is none; `what` names the option.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{what}: {text!r} is no time: write 2026-11-15 or 2026-11-15T06:00 (UTC)") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _span(
    first_s: float, last_s: float, start_s: float | None, end_s: float | None, days: float | None
) -> tuple[float, float]:
    """The time to be played, in whole samples, of a record [first, last)."""
    if start_s is not None and days is not None and end_s is not None:
        raise InvalidInput("--from, --to and --days together say too much: leave one out")
    if start_s is not None and days is not None:
        end_s = start_s + days * DAY_S
    end = last_s if end_s is None else np.floor(end_s / SAMPLE_S) * SAMPLE_S
    if start_s is not None:
        start = np.ceil(start_s / SAMPLE_S) * SAMPLE_S
    else:
        start = max(end - np.ceil((7.0 if days is None else days) * DAY_S / SAMPLE_S) * SAMPLE_S, first_s)
    if not first_s <= start < end <= last_s:
        raise InvalidInput(
            f"{when(start)} to {when(end)} is not within the record, which goes from {when(first_s)} to "
            f"{when(last_s)} (UTC): choose another time"
        )
    return float(start), float(end)


# -- metrics that a Trimtab kept -----------------------------------------------------------------


def from_metrics(
    model: ClusterModel, folder: Path, start_s: float | None, end_s: float | None, days: float | None
) -> Recorded:
    """The load of a model's instances out of a store's folder of metrics.

    Args:
        model: whose instances.
        folder: as a running Trimtab writes it (`metrics` in its data folder).
        start_s: begin of the time to be played; None: so many days before the end.
        end_s: its end; None: the end of the record.
        days: how long; None: 7 at most.

    Raises:
        InvalidInput: no such folder, nothing recorded, or a time outside the record. DatasourceError: torn files.
    """
    if not (folder / f"metric={CPU}").is_dir():
        raise InvalidInput(
            f"{folder} holds no metric={CPU}: give the folder `metrics` of a Trimtab's data folder (TRIMTAB_DATA_DIR)"
        )
    store = Measurements(folder)
    try:
        kept = store.days(CPU)
        if not kept:
            raise InvalidInput(f"{folder}: nothing is recorded of {CPU}")
        edges = [_samples(store, _midnight(day)) for day in (kept[0], kept[-1])]
        if not all(table.num_rows for table in edges):
            raise InvalidInput(f"{folder}: the first or last day of {CPU} holds no sample of an instance")
        first = np.floor(pc.min(edges[0]["at"]).as_py() / SAMPLE_S) * SAMPLE_S
        last = (np.floor(pc.max(edges[1]["at"]).as_py() / SAMPLE_S) + 1) * SAMPLE_S
        begin, end = _span(first, last, start_s, end_s, days)
        past = max(begin - DAY_S, first)
        cpu_pct, strangers = _matrix(store, model, past, end)
        memory = _memory(store, model, end, end - begin)
    finally:
        store.close()
    notes = []
    if strangers:
        some = ", ".join(sorted(strangers)[:3])
        notes.append(f"{len(strangers)} recorded instances are not in the model and are left out ({some})")
    if past == begin:
        notes.append("nothing is recorded before the start: the first audits see little")
    return Recorded(Record.of(model, past, cpu_pct), begin, end, memory, tuple(notes))


def _samples(store: Measurements, midnight: float) -> pa.Table:
    return store.samples(CPU, "instance", midnight, midnight + DAY_S)


def _midnight(day: Any) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _matrix(
    store: Measurements, model: ClusterModel, start_s: float, end_s: float
) -> tuple[npt.NDArray[np.float32], set[str]]:
    """Means of 300 s, [T, V], NaN where nothing was recorded, and ids that the model does not know; day by day."""
    count = round((end_s - start_s) / SAMPLE_S)
    out = np.full((count, model.instances), np.nan, np.float32)
    strangers: set[str] = set()
    midnight = np.floor(start_s / DAY_S) * DAY_S
    while midnight < end_s:
        table = _samples(store, midnight)
        ids = pc.unique(table["resource"])
        strangers |= set(ids.filter(pa.array(model.instance_rows(ids) < 0)).to_pylist())
        columns = model.instance_rows(table["resource"].combine_chunks())
        rows = np.floor((table["at"].to_numpy() - start_s) / SAMPLE_S).astype(np.int64)
        ok = (columns >= 0) & (rows >= 0) & (rows < count)
        if ok.any():
            base = int(rows[ok].min())
            size = (int(rows[ok].max()) + 1 - base, model.instances)
            where = (rows[ok] - base) * model.instances + columns[ok]
            number = np.bincount(where, minlength=size[0] * size[1]).reshape(size)
            total = np.bincount(where, table["value"].to_numpy()[ok], size[0] * size[1]).reshape(size)
            out[base : base + size[0]] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
        midnight += DAY_S
    return np.clip(out, 0, 100, out=out), strangers


def _memory(store: Measurements, model: ClusterModel, at_s: float, window_s: float) -> Floats | None:
    """Mean memory in use where it was recorded, else all that the instance has, [V]; None: recorded of nobody."""
    table = store.aggregate([Need(RAM, "instance", "mean", int(window_s))], at_s)
    rows = model.instance_rows(table["resource"].combine_chunks())
    if not (rows >= 0).any():
        return None
    memory: Floats = model.demand[:, MEMORY].copy()
    memory[rows[rows >= 0]] = table["value"].to_numpy()[rows >= 0]
    return memory


# -- traces --------------------------------------------------------------------------------------


def from_trace(
    model: ClusterModel,
    file: Path,
    start_s: float | None,
    end_s: float | None,
    days: float | None,
    *,
    seed: int,
) -> Recorded:
    """The load of a PlanetLab-style trace file, dealt out over a model's instances; its day is repeated.

    Args:
        model: whose instances.
        file: see `load.from_planetlab`.
        start_s: begin of the time to be played; None: the second day after 1970-01-01, the first one is the past.
        end_s: its end.
        days: how long; None: one day.
        seed: of the dealing.

    Raises:
        InvalidInput: the file cannot be read.
    """
    load = Load(from_planetlab(file, model.instances, seed, variation=0.0), model.instances)
    begin = DAY_S if start_s is None else start_s
    begin, end = _span(0.0, np.inf, begin, begin + (days or 1.0) * DAY_S if end_s is None else end_s, None)
    past = max(begin - DAY_S, 0.0)
    cpu_pct = load.cpu_pct(int(past // SAMPLE_S), round((end - past) / SAMPLE_S))
    note = f"{file.name} knows none of the model's instances: its traces are dealt out over them, and its day repeated"
    return Recorded(Record.of(model, past, cpu_pct), begin, end, None, (note,))
