"""What /openapi.json says: FastAPI's description of routes and arguments, with answers, headers and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI

from trimtab.serve import shapes
from trimtab.serve.microversions import HIGHEST, LOWEST
from trimtab.serve.microversions import NAME as VERSION
from trimtab.serve.resources import sort_keys
from trimtab.serve.shapes import RESOURCES, TITLES, Schema

Operation = dict[str, Any]
JSON = "application/json"

# What answers of single routes look like, by method and path; those of collections follow from their resources.
ANSWERS: Mapping[tuple[str, str], Schema] = {
    ("get", "/"): shapes.ROOT,
    ("get", "/v1"): shapes.COLLECTIONS,
    ("get", "/v1/strategies/{ident}/state"): shapes.STATE,
    ("get", "/v1/data_model"): shapes.DATA_MODEL,
    ("get", "/v1/audits/{ident}/candidates"): shapes.CANDIDATES,
    ("get", "/v1/audits/{ident}/candidates/{number}"): shapes.CANDIDATE,
    ("post", "/v1/audits/{ident}/candidates/{number}/plan"): {"$ref": "#/components/schemas/ActionPlan"},
    ("get", "/v1/action_plans/{ident}/effect"): shapes.EFFECT,
    ("get", "/v1/action_plans/{ident}/explanation"): shapes.EXPLANATION,
    ("get", "/v1/action_plans/{ident}/progress"): shapes.PROGRESS,
    ("get", "/v1/action_plans/{ident}/timeline"): shapes.TIMELINE,
    ("post", "/v1/action_plans/{ident}/start"): {"$ref": "#/components/schemas/ActionPlan"},
    ("post", "/v1/action_plans/{ident}/check"): shapes.CHECK,
    ("post", "/v1/action_plans/{ident}/replan"): {"$ref": "#/components/schemas/ActionPlan"},
    ("post", "/v1/action_plans/{ident}/rollback"): {"$ref": "#/components/schemas/ActionPlan"},
    ("get", "/v1/whatifs/{ident}/cells"): shapes.CELLS,
    ("get", "/v1/whatifs/{ident}/cells/{key}/series"): shapes.SERIES,
    ("get", "/v1/cluster"): shapes.CLUSTER,
}
# Answers that are no JSON.
MEDIA: Mapping[str, str] = {
    "/v1/events": "text/event-stream",
    "/v1/whatifs/{ident}/report": "text/html",
    "/v1/cluster/model/{table}": "application/vnd.apache.parquet",
    "/metrics": "text/plain",
}
ERRORS: Mapping[int, str] = {
    400: "An argument, the body or the object's state does not permit it",
    401: "Keystone does not know the token (where callers have to say who they are; not in this format)",
    403: "A policy does not let the caller do it",
    404: "There is no such object, marker or path",
    406: "The microversion is not served, or lacks what was asked for",
    409: "A name is taken, or the state of something else does not permit it",
    413: "The body is too large",
    415: "The body is no JSON",
    429: "Too many requests: ask again later",
    503: "The cloud, the datasource or the service cannot answer now",
}
ONLY_BY_UUID = frozenset({"action_plans", "actions", "whatifs"})
CREATED = frozenset({"/v1/audits", "/v1/audit_templates", "/v1/whatifs"})  # with these an Idempotency-Key counts

_HEADERS: Mapping[str, Schema] = {
    "Version": {
        "name": VERSION,
        "in": "header",
        "description": f"The microversion, `infra-optim X.Y` or `infra-optim latest`; without it {LOWEST}",
        "schema": {
            "type": "string",
            "pattern": rf"^infra-optim ({LOWEST.major}\.[{LOWEST.minor}-{HIGHEST.minor}]|latest)$",
        },
    },
    "ShowDeleted": {
        "name": "X-Show-Deleted",
        "in": "header",
        "description": "Any text that is not empty (even False) shows deleted objects too",
        "schema": {"type": "string"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A request that is repeated with the same key creates nothing more",
        "schema": {"type": "string"},
    },
}
_ARGUMENTS: Mapping[str, Schema] = {
    "limit": {"type": "integer", "minimum": 1},
    "sort_dir": {"type": "string", "enum": ["asc", "desc"], "default": "asc"},
    "audit_uuid": shapes.UUID,
    "action_plan_uuid": shapes.UUID,
}


class Application(FastAPI):
    """FastAPI that tells the whole truth about its answers."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; made once."""
        if self.openapi_schema is None:
            self.openapi_schema = described(super().openapi())
        return self.openapi_schema


def described(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document with shapes, headers and errors; `document` itself is changed."""
    components = document.setdefault("components", {})
    known = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # nobody is answered so
        known.pop(name, None)
    known["Error"] = shapes.ERROR
    for collection, title in TITLES.items():
        known[title] = shapes.whole(collection)
        known[f"{title}Line"] = shapes.line(collection)
    components["parameters"] = dict(_HEADERS)
    components["securitySchemes"] = {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}}
    document["security"] = [{}, {"token": []}]  # whether callers have to say who they are is the operator's choice
    components["responses"] = {
        f"Error{status}": {"description": text, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
        for status, text in ERRORS.items()
    }
    components["responses"]["Error401"]["content"] = {JSON: {"schema": shapes.record({"error": shapes.ANY})}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _answer(method, path, operation)
            _arguments(method, path, operation)
            for status in _errors(method, path, operation):
                operation["responses"][str(status)] = {"$ref": f"#/components/responses/Error{status}"}
    return document


def _answer(method: str, path: str, operation: Operation) -> None:
    operation["responses"].pop("422", None)
    (status,) = operation["responses"]
    fine = operation["responses"][status]
    fine["description"] = "As asked" if status != "204" else "It is gone"
    if path in MEDIA:
        fine["content"] = {MEDIA[path]: {"schema": {}}}
    elif (schema := _shape(method, path)) is not None and status != "204":
        fine["content"] = {JSON: {"schema": schema}}
    else:
        fine.pop("content", None)
    if path.startswith("/v1"):
        names = (VERSION, "OpenStack-API-Minimum-Version", "OpenStack-API-Maximum-Version", "Vary")
        fine["headers"] = {name: {"schema": {"type": "string"}, "required": True} for name in names}
        if path in CREATED and method == "post":
            fine["headers"]["Location"] = {"schema": {"type": "string", "format": "uri"}, "required": True}


def _shape(method: str, path: str) -> Schema | None:
    if (method, path) in ANSWERS:
        return ANSWERS[method, path]
    _, _, collection, *rest = [*path.split("/"), "", ""]
    if collection not in RESOURCES:
        return None
    whole = {"$ref": f"#/components/schemas/{TITLES[collection]}"}
    match method, [part for part in rest if part]:
        case "get", []:
            return shapes.page(collection, {"$ref": f"#/components/schemas/{TITLES[collection]}Line"})
        case "get", ["detail"]:
            return shapes.page(collection, whole)
        case ("get" | "patch", ["{ident}"]) | ("post", []):
            return whole
    return None


def _arguments(method: str, path: str, operation: Operation) -> None:
    given = operation.setdefault("parameters", [])
    collection = [*path.split("/"), "", ""][2]
    resource = RESOURCES.get(collection)
    a_list = resource is not None and path in {f"/v1/{collection}", f"/v1/{collection}/detail"}
    for one in given:
        one["schema"] = _ARGUMENTS.get(one["name"], _without_null(one["schema"]))
        if one["in"] == "path" and one["name"] == "ident":
            by_uuid = collection in ONLY_BY_UUID
            one["description"] = "uuid" if by_uuid else "id or name" if collection == "services" else "id, uuid or name"
            one["schema"] = shapes.UUID if by_uuid else {"type": "string", "minLength": 1}
        if resource is not None and a_list and one["name"] == "sort_key":
            one["schema"] = {"type": "string", "enum": sorted(sort_keys(resource)), "default": "id"}
        if resource is not None and a_list and one["name"] == "marker":
            one["schema"] = shapes.WHOLE if resource.marker == "integer" else shapes.UUID
            one["description"] = "what the page before ended with"
    if not path.startswith("/v1"):
        return
    names = ["Version"]
    if method != "post":
        names.append("ShowDeleted")
    if method == "post" and path in CREATED:
        names.append("IdempotencyKey")
    given += [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _without_null(schema: Schema) -> Schema:
    """A query string has no null: an argument is there, or it is not."""
    kinds = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    rest = {name: value for name, value in schema.items() if name != "anyOf" and value is not None}
    return {**rest, **kinds[0]} if len(kinds) == 1 else rest if not kinds else schema


def _errors(method: str, path: str, operation: Operation) -> Iterator[int]:
    yield from (401, 403, 429, 503)
    if not path.startswith("/v1"):
        return
    yield from (400, 406)
    if path != "/v1":
        yield 404
    if method != "get" or path == "/v1/services/{ident}":
        yield 409
    if "requestBody" in operation:
        yield from (413, 415)
