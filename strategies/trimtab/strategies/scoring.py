"""Scoring engines: text in, text out (JSON by convention), found through entry points; the samples Watcher ships."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from trimtab.platform.contracts import ScoringEngine
from trimtab.platform.errors import InvalidInput, NotFound
from trimtab.platform.plugins import scoring_engines

FEATURES = (
    "proc-processor-time-%",
    "mem-total-bytes",
    "mem-avail-bytes",
    "mem-page-reads/sec",
    "mem-page-writes/sec",
    "disk-read-bytes/sec",
    "disk-write-bytes/sec",
    "net-bytes-received/sec",
    "net-bytes-sent/sec",
)
IDLE, CPU, MEMORY, DISK = range(4)
BUSY_DISK = 50 * 2**20  # bytes a second


class DummyScorer:
    """Classifies the workload of a machine by a few fixed rules."""

    name = "dummy_scorer"
    description = "Dummy workload classifier"
    metainfo = json.dumps(
        {
            "feature_columns": FEATURES,
            "result_columns": [
                "workload",
                "idle-probability",
                "cpu-probability",
                "memory-probability",
                "disk-probability",
            ],
            "workloads": ["idle", "cpu-intensive", "memory-intensive", "disk-intensive"],
        }
    )

    def calculate_score(self, features: str) -> str:
        """Nine numbers (`FEATURES`) become [workload, idle, cpu, memory, disk probability in %].

        Raises:
            InvalidInput: not a JSON list of nine numbers.
        """
        numbers = _numbers(self.name, features)
        if len(numbers) != len(FEATURES):
            raise InvalidInput(
                f"scoring engine {self.name}: {len(numbers)} features given, {len(FEATURES)} are needed: "
                f"{', '.join(FEATURES)}"
            )
        cpu, _, _, reads, writes, disk_reads, disk_writes, _, _ = numbers
        chances = [0.0, 0.0, 0.0, 0.0]
        if cpu >= 80:
            workload = CPU
        elif reads >= 1000 and writes >= 1000:
            workload = MEMORY
        elif disk_reads >= BUSY_DISK and disk_writes >= BUSY_DISK:
            workload = DISK
        else:
            workload = IDLE
            chances[CPU] = 50.0 if cpu >= 40 else 0.0
            chances[MEMORY] = 50.0 if reads >= 500 or writes >= 500 else 0.0
        chances[workload] = 100.0
        return json.dumps([workload, *chances])


class FunctionScorer:
    """One number of many, by a plain function."""

    metainfo = ""

    def __init__(self, name: str, description: str, function: Callable[[Sequence[float]], float]) -> None:
        self.name, self.description, self._function = name, description, function

    def calculate_score(self, features: str) -> str:
        """A list of numbers becomes a list of one.

        Raises:
            InvalidInput: not a JSON list of at least one number.
        """
        numbers = _numbers(self.name, features)
        if not numbers:
            raise InvalidInput(f"scoring engine {self.name}: no feature given, at least one is needed")
        return json.dumps([self._function(numbers)])


class DummyScoringContainer:
    """Smallest, largest and mean of numbers."""

    @classmethod
    def get_scoring_engine_list(cls) -> Sequence[ScoringEngine]:
        """Three engines."""
        return (
            FunctionScorer("dummy_min_scorer", "Dummy Scorer calculating the minimum value", min),
            FunctionScorer("dummy_max_scorer", "Dummy Scorer calculating the maximum value", max),
            FunctionScorer("dummy_avg_scorer", "Dummy Scorer calculating the average value", fmean),
        )


def engines() -> Mapping[str, ScoringEngine]:
    """All installed engines by name: see `plugins.scoring_engines`."""
    return scoring_engines()


def engine(name: str) -> ScoringEngine:
    """One engine.

    Raises:
        NotFound: none of this name is installed.
    """
    found = engines()
    if name not in found:
        raise NotFound(f"scoring engine {name} is not installed; there are {', '.join(found) or 'none'}")
    return found[name]


def _numbers(name: str, features: str) -> list[float]:
    try:
        given: Any = json.loads(features)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"scoring engine {name}: the features are no JSON: {error}") from error
    if not isinstance(given, list) or any(isinstance(one, bool) or not isinstance(one, int | float) for one in given):
        raise InvalidInput(f"scoring engine {name}: the features must be a JSON list of numbers")
    return given
