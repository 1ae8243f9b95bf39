"""How fast a closed loop is: the standard cell of a sweep, a backtest of a week; CPU time of this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from trimtab.platform.plugins import load as plugins
from trimtab.simulator.backtest import Record, backtest
from trimtab.simulator.closed_loop import Case, Policy, run
from trimtab.simulator.load import Load
from trimtab.simulator.truth import CloudSpec

AT = 20_000 * 86_400.0
DAY_S = 86_400.0


def measure() -> list[tuple[str, float, str, str]]:
    """Rows (what, value, unit, target)."""
    level, pack = _policy("workload_stabilization"), _policy("vm_workload_consolidation")
    cell = _case(100, 500, level)
    large = _case(1_000, 10_000, level)
    record = _record(200, 2_000, 8)
    model = CloudSpec(hosts=200, instances=2_000).model()
    run(cell)  # compiles
    return [
        ("cell 100/500, a day, hourly stabilization", _cpu(lambda: run(cell)), "s", "< 0.06"),
        ("cell 100/500, a day, nobody", _cpu(lambda: run(replace(cell, policy=Policy("nobody")))), "s", "-"),
        ("cell 100/500, a day, hourly consolidation", _cpu(lambda: run(replace(cell, policy=pack))), "s", "-"),
        ("cell 100/500, with series", _cpu(lambda: run(cell, series=True)), "s", "-"),
        ("cell 1,000/10,000, a day, hourly stabilization", _cpu(lambda: run(large), 3), "s", "-"),
        (
            "backtest 200/2,000, a week, nobody and two policies",
            _cpu(lambda: backtest(model, record, [level, pack], AT + DAY_S, AT + 8 * DAY_S), 1),
            "s",
            "-",
        ),
    ]


def _policy(name: str) -> Policy:
    return Policy(name, plugins().strategy(name))


def _case(hosts: int, instances: int, policy: Policy) -> Case:
    spec = CloudSpec(hosts=hosts, instances=instances)
    return Case(spec.model(), Load(spec.days(instances), instances), policy, AT)


def _record(hosts: int, instances: int, days: int) -> Record:
    spec = CloudSpec(hosts=hosts, instances=instances)
    load = Load(spec.days(instances), instances)
    return Record.of(spec.model(), AT, load.cpu_pct(int(AT // 300), 288 * days))


def _cpu(what: Callable[[], object], times: int = 9) -> float:
    """CPU seconds, the least of some runs."""
    found = []
    for _ in range(times):
        begin = time.process_time()
        what()
        found.append(time.process_time() - begin)
    return min(found)


if __name__ == "__main__":
    for what, value, unit, target in measure():
        print(f"{what:55} {value:8.4f} {unit}  (target {target})")
