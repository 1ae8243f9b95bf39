"""Stored things as frozen data: one class a table, with all the columns Watcher's tables have and ours on top."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, TypeVar

Json = dict[str, Any]
R = TypeVar("R", bound="Record")


class Packed:
    """Where a record keeps itself as bytes."""

    __slots__ = ("_bytes",)
    _bytes: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Packed):
    """What every row has. Times are aware UTC; `deleted` is 0 for a live row, else the row's own id.

    Records of a kind that is `often_shown` are small, and lists and other records show the same ones again and again;
    of the others there may be many, and large ones.
    """

    kind: ClassVar[str]
    often_shown: ClassVar[bool] = False

    id: int = 0  # given by the store
    uuid: str
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    deleted: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as plain values: many rows go from process to process, and slots one by one are three times slower.

        What is shown often travels as bytes, made once; who gets the same bytes again has the same record again.
        """
        if not self.often_shown:
            return made, (type(self), _slots(type(self)).values(self))
        if not hasattr(self, "_bytes"):
            plain = (type(self), _slots(type(self)).values(self))
            object.__setattr__(self, "_bytes", pickle.dumps(plain, pickle.HIGHEST_PROTOCOL))
        return unpacked, (self._bytes,)


class _Slots(NamedTuple):
    values: Callable[[Record], tuple[Any, ...]]
    setters: Sequence[Callable[[Record, Any], None]]


_KNOWN: dict[type[Record], _Slots] = {}


def _slots(kind: type[Record]) -> _Slots:
    if kind not in _KNOWN:
        names = [one.name for one in fields(kind)]
        _KNOWN[kind] = _Slots(attrgetter(*names), [getattr(kind, name).__set__ for name in names])
    return _KNOWN[kind]


def made(kind: type[R], values: Sequence[Any]) -> R:
    """The record with these values, one for each field in their order; much faster than keywords."""
    record = object.__new__(kind)
    for put, value in zip(_slots(kind).setters, values, strict=True):
        put(record, value)
    return record


@lru_cache(20_000)
def unpacked(packed: bytes) -> Record:
    """The record with these values; the same one for the same bytes, for as long as it is remembered."""
    kind, values = pickle.loads(packed)
    return made(kind, values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal(Record):
    """A goal of the catalogue."""

    kind: ClassVar[str] = "goal"
    often_shown: ClassVar[bool] = True
    name: str
    display_name: str
    efficacy_specification: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy(Record):
    """A strategy of the catalogue."""

    kind: ClassVar[str] = "strategy"
    often_shown: ClassVar[bool] = True
    name: str
    display_name: str
    goal_id: int
    parameters_spec: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTemplate(Record):
    """A reusable description of audits."""

    kind: ClassVar[str] = "audit_template"
    often_shown: ClassVar[bool] = True
    name: str
    description: str | None = None
    goal_id: int
    strategy_id: int | None = None
    scope: list[Json] = field(default_factory=list)
    default_parameters: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimable(Record):
    """A row that one worker at a time may own: compare-and-set on `epoch`, valid until `lease_until`."""

    state: str
    hostname: str | None = None
    status_message: str | None = None
    owner: str | None = None
    lease_until: datetime | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit(Claimable):
    """One request to look at the cloud with a goal in mind."""

    kind: ClassVar[str] = "audit"
    often_shown: ClassVar[bool] = True
    name: str
    audit_type: str
    parameters: Json = field(default_factory=dict)
    interval: str | None = None
    goal_id: int
    strategy_id: int | None = None
    scope: list[Json] = field(default_factory=list)
    auto_trigger: bool = False
    next_run_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    force: bool = False
    triggered_at: datetime | None = None  # when the webhook of an EVENT audit was called; None once the run begins


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionPlan(Claimable):
    """What an audit recommends; `rehearsed` and `measured` hold score fields; `notes` say what planning left out."""

    kind: ClassVar[str] = "action_plan"
    often_shown: ClassVar[bool] = True
    audit_id: int
    strategy_id: int
    candidate: int = 0  # number of the candidate it was made from
    global_efficacy: list[Json] = field(default_factory=list)
    rehearsed: Json = field(default_factory=dict)
    measured: Json = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rolls_back: str | None = None  # uuid of the plan that this one undoes
    settled: bool = False  # nothing more is to be measured of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Action(Record):
    """One step of a plan. `needs_room_of`: parents (uuids) whose leaving makes room for this action."""

    kind: ClassVar[str] = "action"
    action_plan_id: int
    action_type: str
    input_parameters: Json = field(default_factory=dict)
    state: str
    parents: list[str] = field(default_factory=list)
    needs_room_of: list[str] = field(default_factory=list)
    status_message: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Record):
    """Why an action is in its plan, as `explain.reason_to_json` writes it; `uuid` is the action's own."""

    kind: ClassVar[str] = "explanation"
    action_plan_id: int
    reason: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficacyIndicator(Record):
    """One measured-at-planning-time figure of a plan."""

    kind: ClassVar[str] = "efficacy_indicator"
    action_plan_id: int
    name: str
    description: str | None = None
    unit: str | None = None
    data: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRecord(Record):
    """What one strategy with one set of parameters proposed to an audit, what the rehearsal said, and its fate."""

    kind: ClassVar[str] = "candidate"
    audit_id: int
    number: int
    strategy_name: str
    parameters: Json = field(default_factory=dict)
    verdict: str  # chosen | ranked | rejected | failed
    rank: int | None = None
    reason: str | None = None
    because: str = ""
    indicators: Json = field(default_factory=dict)
    score: Json = field(default_factory=dict)
    steps: list[Json] = field(default_factory=list)
    planner: str = "capacity"  # who orders the steps
    node: str = ""
    worker: str = ""
    propose_s: float = 0.0
    rehearse_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringEngine(Record):
    """A scoring engine of the catalogue."""

    kind: ClassVar[str] = "scoring_engine"
    often_shown: ClassVar[bool] = True
    name: str
    description: str | None = None
    metainfo: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Record):
    """A running part of Trimtab, by name and host."""

    kind: ClassVar[str] = "service"
    name: str
    host: str
    last_seen_up: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionDescription(Record):
    """What an action type does, in words."""

    kind: ClassVar[str] = "action_description"
    action_type: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Record):
    """One thing that happened to a record; written in the transaction that made it happen."""

    kind: ClassVar[str] = "event"
    record_kind: str
    record_uuid: str
    event: str
    old_state: str | None = None
    new_state: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed(Record):
    """How far one reader of the events has come: the id of the last event it is done with."""

    kind: ClassVar[str] = "feed"
    name: str
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf(Claimable):
    """A sweep of simulations; its results are Parquet parts in the state's folder, under its uuid."""

    kind: ClassVar[str] = "what_if"
    name: str
    scenario: Json = field(default_factory=dict)
    cells_total: int = 0
    cells_done: int = 0
    cells_failed: int = 0
    seconds_left: float | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


RECORDS: Mapping[str, type[Record]] = {
    cls.kind: cls
    for cls in (
        Goal,
        Strategy,
        AuditTemplate,
        Audit,
        ActionPlan,
        Action,
        Explanation,
        EfficacyIndicator,
        CandidateRecord,
        ScoringEngine,
        Service,
        ActionDescription,
        Event,
        Feed,
        WhatIf,
    )
}
