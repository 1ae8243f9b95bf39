"""Rows of a sweep's results: one a cell, always the same columns, units in the names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from trimtab.platform.contracts import Score
from trimtab.simulator.whatif.cells import Cell

LABELS = ("key", "topology", "load", "policy", "strategy", "seed")
SCORE_FIELDS = tuple(field.name for field in fields(Score))
# What a closed loop counts beside its score, see `closed_loop.Outcome`.
FIGURES = (
    "audits",
    "skipped_audits",
    "failed_audits",
    "plans",
    "migrations",
    "failed_migrations",
    "rejected_arrivals",
    "crashed_instances",
    "overload_min",
    "otf",
    "pdm_mean",
    "slav",
    "esv_kwh",
    "memory_pressure_min",
    "down_min",
    "migration_stop_min",
    "undelivered_vcpu_h",
    "migrating_min",
    "hosts_in_use_mean",
    "carbon_kg",
)
OWN = ("hosts", "unplaced_instances")
MEASURED = (*SCORE_FIELDS, *FIGURES, *OWN)
WHOLE = frozenset({"moves", "hosts_in_use", "rules_broken"})

SCHEMA = pa.schema(
    [
        *((name, pa.int64() if name == "seed" else pa.string()) for name in LABELS),
        *((name, pa.int64() if name in WHOLE else pa.float64()) for name in MEASURED),
        ("notes", pa.string()),  # why audits failed, the first few
        ("cpu_s", pa.float64()),
        ("error", pa.string()),  # "" where there is none
    ]
)


def row(
    cell: Cell, score: Score, figures: Mapping[str, float], own: Mapping[str, float], notes: Sequence[str], cpu_s: float
) -> dict[str, Any]:
    """The row of a cell that ran."""
    figures = {name: value for name, value in figures.items() if name in FIGURES}
    told = {"notes": "; ".join(notes[:3]), "cpu_s": cpu_s, "error": ""}
    return {**cell.labels(), **figures, **asdict(score), **own, **told}


def failed(cell: Cell, error: str, cpu_s: float = 0.0) -> dict[str, Any]:
    """The row of a cell that could not be computed: no figures, and why."""
    return {**cell.labels(), "notes": "", "cpu_s": cpu_s, "error": error}


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of `SCHEMA`."""
    return pa.Table.from_pylist([dict(one) for one in rows], schema=SCHEMA)
