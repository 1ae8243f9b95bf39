"""How fast the store is: commits, outcomes, lists and measurements, each on its own files in a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter
from uuid import uuid4

import numpy as np
import pyarrow as pa

from trimtab.platform.records import Action, ActionPlan, Audit
from trimtab.platform.snapshot import Need
from trimtab.platform.store.measurements import Measurements
from trimtab.platform.store.state import Store

Row = tuple[str, float, str, str]
DAY = date(2026, 3, 1)
MIDNIGHT = 1772323200.0  # of DAY


def measure() -> list[Row]:
    """What, value, unit, target."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_records(Path(folder)), *_measurements(Path(folder))]


def _ms(what: Callable[[], object], times: int = 5) -> float:
    """Median milliseconds of some calls."""
    taken = []
    for _ in range(times):
        start = perf_counter()
        what()
        taken.append(1000 * (perf_counter() - start))
    return median(taken)


def _audit() -> Audit:
    return Audit(uuid=str(uuid4()), name=str(uuid4()), audit_type="ONESHOT", state="PENDING", goal_id=1)


def _action(number: int) -> Action:
    wanted = {"resource_id": str(uuid4()), "migration_type": "live", "destination_node": f"host-{number}"}
    return Action(uuid=str(uuid4()), action_plan_id=0, action_type="migrate", state="PENDING", input_parameters=wanted)


def _records(folder: Path) -> list[Row]:
    store = Store(folder / "store.duckdb")
    rows: list[Row] = []

    count, start = 200, perf_counter()
    for _ in range(count):
        store.create(_audit())
    rows.append(("audits created one by one, each durable", count / (perf_counter() - start), "1/s", "> 100"))

    audit = store.create(replace(_audit(), state="ONGOING"))
    count, start = 200, perf_counter()
    for turn in range(count):
        store.transition(Audit, audit.uuid, ("suspend", "resume")[turn % 2])
    rows.append(("transitions with their event, each durable", count / (perf_counter() - start), "1/s", "> 50"))

    def outcome() -> None:
        plan = ActionPlan(uuid=str(uuid4()), audit_id=0, strategy_id=1, state="RECOMMENDED")
        actions = [_action(number) for number in range(1000)]
        store.save_outcome(audit.uuid, event=None, epoch=None, plan=plan, actions=actions)

    rows.append(("save_outcome with 1,000 actions", _ms(outcome), "ms", "< 250"))

    for size in (10_000, 100_000):
        while (there := store.count(Audit)) < size:
            store.create_many([_audit() for _ in range(min(20_000, size - there))])
        middle = store.list(Audit, limit=size // 2)[-1].uuid
        label = f"100 of {size:,} audits"
        rows += [
            (f"list, first {label}", _ms(lambda: store.list(Audit, limit=100)), "ms", "< 50"),
            (
                f"list by created_at behind a marker, {label}",
                _ms(lambda uuid=middle: store.list(Audit, limit=100, marker=uuid, sort_key="created_at")),  # type: ignore[misc]
                "ms",
                "< 100",
            ),
            (f"get by uuid, {size:,} audits", _ms(lambda uuid=middle: store.get(Audit, uuid)), "ms", "< 20"),  # type: ignore[misc]
        ]
    store.close()
    return rows


def _measurements(folder: Path) -> list[Row]:
    """10,000 resources, one sample a minute for two hours; then all of it merged."""
    kept = Measurements(folder / "metrics")
    dice, resources = np.random.default_rng(1), pa.array([str(uuid4()) for _ in range(10_000)])

    def poll(minute: int) -> None:
        at = pa.array(np.full(len(resources), MIDNIGHT + 60 * minute))
        values = pa.array(dice.random(len(resources)))
        kept.append("instance_cpu_usage", "instance", pa.table({"resource": resources, "at": at, "value": values}))

    minutes = iter(range(120))
    rows = [("append 10,000 samples", _ms(lambda: poll(next(minutes)), 20), "ms", "< 100")]
    for minute in minutes:
        poll(minute)
    now, wanted = MIDNIGHT + 120 * 60, [Need("instance_cpu_usage", "instance", window_s=3600)]

    def aggregate() -> None:
        found = kept.aggregate(wanted, now)
        if found.num_rows != len(resources):
            raise AssertionError(f"{found.num_rows} rows instead of {len(resources)}")

    rows.append(("mean of an hour, 10,000 resources, 120 small files", _ms(aggregate), "ms", "< 1000"))
    rows.append(("merge 120 files, 1.2 M samples", _ms(lambda: kept.compact(DAY), 1), "ms", "< 5000"))
    rows.append(("mean of an hour, 10,000 resources, merged", _ms(aggregate), "ms", "< 250"))
    kept.close()
    return rows


if __name__ == "__main__":
    for what, value, unit, target in measure():
        print(f"{what:55} {value:10.1f} {unit:4} (target {target})")
