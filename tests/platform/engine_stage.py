"""A stage for engines: a real store and the installed plug-ins, a small model, and one virtual clock for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from trimtab.platform.clocks import VirtualClock
from trimtab.platform.compute import run_batch
from trimtab.platform.contracts import Ran
from trimtab.platform.engine import Frozen, Parts, serve_audits
from trimtab.platform.lease import cancelled
from trimtab.platform.model import ClusterModel
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Limits
from trimtab.platform.records import Action, ActionPlan, Audit, Event, Goal, Strategy
from trimtab.platform.snapshot import Snapshot
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.state import Store
from trimtab.simulator.estate import build_estate
from trimtab.simulator.rehearse import rehearse

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODEL = ClusterModel.from_arrow(*build_estate(4, 20, seed=2))


@dataclass
class Taking:
    """Computes here, and takes so many seconds of a clock for it."""

    clock: VirtualClock
    seconds: float

    async def map(
        self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any], estimated_s: float
    ) -> list[Ran]:
        del estimated_s
        await self.clock.sleep(self.seconds)
        return run_batch(function, shared, items, "here")


@dataclass
class Stage:
    """What a test works with; times are seconds since the beginning."""

    clock: VirtualClock = field(default_factory=lambda: VirtualClock(START.timestamp()))
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store(None, self.moment)
        for name, strategy in (("dummy", "dummy"), ("unclassified", "actuator"), ("server_consolidation", "basic")):
            goal = self.store.create(Goal(uuid=str(uuid4()), name=name, display_name=name))
            row = Strategy(uuid=str(uuid4()), name=strategy, display_name=strategy, goal_id=goal.id)
            self.store.create(row)

    @property
    def port(self) -> StorePort:
        return StorePort.direct(self.store)

    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)

    def at(self, seconds: float) -> datetime:
        return START + timedelta(seconds=seconds)

    def since(self, moment: datetime | None) -> float:
        """A moment as seconds since the beginning, to a tenth."""
        assert moment is not None
        return round((moment - START).total_seconds(), 1)

    def audit(self, kind: str = "ONESHOT", **fields: Any) -> str:
        """The uuid of a new audit with the dummy strategy."""
        goal = self.store.get(Goal, fields.pop("goal", "dummy"))
        strategy = self.store.get(Strategy, fields.pop("strategy", "dummy"))
        wanted: dict[str, Any] = {"state": "PENDING", "name": str(uuid4()), "goal_id": goal.id}
        wanted |= {"strategy_id": strategy.id, "interval": "60" if kind == "CONTINUOUS" else None, **fields}
        return self.store.create(Audit(uuid=str(uuid4()), audit_type=kind, **wanted)).uuid

    def busy_plan(self, state: str = "ONGOING") -> str:
        """The uuid of somebody else's plan."""
        return self.store.create(ActionPlan(uuid=str(uuid4()), audit_id=99, strategy_id=1, state=state)).uuid

    def of(self, uuid: str) -> Audit:
        return self.store.get(Audit, uuid)

    def plans(self, uuid: str) -> list[ActionPlan]:
        return self.store.list(ActionPlan, {"audit_id": self.of(uuid).id})

    def actions(self, plan: ActionPlan) -> list[Action]:
        return self.store.list(Action, {"action_plan_id": plan.id})

    def events(self, uuid: str) -> list[Event]:
        return self.store.events(record_uuid=uuid)

    def runs(self, uuid: str) -> list[float]:
        """When an audit's strategy was started."""
        return [self.since(event.created_at) for event in self.events(uuid) if event.event == "strategy.start"]

    def parts(self, host: str = "here", takes_s: float = 1.0, **more: Any) -> Parts:
        """An engine on a host; `takes_s`: seconds that a run of an audit without choice takes."""

        async def freeze(*_: Any) -> Frozen:
            snapshot = Snapshot(MODEL, self.clock.now())
            return Frozen(snapshot, snapshot)

        plugins = load()
        parts = Parts(
            self.port, freeze, Taking(self.clock, takes_s / 3), plugins, plugins.planners, rehearse, Limits(1, 20),
            hostname=host, owner=f"engine@{host}", lease_s=30.0, wall=self.clock,
        )  # fmt: skip
        return replace(parts, **more)

    @asynccontextmanager
    async def serving(self, *engines: Parts, wake: asyncio.Event | None = None, **how: Any) -> Any:
        """Engines at work; when the context ends they die, and leave behind what they were at."""
        options = {"idle_s": 5.0, **how}
        wakes = [wake or asyncio.Event() for _ in engines]
        tasks = [
            asyncio.create_task(serve_audits(one, bell, **options)) for one, bell in zip(engines, wakes, strict=True)
        ]
        try:
            yield
            for task in tasks:
                assert not task.done(), task.exception()
        finally:
            await cancelled(tasks)

    async def serve(self, seconds: float, *engines: Parts, **how: Any) -> None:
        """Engines (one, if none is given) at work for so long, or until `until` seconds since the beginning."""
        async with self.serving(*(engines or (self.parts(),)), **how):
            await self.clock.sleep(seconds)
