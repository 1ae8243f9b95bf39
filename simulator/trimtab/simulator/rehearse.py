"""The rehearsal: plays a plan's graph of actions in the event core, on load forecast from what was recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab.platform.contracts import Rehearsal
from trimtab.platform.model import DISK, MEMORY, VCPU, ClusterModel
from trimtab.platform.planner import durations
from trimtab.platform.proposal import Limits, Plan
from trimtab.platform.snapshot import Snapshot
from trimtab.simulator.events import Events
from trimtab.simulator.forecast import Forecast
from trimtab.simulator.migration import GIB_MB, Physics
from trimtab.simulator.other_actions import OtherActions
from trimtab.simulator.plan_run import PlanRun
from trimtab.simulator.power import Power
from trimtab.simulator.score import Window, score
from trimtab.simulator.world import World

HORIZON_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What an operator believes of the cloud's migrations; nobody tells a rehearsal the truth.

    `nic_mb_s`: network for migrations per host. `dirty_mb_s`: memory a running instance dirties. `disk_share`: how much
    of its disk a cold migration copies. `setup_s`: before copying. `downtime_s`: longest stop. `notice_s`: until the
    applier has seen that a migration ended (half its polling interval). `service_s`: to enable or disable a service.
    """

    nic_mb_s: float = durations.NIC_MB_S
    dirty_mb_s: float = durations.DIRTY_MB_S
    disk_share: float = durations.DISK_SHARE
    setup_s: float = durations.SETUP_S
    downtime_s: float = durations.DOWNTIME_S
    notice_s: float = durations.NOTICE_S
    service_s: float = 1.0

    def physics(self, model: ClusterModel) -> Physics:
        """The same for every host and instance."""
        return Physics(
            np.full(model.hosts, self.nic_mb_s),
            np.full(model.instances, self.dirty_mb_s),
            np.ascontiguousarray(model.demand[:, MEMORY]),
            model.demand[:, DISK] * GIB_MB * self.disk_share,
            self.setup_s,
            self.downtime_s,
        )


ASSUMPTIONS = Assumptions()


def rehearse(
    snapshot: Snapshot,
    plan: Plan,
    limits: Limits,
    seed: int,
    horizon_s: float = HORIZON_S,
    assumptions: Assumptions = ASSUMPTIONS,
) -> Rehearsal:
    """Score a plan from the moment of the snapshot until the horizon; an empty plan is doing nothing.

    Pure and deterministic. The forecast has no random part, so `seed` changes nothing today; it is the contract's.

    Args:
        snapshot: model, measurements and recorded load.
        plan: the graph of actions, as the applier would run it.
        limits: migrations in flight, per host (either end) and in total.
        seed: for forecasts with a random part.
        horizon_s: how long to look ahead.
        assumptions: what migrations cost.
    """
    del seed
    model, start = snapshot.model, snapshot.taken_at
    world = World(model, Events(start), assumptions.physics(model))
    others = OtherActions(world, snapshot.storage)
    run = PlanRun(world, plan, limits, assumptions.notice_s, assumptions.service_s, others)
    run.start()
    world.events.run_until(start + horizon_s)
    if run.open:
        run.violations.append(
            f"{run.open} of {len(plan.actions)} actions have not ended after {horizon_s / 3600:g} hours"
        )
    forecast = Forecast.of(snapshot)
    window = Window(start, start + horizon_s, start, run.last_end if not run.open else start + horizon_s)
    power = Power.of(model.total[:, VCPU])
    result = score(model, world.timeline(), forecast.blocks, power, window)
    return Rehearsal(result, tuple(run.violations))
