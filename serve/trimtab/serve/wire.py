"""Records as Watcher's API shows them: field names, links, times, and which microversion shows which field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from trimtab.platform.records import (
    Action,
    ActionPlan,
    Audit,
    AuditTemplate,
    CandidateRecord,
    EfficacyIndicator,
    Goal,
    Record,
    ScoringEngine,
    Strategy,
    WhatIf,
)

Body = dict[str, Any]


class Version(NamedTuple):
    """An API microversion."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


LOWEST, HIGHEST = Version(1, 0), Version(1, 7)

# The one place that says since when a field is shown.
SINCE: Mapping[tuple[str, str], Version] = {
    ("audit", "start_time"): Version(1, 1),
    ("audit", "end_time"): Version(1, 1),
    ("audit", "status_message"): Version(1, 5),
    ("action_plan", "status_message"): Version(1, 5),
    ("action", "status_message"): Version(1, 5),
    ("audit_template", "default_parameters"): Version(1, 7),
}


class VersionError(Exception):
    """The client asks for a version this service does not speak; `known_major` tells which headers to send."""

    def __init__(self, message: str, *, announce: bool) -> None:
        super().__init__(message)
        self.announce = announce


def negotiate(header: str | None) -> Version:
    """The version a request is answered in.

    Raises:
        VersionError: the version asked for is not served (406).
    """
    wanted = _asked_for(header or "")
    if wanted is None or wanted == "1":
        return LOWEST
    if wanted.lower() == "latest":
        return HIGHEST
    parts = wanted.split(".")
    if not all(part.isdigit() for part in parts):
        return LOWEST
    if len(parts) != 2:
        raise VersionError(f"Invalid value for OpenStack-API-Version header: {wanted}", announce=False)
    major, minor = int(parts[0]), int(parts[1])
    served = f"The supported version range is: [{LOWEST}, {HIGHEST}]."
    if major != HIGHEST.major:
        raise VersionError(
            f"Mutually exclusive versions requested. Version {wanted} requested "
            f"but not supported by this service. {served}",
            announce=True,
        )
    if minor > HIGHEST.minor:
        raise VersionError(
            f"Version {wanted} was requested but the minor version is not supported by this service. {served}",
            announce=True,
        )
    return Version(major, minor)


def _asked_for(header: str) -> str | None:
    for entry in header.split(","):
        words = entry.split()
        if words and words[0] == "infra-optim":
            return words[1] if len(words) > 1 else None
    return None


def aware(moment: datetime | None) -> str | None:
    """Row times: ISO 8601 with offset, whole seconds."""
    return moment.astimezone(UTC).replace(microsecond=0).isoformat() if moment else None


def naive(moment: datetime | None) -> str | None:
    """Schedule times: ISO 8601, UTC without offset."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() if moment else None


def links(base: str, collection: str, ident: str) -> list[Body]:
    """The two links of every object."""
    return [
        {"href": f"{base}/v1/{collection}/{ident}", "rel": "self"},
        {"href": f"{base}/{collection}/{ident}", "rel": "bookmark"},
    ]


@dataclass(frozen=True, slots=True)
class Related:
    """Rows that other rows point at, by id; deleted ones are absent and show as null."""

    goals: Mapping[int, Goal] = field(default_factory=dict)
    strategies: Mapping[int, Strategy] = field(default_factory=dict)
    audits: Mapping[int, Audit] = field(default_factory=dict)
    plans: Mapping[int, ActionPlan] = field(default_factory=dict)
    indicators: Mapping[int, Sequence[EfficacyIndicator]] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)


def _goal(row: Goal, _: Related) -> Body:
    return {"name": row.name, "display_name": row.display_name, "efficacy_specification": row.efficacy_specification}


def _strategy(row: Strategy, related: Related) -> Body:
    return {
        "name": row.name,
        "display_name": row.display_name,
        **_of_goal(row.goal_id, related),
        "parameters_spec": row.parameters_spec,
    }


def _audit_template(row: AuditTemplate, related: Related) -> Body:
    return {
        "name": row.name,
        "description": row.description,
        **_of_goal(row.goal_id, related),
        **_of_strategy(row.strategy_id, related),
        "scope": row.scope,
        "default_parameters": row.default_parameters,
    }


def _audit(row: Audit, related: Related) -> Body:
    return {
        "name": row.name,
        "audit_type": row.audit_type,
        "state": row.state,
        **_of_goal(row.goal_id, related),
        **_of_strategy(row.strategy_id, related),
        "parameters": row.parameters,
        "interval": row.interval,
        "scope": row.scope,
        "auto_trigger": row.auto_trigger,
        "next_run_time": naive(row.next_run_time),
        "hostname": row.hostname,
        "start_time": naive(row.start_time),
        "end_time": naive(row.end_time),
        "force": row.force,
        "status_message": row.status_message,
    }


def _action_plan(row: ActionPlan, related: Related) -> Body:
    audit = related.audits.get(row.audit_id)
    return {
        "audit_uuid": audit.uuid if audit else None,
        **_of_strategy(row.strategy_id, related),
        "state": row.state,
        "efficacy_indicators": [
            {"name": i.name, "description": i.description, "unit": i.unit, "value": float(i.data)}
            for i in related.indicators.get(row.id, ())
        ],
        "global_efficacy": row.global_efficacy,
        "hostname": row.hostname,
        "status_message": row.status_message,
    }


def _action(row: Action, related: Related) -> Body:
    plan = related.plans.get(row.action_plan_id)
    return {
        "action_plan_uuid": plan.uuid if plan else None,
        "state": row.state,
        "action_type": row.action_type,
        "description": related.descriptions.get(row.action_type, ""),
        "input_parameters": row.input_parameters,
        "parents": row.parents,
        "status_message": row.status_message,
    }


def _scoring_engine(row: ScoringEngine, _: Related) -> Body:
    return {"name": row.name, "description": row.description, "metainfo": row.metainfo}


def candidate(row: CandidateRecord) -> Body:
    """A candidate of an audit (not a resource of Watcher's); scores keep their units in their names."""
    return {
        "uuid": row.uuid,
        "number": row.number,
        "strategy_name": row.strategy_name,
        "parameters": row.parameters,
        "verdict": row.verdict,
        "rank": row.rank,
        "reason": row.reason,
        "because": row.because,
        "indicators": row.indicators,
        "score": row.score,
        "steps": len(row.steps),
        "node": row.node,
        "worker": row.worker,
        "propose_s": round(row.propose_s, 6),
        "rehearse_s": round(row.rehearse_s, 6),
    }


def _of_goal(goal_id: int, related: Related) -> Body:
    goal = related.goals.get(goal_id)
    return {"goal_uuid": goal.uuid if goal else None, "goal_name": goal.name if goal else None}


def _of_strategy(strategy_id: int | None, related: Related) -> Body:
    strategy = related.strategies.get(strategy_id) if strategy_id is not None else None
    return {
        "strategy_uuid": strategy.uuid if strategy else None,
        "strategy_name": strategy.name if strategy else None,
    }


@dataclass(frozen=True, slots=True)
class Resource:
    """One collection: its path, its record, and which fields its short list shows (show and detail have all)."""

    collection: str
    kind: type[Record]
    brief: tuple[str, ...]
    fields: Any
    title: str
    timestamps: bool = True
    sort_keys: tuple[str, ...] = ()  # computed keys, beside the columns
    typed_marker: bool = True  # a marker that is no uuid is refused before it is looked for

    def show(self, row: Record, related: Related, base: str, version: Version) -> Body:
        """The whole object."""
        times = (
            {name: aware(getattr(row, name)) for name in ("created_at", "updated_at", "deleted_at")}
            if self.timestamps
            else {}
        )
        whole = {
            "uuid": row.uuid,
            **self.fields(row, related),
            "links": links(base, self.collection, row.uuid),
            **times,
        }
        if self.kind is Audit and version < Version(1, 2):
            whole["force"] = False  # old clients were always told so
        return {n: v for n, v in whole.items() if version >= SINCE.get((self.kind.kind, n), LOWEST)}

    def line(self, row: Record, related: Related, base: str, version: Version) -> Body:
        """The object as a line of the short list."""
        whole = self.show(row, related, base, version)
        short = {n: whole[n] for n in ("uuid", *self.brief, "links") if n in whole}
        if self.kind is Audit:
            short["force"] = False  # Watcher's short list never knew it
        return short


def _whatif(row: WhatIf, _: Related) -> Body:
    return {
        "name": row.name,
        "state": row.state,
        "status_message": row.status_message,
        "cells_total": row.cells_total,
        "cells_done": row.cells_done,
        "cells_failed": row.cells_failed,
        "seconds_left": row.seconds_left,
        "started_at": aware(row.started_at),
        "finished_at": aware(row.finished_at),
        "scenario": row.scenario,
    }


_BY_GOAL = ("goal_uuid", "goal_name")
_BY_STRATEGY = ("strategy_uuid", "strategy_name")

GOALS = Resource("goals", Goal, ("name", "display_name", "efficacy_specification"), _goal, "Goal", typed_marker=False)
STRATEGIES = Resource(
    "strategies",
    Strategy,
    ("name", "display_name", *_BY_GOAL),
    _strategy,
    "Strategy",
    timestamps=False,
    sort_keys=_BY_GOAL,
    typed_marker=False,
)
AUDIT_TEMPLATES = Resource(
    "audit_templates",
    AuditTemplate,
    ("name", *_BY_GOAL, *_BY_STRATEGY, "scope"),
    _audit_template,
    "AuditTemplate",
    sort_keys=(*_BY_GOAL, *_BY_STRATEGY),
)
AUDITS = Resource(
    "audits",
    Audit,
    (
        "name",
        "audit_type",
        "state",
        *_BY_GOAL,
        *_BY_STRATEGY,
        "interval",
        "scope",
        "auto_trigger",
        "next_run_time",
        "force",
    ),
    _audit,
    "Audit",
    sort_keys=(*_BY_GOAL, *_BY_STRATEGY),
)
ACTION_PLANS = Resource(
    "action_plans",
    ActionPlan,
    ("state", "audit_uuid", *_BY_STRATEGY, "efficacy_indicators", "global_efficacy", "updated_at"),
    _action_plan,
    "ActionPlan",
    sort_keys=("audit_uuid", *_BY_STRATEGY),
)
ACTIONS = Resource(
    "actions",
    Action,
    ("action_plan_uuid", "state", "action_type", "parents"),
    _action,
    "Action",
    sort_keys=("action_plan_uuid",),
)

SCORING_ENGINES = Resource(
    "scoring_engines",
    ScoringEngine,
    ("name", "description"),
    _scoring_engine,
    "ScoringEngine",
    timestamps=False,
    typed_marker=False,
)

WHATIFS = Resource(
    "whatifs",
    WhatIf,
    ("name", "state", "cells_total", "cells_done", "cells_failed", "seconds_left"),
    _whatif,
    "WhatIf",
)

UUID = re.compile(r"^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$")


def is_uuid(text: str) -> bool:
    """Whether a path segment or filter value looks like a uuid."""
    return UUID.match(text) is not None
