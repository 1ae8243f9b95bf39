"""What a sweep says, over its rows: means and ranges over seeds, the trade-off front, the best of each axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.whatif.rows import LABELS, SCHEMA

AXES = ("topology", "load", "policy")
SHOWN = (
    "energy_kwh",
    "overload_min",
    "migrations",
    "down_min",
    "carbon_kg",
    "hosts_in_use_mean",
    "cpu_sd_pp",
    "slav",
)
NUMBERS = tuple(field.name for field in SCHEMA if field.name not in {*LABELS, "notes", "error"})


class Figure(NamedTuple):
    """One column over the seeds of one point."""

    mean: float
    low: float
    high: float


class Point(NamedTuple):
    """One point of topology, load and policy, over its seeds. `figures` holds what was computed at least once."""

    topology: str
    load: str
    policy: str
    seeds: int
    failed: int
    figures: Mapping[str, Figure]

    @property
    def name(self) -> str:
        """All labels in one text."""
        return " · ".join((self.topology, self.load, self.policy))

    def mean(self, column: str) -> float:
        """Mean of a column; NaN where nothing was computed."""
        return self.figures[column].mean if column in self.figures else float("nan")


def points_of(rows: pa.Table) -> list[Point]:
    """Points in the order in which their first rows come."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        groups.setdefault(tuple(row[axis] for axis in AXES), []).append(row)
    return [_point(labels, members) for labels, members in groups.items()]


def in_order(points: Sequence[Point], labels: Sequence[tuple[str, str, str]]) -> list[Point]:
    """The points as the scenario names them."""
    position = {label: n for n, label in enumerate(dict.fromkeys(labels))}
    return sorted(points, key=lambda p: position.get((p.topology, p.load, p.policy), len(position)))


def _point(labels: tuple[str, ...], members: Sequence[Mapping[str, Any]]) -> Point:
    good = [row for row in members if not row["error"]]
    figures: dict[str, Figure] = {}
    for column in NUMBERS:
        values = np.array([row[column] for row in good if row[column] is not None], np.float64)
        if len(values):
            figures[column] = Figure(float(values.mean()), float(values.min()), float(values.max()))
    topology, load, policy = labels
    return Point(topology, load, policy, len(members), len(members) - len(good), figures)


def check_column(column: str) -> str:
    """A column that can be drawn.

    Raises:
        InvalidInput: it is none; names those there are.
    """
    if column not in NUMBERS:
        raise InvalidInput(f"there is no figure {column!r}: use one of {', '.join(NUMBERS)}")
    return column


def front(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Positions of the points that no other beats in both (smaller is better), by x; NaN never belongs to it."""
    order = sorted((n for n in range(len(x)) if np.isfinite(x[n]) and np.isfinite(y[n])), key=lambda n: (x[n], y[n]))
    best: list[int] = []
    lowest = np.inf
    for n in order:
        if y[n] < lowest:
            best.append(n)
            lowest = y[n]
    return best


class Best(NamedTuple):
    """The winner of one axis by one column: the label whose cells have the smallest mean, and the runner-up."""

    axis: str
    column: str
    label: str
    mean: float
    second: str
    second_mean: float


def best_of(points: Sequence[Point], columns: Sequence[str]) -> list[Best]:
    """For every axis with more than one label and every column: who is best on average over all else."""
    found: list[Best] = []
    for axis in AXES:
        labels = list(dict.fromkeys(getattr(point, axis) for point in points))
        if len(labels) < 2:
            continue
        for column in columns:
            means = []
            for label in labels:
                values = [p.mean(column) for p in points if getattr(p, axis) == label]
                known = [value for value in values if np.isfinite(value)]
                if known:
                    means.append((float(np.mean(known)), label))
            if len(means) > 1:
                (mean, label), (second_mean, second), *_ = sorted(means, key=lambda pair: pair[0])
                found.append(Best(axis, column, label, mean, second, second_mean))
    return found
