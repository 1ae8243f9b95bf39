"""Every seam of Trimtab on one page: strategy, goal, cloud, datasource, action handler, rehearsal, compute, clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from trimtab.platform.proposal import Candidate, Limits, Plan
from trimtab.platform.snapshot import Need, Snapshot

T = TypeVar("T")


# -- strategies and goals ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Context:
    """What a strategy may use beside the snapshot: a seed, a deadline, a cancel flag, a way to spread work."""

    seed: int = 0
    deadline_s: float = 600.0
    cancelled: Callable[[], bool] = lambda: False
    map: Callable[..., Any] = map

    def random(self) -> np.random.Generator:
        """A fresh generator; the same for the same seed."""
        return np.random.default_rng(self.seed)


@runtime_checkable
class Strategy(Protocol):
    """One way to reach a goal. Pure: no clock, network or Ray; the same snapshot and seed give the same candidates."""

    name: ClassVar[str]
    display_name: ClassVar[str]
    goal: ClassVar[str]
    parameters: ClassVar[type[BaseModel]]
    models: ClassVar[tuple[str, ...]]

    def needs(self, parameters: Any) -> Sequence[Need]:
        """What must be measured before `propose`."""
        ...

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Parameter sets worth trying when an audit does not name this strategy; the first are the defaults: {}."""
        ...

    def propose(self, snapshot: Snapshot, parameters: Any, context: Context) -> Sequence[Candidate]:
        """Zero or more candidates.

        Raises:
            StrategyError: this snapshot cannot be worked on at all.
        """
        ...


class Indicator(NamedTuple):
    """One efficacy indicator of a goal; `schema` is a JSON schema as text, as on the wire."""

    name: str
    description: str
    schema: str | None = None
    unit: str | None = None

    def wire(self) -> dict[str, Any]:
        """As the API shows it."""
        return {"name": self.name, "description": self.description, "unit": self.unit, "schema": self.schema}


@dataclass(frozen=True, slots=True)
class Goal:
    """What an audit wants. `ordering` are score fields, most important first, smaller is better; empty = not scored.

    `global_efficacy` turns indicator values into the plan's headline figures. `weighed`: moves that bring less
    than they cost may be left out (see `worth`); not where what is asked for is done whatever it costs.
    """

    name: str
    display_name: str
    indicators: tuple[Indicator, ...] = ()
    ordering: tuple[str, ...] = ()
    global_efficacy: Callable[[Mapping[str, float]], list[dict[str, Any]]] = lambda _: []
    weighed: bool = False


# -- scoring engines ---------------------------------------------------------------------------


@runtime_checkable
class ScoringEngine(Protocol):
    """Turns features into a score, text in and text out; `metainfo` says how to write the ones and read the other."""

    name: str
    description: str
    metainfo: str

    def calculate_score(self, features: str) -> str:
        """The score.

        Raises:
            InvalidInput: the features cannot be read.
        """
        ...


@runtime_checkable
class ScoringEngineContainer(Protocol):
    """Gives several scoring engines, which need not be the same every time."""

    @classmethod
    def get_scoring_engine_list(cls) -> Sequence[ScoringEngine]:
        """The engines there are now."""
        ...


# -- rehearsal ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Score:
    """What a rehearsal (or the world itself) says of a plan; formulas, units and horizons: `docs/scores.md`."""

    duration_s: float = 0.0
    moves: int = 0
    moved_gib: float = 0.0
    overload_min_during: float = 0.0
    overload_min_after: float = 0.0
    energy_kwh: float = 0.0
    slatah: float = 0.0
    pdm: float = 0.0
    cpu_sd_pp: float = 0.0
    hosts_in_use: int = 0
    rules_broken: int = 0


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A plan, its score, and what went wrong in it (hard rules broken: empty for a sound plan)."""

    score: Score
    violations: tuple[str, ...] = ()


class Rehearse(Protocol):
    """Simulates one plan on a snapshot, forecasting from its recorded load."""

    def __call__(self, snapshot: Snapshot, plan: Plan, limits: Limits, seed: int) -> Rehearsal:
        """Score the plan."""
        ...


class Planner(Protocol):
    """Turns a candidate into a graph of actions.

    Raises:
        PlanError: no safe order exists.
    """

    def __call__(self, model: Any, candidate: Candidate, limits: Limits) -> Plan:
        """Order the candidate's steps."""
        ...


class Ran(NamedTuple):
    """A result and where it was computed. `error` is set instead of `value` when the function raised."""

    value: Any
    node: str
    worker: str
    seconds: float
    error: str | None = None


class Compute(Protocol):
    """Runs one pure function over many items on shared data; in this process or on Ray, with the same results."""

    async def map(
        self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any], estimated_s: float
    ) -> list[Ran]:
        """`function(shared, item)` for every item, in order; `shared` may be a reference the runtime understands."""
        ...


# -- the cloud ---------------------------------------------------------------------------------


class Inventory(NamedTuple):
    """What a cloud says of itself, as the tables of `trimtab.platform.model`; `at` is cloud time.

    `storage` are nodes, pools, volume types and volumes as `StorageModel.from_arrow` takes them, `metal` the table of
    `BaremetalModel.from_arrow`; None where the cloud has no such service or could not read it, and then `faults` says
    why: pairs of "storage" or "baremetal" and the reason. `notes` are told with every snapshot: what was left out.
    """

    hosts: pa.Table
    instances: pa.Table
    groups: pa.Table
    at: float
    storage: tuple[pa.Table, pa.Table, pa.Table, pa.Table] | None = None
    metal: pa.Table | None = None
    faults: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


class Server(NamedTuple):
    """One instance as the cloud knows it now. `task_state` is "" when the cloud is not busy with it.

    `flavor` is the name of its flavor, "" where the cloud does not tell.
    """

    id: str
    host: str
    status: str  # ACTIVE, PAUSED, SHUTOFF, ERROR, VERIFY_RESIZE, ...
    task_state: str = ""
    flavor: str = ""


class ServiceInfo(NamedTuple):
    """The compute service of a host."""

    host: str
    enabled: bool
    up: bool
    disabled_reason: str = ""


class Migration(NamedTuple):
    """One migration or resize as the cloud recorded it. `status`: running | completed | failed | aborted.

    `kind` is "migration" or "resize"; a resize may have the same host as source and destination. `live`: the guest ran
    meanwhile.
    """

    id: str
    server_id: str
    source: str
    destination: str
    status: str
    started_at: float
    ended_at: float | None = None
    reason: str = ""
    kind: str = "migration"
    live: bool = True


class Wanted(NamedTuple):
    """A migration that is thought of: a server and the name of a host; not `now` when others must make room first."""

    server_id: str
    destination: str
    now: bool = True


class Flavor(NamedTuple):
    """One size of server; memory in MB, disk in GB."""

    id: str
    name: str
    vcpus: float
    memory_mb: float
    disk_gb: float


class Volume(NamedTuple):
    """One volume as the cloud knows it now. `pool` is "" when it is on none; `updated_at` is cloud time.

    `migration_status` is "migrating" until nothing of the move is left (a shadow volume included), then "success" or
    "error"; "" when it never moved. `status` is "retyping" while its type changes.
    """

    id: str
    name: str
    pool: str
    status: str  # available, in-use, retyping, maintenance, error, ...
    migration_status: str
    type: str
    size_gb: float
    attached_to: tuple[str, ...] = ()
    updated_at: float = 0.0


class Pool(NamedTuple):
    """One storage pool, host@backend#pool. `reports`: its capabilities by name, `volume_backend_name` among them."""

    name: str
    free_gb: float  # NaN = unknown, inf = without limit
    reports: Mapping[str, str]


class VolumeType(NamedTuple):
    """One volume type and what it asks of a pool."""

    name: str
    extra_specs: Mapping[str, str]


class MetalNode(NamedTuple):
    """One metal node. `power`: on | off | unknown; `target`: what it is turning to, "" when it is not turning.

    `error` is what the last failed change of power left behind, `changed_at` the cloud time of the last request or
    change.
    """

    id: str
    name: str
    hostname: str  # of the compute host that runs on it; "" = none
    power: str
    target: str = ""
    error: str = ""
    maintenance: bool = False
    changed_at: float = 0.0


class Driver(Protocol):
    """The port to a cloud. Every request may be asked again: the cloud refuses what is already under way or done.

    Raises (all methods):
        CloudNotFound, CloudConflict: final for this request. CloudUnavailable: ask again.
    """

    async def inventory(self) -> Inventory:
        """Hosts, instances and server groups, in bulk."""
        ...

    async def servers(self, ids: Sequence[str]) -> dict[str, Server]:
        """Those of the named servers that exist."""
        ...

    async def service(self, host: str) -> ServiceInfo | None:
        """The compute service on a host; None when there is none."""
        ...

    async def migrate(self, server_id: str, destination: str | None, *, live: bool) -> None:
        """Ask for a migration; returns once the cloud accepted it."""
        ...

    async def migrations(self, server_id: str) -> list[Migration]:
        """All migrations the cloud recorded for a server, oldest first."""
        ...

    async def abort_migration(self, server_id: str) -> None:
        """Ask to abort the running live migration of a server."""
        ...

    async def refusals(self, wanted: Sequence[Wanted]) -> list[str]:
        """Why each migration would be refused, alone and now; "" where nothing speaks against it. Changes nothing.

        Of those that are not for now only what does not depend on room is looked at.
        """
        ...

    async def set_service(self, host: str, *, enabled: bool, reason: str = "") -> ServiceInfo:
        """Enable or disable the compute service on a host."""
        ...

    # -- servers: power and size --

    async def residents(self, host: str) -> list[Server]:
        """All servers on a host, by its name, running or not."""
        ...

    async def stop(self, server_id: str) -> None:
        """Ask for a server to be shut down (ACTIVE -> SHUTOFF)."""
        ...

    async def start(self, server_id: str) -> None:
        """Ask for a stopped server to be started (SHUTOFF -> ACTIVE)."""
        ...

    async def flavors(self, names: Sequence[str]) -> dict[str, Flavor]:
        """Those of the flavors that exist, by the id or else the name they were asked for by."""
        ...

    async def resize(self, server_id: str, flavor: str) -> None:
        """Ask for another flavor, by its id; the server ends in VERIFY_RESIZE, here or on another host."""
        ...

    async def confirm_resize(self, server_id: str) -> None:
        """Ask for a server in VERIFY_RESIZE to stay as it is now; frees what it had before."""
        ...

    # -- storage --

    async def volumes(self, ids: Sequence[str]) -> dict[str, Volume]:
        """Those of the named volumes that exist."""
        ...

    async def pools(self) -> list[Pool]:
        """All storage pools."""
        ...

    async def volume_types(self) -> list[VolumeType]:
        """All volume types."""
        ...

    async def migrate_volume(self, volume_id: str, pool: str) -> None:
        """Ask for a volume to be moved to a pool, by its name; returns once the cloud accepted it."""
        ...

    async def retype_volume(self, volume_id: str, volume_type: str) -> None:
        """Ask for another type; the volume moves where the type needs another pool ("on-demand")."""
        ...

    # -- metal --

    async def metal_node(self, node_id: str) -> MetalNode | None:
        """One metal node; None when there is none."""
        ...

    async def set_power(self, node_id: str, *, on: bool) -> None:
        """Ask for a metal node to be turned on or off; returns once the cloud accepted it."""
        ...


class Datasource(Protocol):
    """Where measurements come from, in bulk; what was not measured has no row."""

    @property
    def name(self) -> str:
        """As operators know it."""
        ...

    async def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        """Columns need (int32 position in `needs`), resource (uuid), value; one row per measured resource."""
        ...

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """Columns resource, at (cloud time, s), value: the raw samples of all resources with start <= at < end."""
        ...


# -- time --------------------------------------------------------------------------------------


class Clock(Protocol):
    """Time as a parameter: wall time, virtual time or the cloud's own."""

    def now(self) -> float:
        """Seconds since the epoch, by this clock."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds of this clock."""
        ...

    def every(self, seconds: float, at_most: float) -> AsyncIterator[float]:
        """Tick at once and then every so many seconds, until `at_most` seconds are over; yields the time passed."""
        ...


# -- actions -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tools:
    """What an action handler may use: the cloud, the cloud's clock, the wall clock, and patience.

    `memory` is what handlers remember for the way back; it lives as long as the process.
    """

    cloud: Driver
    clock: Clock
    wall: Clock
    poll_s: float = 5.0
    deadline_s: float = 900.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)


class ActionHandler(Protocol):
    """How one action type is done. Parameters are validated by `schema` before anything else.

    Raises (all phases):
        ActionSkipped: it no longer applies. ActionFailed: it did not work.
    """

    action_type: ClassVar[str]
    description: ClassVar[str]
    schema: ClassVar[type[BaseModel]]

    def __init__(self, tools: Tools) -> None: ...

    async def pre_condition(self, wanted: Any) -> None:
        """Check that it still makes sense."""
        ...

    async def execute(self, wanted: Any, *, asked_at: float | None) -> None:
        """Do it, or find out that it is done. `asked_at`: cloud time of an earlier try that was interrupted."""
        ...

    async def post_condition(self, wanted: Any) -> None:
        """Check the result."""
        ...

    async def revert(self, wanted: Any) -> None:
        """Undo it."""
        ...

    async def abort(self, wanted: Any) -> bool:
        """Stop it while it runs; False when it cannot be stopped."""
        ...
