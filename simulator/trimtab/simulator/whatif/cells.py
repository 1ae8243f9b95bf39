"""The cells of a sweep in their order, each with a key made of everything that decides its result."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trimtab.platform.plugins import load
from trimtab.simulator.whatif.scenario import LoadPoint, PolicyPoint, Scenario, Topology

ENGINE = 2  # raised whenever the same cell would get other figures

LOAD, FAILURES, POLICY = 1, 2, 3  # purposes of random streams


class Cell(NamedTuple):
    """One point of the sweep; `key` is the same for the same question, whatever scenario asks it."""

    topology: Topology
    load: LoadPoint
    policy: PolicyPoint
    seed: int
    key: str

    def labels(self) -> dict[str, Any]:
        """The axis columns of its row."""
        return {
            "key": self.key,
            "topology": self.topology.name,
            "load": self.load.name,
            "policy": self.policy.name,
            "strategy": self.policy.strategy or "",
            "seed": self.seed,
        }


def cells_of(scenario: Scenario, origin: str = "") -> list[Cell]:
    """All cells, policies innermost, so that neighbours share topology, load and seed.

    A strategy's own code is part of the keys (see `code_of`): who edits a strategy gets its cells computed anew.

    Args:
        scenario: what is asked.
        origin: fingerprint of where it begins (`Origin.fingerprint`).
    """
    common = {
        "engine": f"{version('trimtab')}/{ENGINE}",
        "origin": origin,
        **scenario.model_dump(
            mode="json", include={"base", "horizon_h", "past_h", "migration", "power", "carbon", "failures", "series"}
        ),
    }
    common["base"] = common["base"]["kind"] if origin else common["base"]  # its content is in the fingerprint
    head = canonical(common)
    axes = scenario.axes
    topologies = [canonical(point.model_dump(mode="json")) for point in axes.topology]
    loads = [canonical({**point.model_dump(mode="json"), "trace": _content(point.trace)}) for point in axes.load]
    policies = [canonical({**point.model_dump(mode="json"), "code": code_of(point.strategy)}) for point in axes.policy]
    return [
        Cell(topology, load, policy, seed, _digest(head, topologies[t], loads[n], policies[p], str(seed)))
        for t, topology in enumerate(axes.topology)
        for n, load in enumerate(axes.load)
        for seed in axes.seeds
        for p, policy in enumerate(axes.policy)
    ]


@cache
def code_of(strategy: str | None) -> dict[str, str]:
    """What a strategy is made of: its package with its version, and a hash of every module its class comes from.

    Modules that those only import are not looked at: raise the package's version, or write to another folder
    (`trimtab whatif --out`), after changing one. `--retry-failed` computes failed cells again, and nothing else.
    As long as a process runs, its answer is that of the code it has loaded.
    """
    if strategy is None:
        return {}
    made = {}
    for point in entry_points(group="trimtab.strategies", name=strategy):
        if point.dist is not None:
            made["package"] = f"{point.dist.name} {point.dist.version}"
    for cls in type(load().strategy(strategy)).__mro__:
        name = cls.__module__
        file = getattr(sys.modules.get(name), "__file__", None)
        if name.partition(".")[0] not in sys.stdlib_module_names and file is not None and Path(file).is_file():
            made[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return made


def canonical(value: Mapping[str, Any]) -> str:
    """JSON that is the same for the same content."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def stream(seed: int, *purpose: int) -> int:
    """The seed of one random stream of a cell; policies and topologies are no part of it: they meet the same luck."""
    return int(np.random.SeedSequence([seed, *purpose]).generate_state(1, np.uint64)[0])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _content(path: Path | None) -> str | None:
    """What a file says, not where it is."""
    if path is None:
        return None
    root, files = (path, sorted(path.rglob("*"))) if path.is_dir() else (path.parent, [path])
    there = [file for file in files if file.is_file()]
    return canonical({str(file.relative_to(root)): _hash(file, file.stat().st_mtime_ns) for file in there})


@cache
def _hash(path: Path, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
