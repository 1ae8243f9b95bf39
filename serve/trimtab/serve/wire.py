"""Records as Watcher's API shows them: field names, links and times."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from trimtab.platform.records import (
    Action,
    ActionPlan,
    Audit,
    AuditTemplate,
    CandidateRecord,
    Goal,
    Record,
    ScoringEngine,
    Service,
    Strategy,
    WhatIf,
)
from trimtab.platform.store.views import Related
from trimtab.serve.microversions import Version, shown

Body = dict[str, Any]
TIMESTAMPS = ("created_at", "updated_at", "deleted_at")


def aware(moment: datetime | None) -> str | None:
    """Row times: ISO 8601 with offset, whole seconds."""
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None


def naive(moment: datetime | None) -> str | None:
    """Schedule times: ISO 8601, UTC without offset."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") if moment else None


def links(base: str, collection: str, ident: str | int) -> list[Body]:
    """The two links of every object."""
    return [
        {"href": f"{base}/v1/{collection}/{ident}", "rel": "self"},
        {"href": f"{base}/{collection}/{ident}", "rel": "bookmark"},
    ]


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
    fields: Callable[[Any, Related], Body]
    timestamps: bool = True
    sort_keys: tuple[str, ...] = ()  # computed keys, beside the columns
    marker: Literal["uuid", "text", "integer"] = "uuid"  # what it must look like
    ident: str = "uuid"  # what links and markers know an object by

    def show(self, row: Record, related: Related, base: str, version: Version) -> Body:
        """The whole object."""
        return shown(self.kind.kind, self._whole(row, related, base), version)

    def line(self, row: Record, related: Related, base: str, version: Version) -> Body:
        """The object as a line of the short list."""
        ident, known = getattr(row, self.ident), self.fields(row, related)
        short = {self.ident: ident}
        for name in self.brief:
            short[name] = known[name] if name in known else aware(getattr(row, name))
        short["links"] = links(base, self.collection, ident)
        if self.kind is Audit:
            short["force"] = False  # Watcher's short list never knew it
        return shown(self.kind.kind, short, version)

    def _whole(self, row: Record, related: Related, base: str) -> Body:
        ident = getattr(row, self.ident)
        body = {self.ident: ident, **self.fields(row, related), "links": links(base, self.collection, ident)}
        if self.timestamps:
            body |= {name: aware(getattr(row, name)) for name in TIMESTAMPS}
        return body


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

GOALS = Resource("goals", Goal, ("name", "display_name", "efficacy_specification"), _goal, marker="text")
STRATEGIES = Resource(
    "strategies",
    Strategy,
    ("name", "display_name", *_BY_GOAL),
    _strategy,
    timestamps=False,
    sort_keys=_BY_GOAL,
    marker="text",
)
AUDIT_TEMPLATES = Resource(
    "audit_templates",
    AuditTemplate,
    ("name", *_BY_GOAL, *_BY_STRATEGY, "scope"),
    _audit_template,
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
    sort_keys=(*_BY_GOAL, *_BY_STRATEGY),
)
ACTION_PLANS = Resource(
    "action_plans",
    ActionPlan,
    ("state", "audit_uuid", *_BY_STRATEGY, "efficacy_indicators", "global_efficacy", "updated_at"),
    _action_plan,
    sort_keys=("audit_uuid", *_BY_STRATEGY),
)
ACTIONS = Resource(
    "actions",
    Action,
    ("action_plan_uuid", "state", "action_type", "parents"),
    _action,
    sort_keys=("action_plan_uuid",),
)

SCORING_ENGINES = Resource(
    "scoring_engines",
    ScoringEngine,
    ("name", "description"),
    _scoring_engine,
    timestamps=False,
    marker="text",
)

WHATIFS = Resource(
    "whatifs",
    WhatIf,
    ("name", "state", "cells_total", "cells_done", "cells_failed", "seconds_left"),
    _whatif,
)

SERVICES = Resource(
    "services",
    Service,
    ("name", "host", "status"),
    lambda row, _: {"name": row.name, "host": row.host},  # the rest depends on the time: see services.py
    marker="integer",
    ident="id",
)

UUID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


def is_uuid(text: str) -> bool:
    """Whether a path segment or filter value looks like a uuid."""
    return UUID.fullmatch(text) is not None
