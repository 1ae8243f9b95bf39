"""Warming up: compile and cache kernels on disk at set-up, import and load them in a worker before it is needed."""

from __future__ import annotations

import time


def warm_worker(_shared: object, _item: object) -> None:
    """What a Ray worker does before its first audit: import strategies and simulator, load their compiled kernels."""
    from trimtab.platform.plugins import load
    from trimtab.strategies.warm import warm

    load()
    warm()
    rehearse_once()


def rehearse_once() -> None:
    """Rehearse a tiny plan on a tiny cloud: loads (or compiles) the kernels of the simulator."""
    from trimtab.platform.planner import plan_capacity
    from trimtab.platform.proposal import Candidate, Limits, Migrate
    from trimtab.platform.snapshot import Snapshot
    from trimtab.simulator.cloud import SimulatedCloud
    from trimtab.simulator.rehearse import rehearse
    from trimtab.simulator.truth import CloudSpec

    cloud = SimulatedCloud(CloudSpec(hosts=4, instances=8, history_s=3600.0))
    cloud.samples("host_cpu_usage", "host", cloud.now() - 3600, cloud.now())
    model = CloudSpec(hosts=4, instances=8).model()
    to = (int(model.host_of[0]) + 1) % model.hosts
    plan = plan_capacity(model, Candidate((Migrate(0, to),)), Limits())
    rehearse(Snapshot(model, cloud.now()), plan, Limits(), 0)


def whatif_once() -> None:
    """Run a tiny cell of a what-if: loads (or compiles) the kernels of the closed loop."""
    from trimtab.simulator.whatif.cell_run import Ground, run_cell
    from trimtab.simulator.whatif.reading import read_sweep

    axes = {"policy": [{"name": "warm", "strategy": "workload_stabilization"}]}
    base = {"hosts": 4, "instances": 8}
    sweep = read_sweep({"base": base, "axes": axes, "horizon_h": 2, "past_h": 2, "series": True})
    run_cell(Ground(sweep.scenario, sweep.origin), sweep.cells[0])


def main() -> None:
    """Compile and cache on disk everything that is compiled at first use."""
    begin = time.perf_counter()
    from trimtab.strategies.warm import warm

    warm()
    rehearse_once()
    whatif_once()
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot  # noqa: F401 (its import builds the font cache)

    print(f"kernels compiled and cached in {time.perf_counter() - begin:.1f} s")  # noqa: T201


if __name__ == "__main__":
    main()
