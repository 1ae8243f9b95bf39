"""How good and how fast the strategies are on neutral estates: 2,000 hosts and 20,000 instances, and how it grows."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from time import process_time
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trimtab.platform.contracts import Context
from trimtab.platform.model import MEMORY, VCPU, ClusterModel
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Candidate
from trimtab.platform.rules import judge
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Snapshot
from trimtab.simulator.annex import build_metal, build_storage
from trimtab.strategies.library.vm_workload_consolidation import VmWorkloadConsolidation
from trimtab.strategies.library.workload_stabilization import WorkloadStabilization
from trimtab.strategies.warm import warm

Row = tuple[str, float, str, str]

SIZES = {"S": (50, 500), "M": (500, 5_000), "L": (2_000, 20_000), "XL": (10_000, 100_000)}
# What every audit of these strategies may ask for; {} are Watcher's defaults.
GROWING: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("vm_workload_consolidation", {}),
    # Watcher's stopped below 0.05; the judge counts what instances use, the strategy what was measured on hosts.
    ("workload_stabilization", {"thresholds": {"instance_cpu_usage": 0.045}, "host_choice": "fullsearch"}),
    ("basic", {}),
    ("node_resource_consolidation", {}),
    ("node_resource_consolidation", {"host_choice": "specify"}),
    ("workload_balance", {}),
    ("workload_balance", {"max_migrations": 200}),
    ("outlet_temperature", {"max_migrations": 100}),
    ("uniform_airflow", {"max_migrations": 100}),
    ("noisy_neighbor", {"max_migrations": 100}),
    ("host_maintenance", {"backup_node": ""}),
    ("zone_migration", {"compute_nodes": [], "complete": True}),
    ("saving_energy", {}),
    ("storage_capacity_balance", {"volume_threshold": 70.0}),
    ("repair", {}),
)
TARGETS = {("M", "basic"): "< 1.2", ("M", "node_resource_consolidation"): "< 2"}
SEARCHES = ("vm_workload_consolidation", "workload_stabilization")  # their targets are those of L
# What OpenStack Watcher 17.0.0 reached on the same estates: hosts in use; deviation of CPU, pp.
WATCHERS: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("S", "vm_workload_consolidation"): {"hosts": 23},
    ("M", "vm_workload_consolidation"): {"hosts": 256},
    ("L", "vm_workload_consolidation"): {"hosts": 964},
    ("S", "workload_stabilization"): {"sd": 6.24},
    ("M", "workload_stabilization"): {"sd": 4.95},
    ("L", "workload_stabilization"): {"sd": 5.02},
}
UNITS = {"hosts": ("hosts in use", "hosts"), "moves": ("migrations", "moves"), "sd": ("CPU deviation", "pp")}


def measure() -> list[Row]:
    """What, value, unit, target; nothing when the generator of estates is not there."""
    folder = Path(os.environ.get("TRIMTAB_SHARED", Path(__file__).parents[3] / "shared"))
    if not (folder / "bench" / "gen.py").exists():
        print(f"strategies: no bench/gen.py in {folder}; set TRIMTAB_SHARED to the folder that has it")
        return []
    nodes, instances, metrics, _ = _module(folder / "bench" / "gen.py").make(2000, 20000, 1)
    model = ClusterModel.from_arrow(nodes, instances)
    warm()
    rows: list[Row] = []
    consolidation, stabilization = VmWorkloadConsolidation(), WorkloadStabilization()
    (thrifty, *_, thorough), seconds = _proposed(consolidation, model, metrics, {})
    rows.append(("consolidation: propose", seconds, "CPU s", "< 0.4"))
    for label, candidate, wanted in (
        ("thrifty", thrifty, ("<= 964", "<= 7187")),
        ("thorough", thorough, ("<= 902", "-")),
    ):
        figures = _figures(model, metrics, candidate)
        rows.append((f"consolidation, {label}: hosts in use", figures["hosts"], "hosts", wanted[0]))
        rows.append((f"consolidation, {label}: migrations", figures["moves"], "moves", wanted[1]))
        rows.append((f"consolidation, {label}: moved", figures["gib"], "GiB", "-"))
        rows.append((f"consolidation, {label}: steps over capacity or against a rule", figures["faults"], "steps", "0"))
    for label, given in (
        ("threshold 0.05", {"thresholds": {"instance_cpu_usage": 0.05}}),
        ("threshold 0.05, fullsearch", {"thresholds": {"instance_cpu_usage": 0.05}, "host_choice": "fullsearch"}),
        ("threshold 0.02, fullsearch", {"thresholds": {"instance_cpu_usage": 0.02}, "host_choice": "fullsearch"}),
    ):
        (candidate,), seconds = _proposed(stabilization, model, metrics, given)
        figures = _figures(model, metrics, candidate)
        rows.append((f"balance, {label}: propose", seconds, "CPU s", "< 1.5"))
        rows.append((f"balance, {label}: CPU deviation", figures["sd"], "pp", "<= 5.02"))
        rows.append((f"balance, {label}: migrations", figures["moves"], "moves", "-"))
        rows.append((f"balance, {label}: moved", figures["gib"], "GiB", "-"))
        rows.append((f"balance, {label}: steps over capacity or against a rule", figures["faults"], "steps", "0"))
    for size in SIZES:
        rows += growth(folder, size)
    return rows


def growth(folder: Path, size: str) -> list[Row]:
    """CPU seconds of a proposal on one size of estate, moves, and steps over capacity, without building the model."""
    nodes, instances, metrics, _ = _module(folder / "bench" / "gen.py").make(*SIZES[size], 1)
    model = ClusterModel.from_arrow(nodes, instances)
    guests = np.bincount(model.host_of[model.host_of >= 0], minlength=model.hosts)
    fullest, emptiest = int(np.argmax(guests)), int(np.argmin(np.where(model.usable, guests, guests.max() + 1)))
    rows: list[Row] = []
    for name, options in GROWING:
        given = dict(options)
        if name == "host_maintenance":
            given = {"maintenance_node": model.host_name(fullest), "backup_node": model.host_name(emptiest)}
        if name == "zone_migration":
            given["compute_nodes"] = [{"src_node": model.host_name(fullest)}]
        strategy = load().strategy(name)
        found, seconds = _proposed(strategy, model, metrics, given)
        candidate = found[-1] if found else Candidate(())  # the thorough one; nothing to do
        shown = {key: value for key, value in options.items() if value and not isinstance(value, dict)}
        label = f"{size}, {name}{''.join(f', {key} {value}' for key, value in shown.items())}"
        target = "< 0.2" if size == "XL" and name not in SEARCHES else TARGETS.get((size, name), "-")
        rows.append((f"{label}: propose", seconds, "CPU s", target))
        rows.append((f"{label}: actions", len(candidate.steps), "steps", "-"))
        if (candidate.moves()[:, 1] >= 0).all() and len(candidate.moves()):
            figures = _figures(model, metrics, candidate)
            wanted = WATCHERS.get((size, name), {})
            for key in dict.fromkeys([*wanted, "moves"]):
                what, unit = UNITS[key]
                rows.append((f"{label}: {what}", figures[key], unit, f"<= {wanted[key]:g}" if key in wanted else "-"))
            rows.append((f"{label}: steps over capacity or against a rule", figures["faults"], "steps", "0"))
    return rows


def _proposed(strategy: Any, model: ClusterModel, metrics: pa.Table, given: Mapping[str, Any]) -> tuple[Any, float]:
    parameters = read_parameters(strategy, given)
    measured = {}
    for need in strategy.needs(parameters):
        part = metrics.filter(pc.equal(metrics["metric"], need.metric))
        if len(pc.unique(part["window_s"])) > 1:  # measured over several windows
            part = part.filter(pc.equal(part["window_s"], need.window_s))
        ids = part["resource_uuid"].combine_chunks()
        rows = model.host_rows(ids) if need.kind == "host" else model.instance_rows(ids)
        values = np.full(model.hosts if need.kind == "host" else model.instances, np.nan)
        values[rows] = part["value"].to_numpy()
        measured[need] = values
    storage = build_storage(model, 1) if "storage" in strategy.models else None
    metal = build_metal(model, 1) if "baremetal" in strategy.models else None
    snapshot = Snapshot(model, taken_at=0.0, measured=measured, storage=storage, baremetal=metal)
    taken = []
    for _ in range(3):
        start = process_time()
        candidates = strategy.propose(snapshot, parameters, Context())
        taken.append(process_time() - start)
    return candidates, min(taken)


def _figures(model: ClusterModel, metrics: pa.Table, candidate: Candidate) -> dict[str, float]:
    """The figures of the neutral judge, computed here again from the moves in their order."""
    place, used = model.host_of.copy(), model.used()
    faults = len(judge(model, candidate))
    for instance, host in candidate.moves():
        used[place[instance]] -= model.demand[instance]
        used[host] += model.demand[instance]
        place[instance] = host
        faults += bool((used[host] > model.capacity[host] + 1e-6).any())
    part = metrics.filter(pc.equal(metrics["metric"], "instance_cpu_usage"))
    cpu = np.zeros(model.instances)
    cpu[model.instance_rows(part["resource_uuid"].combine_chunks())] = part["value"].to_numpy()
    load = np.bincount(place, cpu * model.demand[:, VCPU], model.hosts) / model.total[:, VCPU]
    guests = np.bincount(place, minlength=model.hosts)
    moved = candidate.moves()[:, 0]
    return {
        "hosts": int((guests > 0).sum()),
        "moves": len(moved),
        "gib": float(model.demand[moved, MEMORY].sum() / 1024),
        "sd": float(load[model.usable | (guests > 0)].std()),
        "faults": faults,
    }


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("trimtab_bench_estates", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    for what, value, unit, target in measure():
        print(f"{what:70s} {value:12.3f} {unit:6s} {target}")
