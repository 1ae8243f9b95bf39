"""How fast the PlanetLab benchmark runs: the day, all its policies, larger data centres, and a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from trimtab.simulator.planetlab.engine import simulate
from trimtab.simulator.planetlab.fleet import Fleet, build_fleet, read_day
from trimtab.simulator.planetlab.rules import Policy, every_policy

DAY = "20110303"
SHARED = Path(os.environ.get("TRIMTAB_SHARED", str(Path(__file__).parents[3] / "shared")))
TRACES = SHARED / "data" / "planetlab"
FRESH = """
from pathlib import Path
from trimtab.simulator.planetlab.engine import simulate
from trimtab.simulator.planetlab.fleet import build_fleet, read_day
from trimtab.simulator.planetlab.rules import Policy
simulate(build_fleet(read_day(Path({folder!r}), {day!r})), Policy.named("LR-MMT"))
# Not ru_maxrss: that one starts with what the parent had when it forked.
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))
"""


def measure() -> list[tuple[str, float, str, str]]:
    """Rows (what, value, unit, target)."""
    if not (TRACES / f"{DAY}.parquet").is_file():
        raise FileNotFoundError(f"no traces in {TRACES}: set TRIMTAB_SHARED to the folder that has data/planetlab")
    traces = read_day(TRACES, DAY)
    fleet = build_fleet(traces)
    policies = every_policy()
    for policy in policies:
        simulate(fleet, policy)  # compiles, or reads what was compiled
    rows = [
        ("LR-MMT, 800 hosts, 1,052 VMs, a day", _cpu(fleet, "LR-MMT", 7), "s CPU", "< 0.18"),
        ("THR-MMT", _cpu(fleet, "THR-MMT", 5), "s CPU", "-"),
        ("LR-MC", _cpu(fleet, "LR-MC", 3), "s CPU", "-"),
        ("DVFS", _cpu(fleet, "DVFS", 5), "s CPU", "-"),
        ("all 22 rows in reference mode", sum(_cpu(fleet, policy.name, 1) for policy in policies), "s CPU", "< 8"),
    ]
    for name, target in (("DVFS", "< 20"), ("LR-MMT", "< 120")):
        for hosts in (2_500, 5_000, 10_000):
            large = build_fleet(np.resize(traces, (2 * hosts, traces.shape[1])), hosts)
            limit = target if hosts == 10_000 else "-"
            rows.append((f"{name}, {hosts:,} hosts, {2 * hosts:,} VMs", _cpu(large, name, 1), "s CPU", limit))
    began = time.perf_counter()
    script = FRESH.format(folder=str(TRACES), day=DAY)
    # The interpreter that runs this file, with a script of its own.
    peak = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    rows.append(("fresh process, LR-MMT, from start to end", time.perf_counter() - began, "s", "-"))
    rows.append(("fresh process, LR-MMT, peak memory", float(peak), "MB", "< 300"))
    return rows


def _cpu(fleet: Fleet, name: str, times: int) -> float:
    """Best CPU seconds of some runs."""
    return min(simulate(fleet, Policy.named(name)).cpu_s for _ in range(times))


if __name__ == "__main__":
    for what, value, unit, target in measure():
        print(f"{what:45} {value:10.3f} {unit:6} {target}")
