"""Fixtures of the strategies' tests: Watcher's scenarios and the replay of candidates."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load(name: str) -> ModuleType:
    """A module that lies beside this file; tests are not packages."""
    full = f"trimtab_tests_strategies_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


@pytest.fixture(scope="session")
def scenarios() -> ModuleType:
    """Watcher's clusters and measurements."""
    return load("scenarios_of_watcher")


@pytest.fixture(scope="session")
def replay() -> ModuleType:
    """Step by step judge of candidates, and random clusters."""
    return load("replay")
