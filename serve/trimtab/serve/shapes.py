"""The shapes of answers as JSON schemas, for OpenAPI: every field of every collection, and Trimtab's own objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.platform.states import ActionState, AuditState, PlanState, WhatIfState
from trimtab.serve.audit_fields import TYPES
from trimtab.serve.microversions import ABSENT, FIELDS
from trimtab.serve.wire import (
    ACTION_PLANS,
    ACTIONS,
    AUDIT_TEMPLATES,
    AUDITS,
    GOALS,
    SCORING_ENGINES,
    SERVICES,
    STRATEGIES,
    WHATIFS,
    Resource,
)

Schema = dict[str, Any]


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def array(items: Schema) -> Schema:
    """A list of such things."""
    return {"type": "array", "items": items}


def described(schema: Schema, text: str) -> Schema:
    """The same, in words."""
    return {**schema, "description": text}


def record(properties: Mapping[str, Schema], optional: frozenset[str] = frozenset(), *, open_: bool = False) -> Schema:
    """An object with these fields and, unless it is `open_`, no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": open_,
    }


TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {"type": "object"}
UUID: Schema = {"type": "string", "format": "uuid"}
TIME: Schema = or_null({"type": "string", "format": "date-time"})
NAIVE: Schema = described(or_null(TEXT), "UTC without an offset, such as 2030-01-31T22:00:00")
LINK = record({"href": {"type": "string", "format": "uri"}, "rel": TEXT, "type": TEXT}, frozenset({"type"}))
LINKS = array(LINK)
SCOPE = array(ANY)
INDICATOR = record({"name": TEXT, "description": or_null(TEXT), "unit": or_null(TEXT), "value": NUMBER})
SPECIFIED = record({"name": TEXT, "description": TEXT, "unit": or_null(TEXT), "schema": TEXT})
_GOAL = {"goal_uuid": or_null(UUID), "goal_name": or_null(TEXT)}
_STRATEGY = {"strategy_uuid": or_null(UUID), "strategy_name": or_null(TEXT)}
_TIMES = {"created_at": TIME, "updated_at": TIME, "deleted_at": TIME}


def _one_of(states: Any) -> Schema:
    return {"type": "string", "enum": [str(state) for state in states]}


TITLES: Mapping[str, str] = {
    "goals": "Goal",
    "strategies": "Strategy",
    "audit_templates": "AuditTemplate",
    "audits": "Audit",
    "action_plans": "ActionPlan",
    "actions": "Action",
    "services": "Service",
    "scoring_engines": "ScoringEngine",
    "whatifs": "WhatIf",
}
RESOURCES: Mapping[str, Resource] = {
    one.collection: one
    for one in (
        GOALS, STRATEGIES, AUDIT_TEMPLATES, AUDITS, ACTION_PLANS, ACTIONS, SERVICES, SCORING_ENGINES, WHATIFS
    )
}  # fmt: skip
# All fields but links and the times of rows.
_OWN: Mapping[str, Mapping[str, Schema]] = {
    "goals": {"uuid": UUID, "name": TEXT, "display_name": TEXT, "efficacy_specification": array(SPECIFIED)},
    "strategies": {"uuid": UUID, "name": TEXT, "display_name": TEXT, **_GOAL, "parameters_spec": ANY},
    "audit_templates": {
        "uuid": UUID, "name": TEXT, "description": or_null(TEXT), **_GOAL, **_STRATEGY, "scope": SCOPE,
        "default_parameters": ANY,
    },
    "audits": {
        "uuid": UUID, "name": TEXT, "audit_type": _one_of(TYPES), "state": _one_of(AuditState), **_GOAL, **_STRATEGY,
        "parameters": ANY, "interval": or_null(TEXT), "scope": SCOPE, "auto_trigger": FLAG, "next_run_time": NAIVE,
        "hostname": or_null(TEXT), "start_time": NAIVE, "end_time": NAIVE, "force": FLAG,
        "status_message": or_null(TEXT),
    },
    "action_plans": {
        "uuid": UUID, "audit_uuid": or_null(UUID), **_STRATEGY, "state": _one_of(PlanState),
        "efficacy_indicators": array(INDICATOR), "global_efficacy": {"type": "array"}, "hostname": or_null(TEXT),
        "status_message": or_null(TEXT),
    },
    "actions": {
        "uuid": UUID, "action_plan_uuid": or_null(UUID), "state": _one_of(ActionState), "action_type": TEXT,
        "description": TEXT, "input_parameters": ANY, "parents": array(UUID), "status_message": or_null(TEXT),
    },
    "services": {
        "id": WHOLE, "name": TEXT, "host": TEXT, "status": _one_of(("ACTIVE", "FAILED")), "last_seen_up": NAIVE,
    },
    "scoring_engines": {
        "uuid": UUID, "name": TEXT, "description": or_null(TEXT), "metainfo": or_null(TEXT),
    },
    "whatifs": {
        "uuid": UUID, "name": TEXT, "state": _one_of(WhatIfState), "status_message": or_null(TEXT),
        "cells_total": WHOLE, "cells_done": WHOLE, "cells_failed": WHOLE, "seconds_left": or_null(NUMBER),
        "started_at": TIME, "finished_at": TIME, "scenario": ANY,
    },
}  # fmt: skip


def newer(kind: str) -> frozenset[str]:
    """Fields that an old client is not shown."""
    return frozenset(name for (of, name), since in FIELDS.items() if of == kind and since.below is ABSENT)


def _since(kind: str, name: str, schema: Schema) -> Schema:
    since = FIELDS.get((kind, name))
    return schema if since is None else described(schema, f"since microversion {since.version}")


def whole(collection: str) -> Schema:
    """An object of this collection with all fields."""
    resource = RESOURCES[collection]
    kind = resource.kind.kind
    own = {name: _since(kind, name, schema) for name, schema in _OWN[collection].items()}
    return record({**own, "links": LINKS, **(_TIMES if resource.timestamps else {})}, newer(kind))


def line(collection: str) -> Schema:
    """An object of this collection as a line of the short list."""
    resource = RESOURCES[collection]
    fields = whole(collection)["properties"]
    short = {name: fields[name] for name in (resource.ident, *resource.brief, "links")}
    return record(short, newer(resource.kind.kind))


def page(collection: str, rows: Schema) -> Schema:
    """A page of a list."""
    return record({collection: array(rows), "next": {"type": "string", "format": "uri"}}, frozenset({"next"}))


# -- what is no object of a collection -------------------------------------------------------------------

ERROR = record(
    {
        "error_message": described(
            TEXT,
            'JSON again, {"faultcode": "Client", "faultstring": "Goal x could not be found", "debuginfo": null}; '
            "plain text where the path, the method or the microversion is wrong",
        )
    }
)
VERSION = record(
    {"id": TEXT, "status": TEXT, "max_version": TEXT, "min_version": TEXT, "links": LINKS},
)
ROOT = record({"name": TEXT, "description": TEXT, "versions": array(VERSION), "default_version": VERSION})
COLLECTIONS: Schema = {
    "type": "object",
    "properties": {"id": TEXT, "media_types": array(record({"base": TEXT, "type": TEXT})), "links": LINKS},
    "required": ["id", "media_types", "links"],
    "additionalProperties": LINKS,
}
STATE = array(record({"type": TEXT, "state": {}, "mandatory": {"enum": [True, False, ""]}, "comment": TEXT}))
_NODE = {
    "node_uuid": TEXT, "node_hostname": TEXT, "node_status": _one_of(("enabled", "disabled")),
    "node_disabled_reason": or_null(TEXT), "node_state": _one_of(("up", "down")),
    **{f"node_{name}": WHOLE for name in (
        "memory", "memory_mb_reserved", "disk", "disk_gb_reserved", "vcpus", "vcpu_reserved"
    )},
    **{f"node_{name}_ratio": NUMBER for name in ("memory", "vcpu", "disk")},
}  # fmt: skip
_SERVER = {
    "server_uuid": TEXT, "server_watcher_exclude": FLAG, "server_name": TEXT, "server_state": TEXT,
    "server_memory": WHOLE, "server_disk": WHOLE, "server_vcpus": WHOLE, "server_metadata": ANY,
    "server_project_id": TEXT, "server_locked": FLAG, "server_pinned_az": TEXT, "server_flavor_extra_specs": ANY,
}  # fmt: skip
DATA_MODEL = record(
    {
        "context": array(
            record(
                {**{name: _since("data_model", name, one) for name, one in _SERVER.items()}, **_NODE},
                frozenset(_SERVER),
            )
        )
    }
)
_CANDIDATE = {
    "uuid": UUID, "number": WHOLE, "strategy_name": TEXT, "parameters": ANY,
    "verdict": _one_of(("chosen", "ranked", "rejected", "failed")), "rank": or_null(WHOLE), "reason": or_null(TEXT),
    "because": TEXT, "indicators": ANY, "score": ANY, "steps": WHOLE, "node": TEXT, "worker": TEXT,
    "propose_s": NUMBER, "rehearse_s": NUMBER,
}  # fmt: skip
CANDIDATES = record({"candidates": array(record(_CANDIDATE))})
CANDIDATE = record({**_CANDIDATE, "steps": array(ANY)})
EFFECT = record({"uuid": UUID, "state": _one_of(PlanState), "rehearsed": ANY, "measured": ANY})
EXPLANATION = record(
    {
        "uuid": UUID, "because": TEXT, "notes": array(TEXT),
        "explanation": array(record({"action_uuid": UUID}, open_=True)), "next": TEXT,
    },
    frozenset({"next"}),
)  # fmt: skip
PROGRESS = record(
    {
        "uuid": UUID,
        "state": _one_of(PlanState),
        "status_message": or_null(TEXT),
        "actions": {"type": "object", "additionalProperties": WHOLE},
    }
)
TIMELINE = record(
    {
        "actions": array(
            record(
                {
                    "uuid": UUID,
                    "action_type": TEXT,
                    "state": _one_of(ActionState),
                    "started_at": TIME,
                    "finished_at": TIME,
                }
            )
        )
    }
)
CHECK = record(
    {
        "uuid": UUID,
        "state": _one_of(PlanState),
        "stale": described(WHOLE, "How many steps do not hold any more"),
        "notes": array(TEXT),
        "actions": array(
            record({"uuid": UUID, "action_type": TEXT, "holds": FLAG, "reason": described(or_null(TEXT), "Why not")})
        ),
    }
)
CELLS = record({"cells": array(record({"key": TEXT}, open_=True)), "next": TEXT}, frozenset({"next"}))
SERIES = record({"key": TEXT, "columns": {"type": "object", "additionalProperties": {"type": "array"}}})
CLUSTER = record({"version": WHOLE}, open_=True)
