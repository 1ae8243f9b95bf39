"""Runs in tempest's environment: all tests under a package, in order; their outcomes as one JSON document.

TEMPEST_CONFIG and TEMPEST_CONFIG_DIR in the environment say where tempest finds its configuration.
The document has `passed`, `skipped` (test to reason) and `failed` (test to traceback).
"""

import importlib
import json
import sys
import unittest
from pathlib import Path
from typing import Any


class Outcomes(unittest.TestResult):
    """What became of every test, by its id; failures of a whole class count under the class's name."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[str] = []

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802 (unittest's name)
        """Keep the name of a test that passed."""
        super().addSuccess(test)
        self.passed.append(test.id())


def run(package: str) -> dict[str, Any]:
    """Run everything below a package."""
    folder = Path(importlib.import_module(package).__path__[0])
    root = folder.parents[package.count(".")]
    outcomes = Outcomes()
    unittest.defaultTestLoader.discover(str(folder), top_level_dir=str(root)).run(outcomes)
    bad = [*outcomes.failures, *outcomes.errors]
    return {
        "passed": outcomes.passed,
        "skipped": {test.id(): reason for test, reason in outcomes.skipped},
        # Before it stands the whole log of the test.
        "failed": {test.id(): trace[max(trace.rfind("Traceback"), 0) :] for test, trace in bad},
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(sys.argv[1])))
