"""Rules on 5,000 hosts: BtrPlace's repair problems, and what a rulebook costs an estate of 10,000 hosts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from time import process_time
from types import ModuleType

import numpy as np

from trimtab.platform.contracts import Context
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import plan_capacity
from trimtab.platform.proposal import Candidate, Limits
from trimtab.platform.rules import Fence, Rule, Spread, destinations, judge, judge_plan, rulebook, with_rules
from trimtab.platform.snapshot import Snapshot
from trimtab.strategies.library.repair import Parameters, Repair

Row = tuple[str, float, str, str]
HOSTS, INSTANCES, RULES = 10_000, 100_000, 5_000


def measure() -> list[Row]:
    """What, value, unit, target; without BtrPlace's cases where they are not there."""
    cases = _module(Path(__file__).parents[1] / "strategies" / "btrplace_cases.py")
    rows: list[Row] = []
    if not cases.folder().exists():
        print(f"rules: no BtrPlace cases in {cases.folder()}; set TRIMTAB_SHARED to the folder that has data/btrplace")
    for name, least in cases.LEAST_MIGRATIONS.items() if cases.folder().exists() else ():
        model = cases.case(name)
        _repaired(model)
        candidate, seconds = _repaired(model)
        place = candidate.final_host_of(model)
        rows.append((f"{name}: propose, rules compiled", seconds, "CPU s", "< 1"))
        rows.append((f"{name}: migrations", len(candidate.steps), "moves", f"{least}"))
        rows.append((f"{name}: instances left on no host", int((place < 0).sum()), "instances", "0"))
        rows.append((f"{name}: rules broken afterwards", candidate.indicators["rules_broken_after"], "rules", "0"))
        start = process_time()
        reasons = [*judge(model, candidate), *judge_plan(model, plan_capacity(model, candidate, Limits()))]
        rows.append((f"{name}: judge, plan, judge the plan", process_time() - start, "CPU s", "< 1"))
        rows.append((f"{name}: reasons against it", len(reasons), "reasons", "0"))
    rows += _overhead(_estate())
    return rows


def _overhead(bare: ClusterModel) -> list[Row]:
    random = np.random.default_rng(1)
    rules: list[Rule] = [
        Spread(name=f"s{n}", members=random.choice(bare.instances, 5, replace=False).astype(np.int32))
        for n in range(RULES - 100)
    ]
    rules += [
        Fence(
            name=f"f{n}",
            members=random.choice(bare.instances, 50, replace=False).astype(np.int32),
            hosts=random.choice(bare.hosts, 500, replace=False).astype(np.int32),
        )
        for n in range(100)
    ]
    ruled = with_rules(bare, rules)
    start = process_time()
    rulebook(ruled)
    rows: list[Row] = [(f"rulebook of {RULES:,} rules", process_time() - start, "CPU s", "-")]
    for label, model in (("no rules", bare), (f"{RULES:,} rules", ruled)):
        place = model.placement()
        start = process_time()
        for v in range(200):
            destinations(place, v)
        rows.append((f"destinations over {HOSTS:,} hosts, {label}", (process_time() - start) * 5, "ms", "-"))
    return rows


def _estate() -> ClusterModel:
    import pyarrow as pa

    hosts = [f"h{n}" for n in range(HOSTS)]
    size = pa.array(np.full(HOSTS, 64.0))
    need = pa.array(np.ones(INSTANCES))
    return ClusterModel.from_arrow(
        pa.table({"uuid": hosts, "hostname": hosts, "vcpus": size, "memory_mb": size, "disk_gb": size}),
        pa.table(
            {
                "uuid": [f"v{n}" for n in range(INSTANCES)],
                "node": [hosts[n % HOSTS] for n in range(INSTANCES)],
                "vcpus": need,
                "memory_mb": need,
                "disk_gb": need,
            }
        ),
    )


def _repaired(model: ClusterModel) -> tuple[Candidate, float]:
    fresh = Snapshot(model.with_changes(), 0.0)  # nothing compiled yet
    start = process_time()
    (candidate,) = Repair().propose(fresh, Parameters(), Context())
    return candidate, process_time() - start


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"trimtab_bench_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    for what, value, unit, target in measure():
        print(f"{what:60s} {value:12.4f} {unit:10s} {target}")
