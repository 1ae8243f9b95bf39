"""How fast a what-if sweep is, whole commands: 100 hosts, 500 instances, one day, an audit every hour.

`python tests/benchmarks/bench_whatif.py 1000` runs a thousand cells instead of a hundred.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trimtab.simulator.whatif.cell_run import Ground, run_cell
from trimtab.simulator.whatif.reading import read_sweep

CELLS = 100


def scenario(cells: int) -> dict[str, Any]:
    """As many seeds as there are to be cells."""
    policy = {"name": "hourly", "strategy": "workload_stabilization", "interval_min": 60}
    base = {"hosts": 100, "instances": 500}
    return {"name": "bench", "base": base, "axes": {"policy": [policy], "seeds": {"count": cells}}}


def measure(cells: int = CELLS) -> list[tuple[str, float, str, str]]:
    """Rows (what, value, unit, target)."""
    sweep = read_sweep(scenario(8))
    ground = Ground(sweep.scenario, sweep.origin)
    run_cell(ground, sweep.cells[0])  # compiles, or loads what was compiled
    one = min(_timed(lambda cell=cell: run_cell(ground, cell)) for cell in sweep.cells[1:])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.json"
        path.write_text(json.dumps(scenario(cells)), encoding="utf-8")
        command = ["trimtab", "whatif", str(path), "--out", str(Path(folder) / "out"), "--json"]
        exe = [str(Path(sys.executable).parent / command[0]), *command[1:]]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        told = subprocess.run(exe, check=True, capture_output=True, text=True)
        whole = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        again = _timed(lambda: subprocess.run(exe, check=True, capture_output=True))
        rows = _cpu_s(Path(folder) / "out")
    summary = json.loads(told.stdout)
    if summary["cells_failed"] or summary["cells_computed"] != cells:
        raise RuntimeError(f"the sweep went wrong: {told.stdout[:500]}")
    command_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    target = "< 60 s" if cells >= 1000 else "< 6 s and what starting takes"
    return [
        ("one cell, this process", one, "s", "< 0.06 s"),
        (f"{cells:,} cells: whole command, Ray's start included", whole, "s", target),
        (f"{cells:,} cells: sweep with Ray, without the command's own start", summary["seconds"], "s", "-"),
        (f"{cells:,} cells: CPU time in cells", rows, "s", "-"),
        (f"{cells:,} cells: CPU time of the command's processes that were waited for", command_s, "s", "-"),
        (f"{cells:,} cells: again, all of them there", again, "s", "-"),
    ]


def _cpu_s(out: Path) -> float:
    import duckdb

    found = duckdb.sql(f"SELECT sum(cpu_s) FROM read_parquet('{out}/cells/*.parquet')").fetchone()
    return float(found[0]) if found else 0.0


def _timed(work: Any) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    for what, value, unit, target in measure(int(sys.argv[1]) if len(sys.argv) > 1 else CELLS):
        print(f"{what:<70} {value:10.3f} {unit:<4} {target}")
