"""What the engine works with: the store, snapshots, workers, plug-ins, clocks; wired in the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from trimtab.platform.clocks import WallClock
from trimtab.platform.contracts import Clock, Compute, Planner, Rehearse, Wanted
from trimtab.platform.plugins import Plugins
from trimtab.platform.proposal import Limits
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.platform.store.port import StorePort


class Frozen(NamedTuple):
    """A snapshot to look at here, and the same one in the form that `Compute.map` takes as `shared`."""

    snapshot: Snapshot
    shared: Any


# How the engine gets a snapshot of (scope, needs, instances that failed before, models): see
# `collector.Collector.freeze`.
Freeze = Callable[[Sequence[Mapping[str, Any]], Sequence[Need], Sequence[str], Sequence[str]], Awaitable[Frozen]]


class Tell(Protocol):
    """Where the engine counts what it does (Ray metrics, or nothing)."""

    def __call__(self, what: str, value: float, **labels: str) -> None:
        """Count or observe one thing."""
        ...


async def leave_as_it_is() -> None:
    """The newest model is new enough."""


async def nothing_against(wanted: Sequence[Wanted]) -> Sequence[str]:
    """A cloud that nobody asks."""
    return [""] * len(wanted)


def silent(what: str, value: float, **labels: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine works with; wired in the composition root."""

    store: StorePort
    freeze: Freeze
    compute: Compute
    plugins: Plugins
    planners: Mapping[str, Planner]
    rehearse: Rehearse
    limits: Limits
    seed: int = 0
    hostname: str = "trimtab"
    owner: str = "engine"  # who claims audits; another name for every process
    lease_s: float = 30.0
    tell: Tell = silent
    weigh: bool = True  # leave out moves that cost more than they bring
    wall: Clock = field(default_factory=WallClock)
    refresh: Callable[[], Awaitable[object]] = leave_as_it_is  # have the cloud collected now
    refusals: Callable[[Sequence[Wanted]], Awaitable[Sequence[str]]] = nothing_against  # see `contracts.Driver`
    down_after_s: float = 90.0  # seconds without a sign of life until another engine counts as gone

    def now(self) -> datetime:
        """The moment by the wall clock, aware UTC."""
        return datetime.fromtimestamp(self.wall.now(), UTC)
