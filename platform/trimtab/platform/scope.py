"""The audit scope language: a JSON list that narrows a model to the hosts and instances an audit may look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Bools
from trimtab.platform.rules import bind, check_rules, with_rules
from trimtab.platform.scope_schema import all_aggregates, section


def narrow(model: ClusterModel, scope: Sequence[Mapping[str, Any]]) -> tuple[ClusterModel, list[str]]:
    """The part of a model an audit may look at, and notes on what the scope named in vain.

    Included aggregates and zones are united; hosts outside leave the model together with their instances. Excluded
    instances, projects and metadata stay (they use room) but are marked `excluded`. A scope that includes rules which
    match nothing leaves no host.
    """
    rules = section(scope, "compute")
    if not rules:
        return model, []
    notes: list[str] = []
    keep = np.zeros(model.hosts, bool)
    includes = False
    excluded = model.excluded.copy()
    gone = np.zeros(model.hosts, bool)
    for rule in rules:
        if "host_aggregates" in rule:
            includes = True
            keep |= _in_aggregates(model, rule["host_aggregates"], notes)
        elif "availability_zones" in rule:
            includes = True
            keep |= _in_zones(model, [item["name"] for item in rule["availability_zones"]], notes)
        for item in rule.get("exclude", []):
            gone |= _excluded_hosts(model, item, notes)
            excluded |= _excluded_instances(model, item, notes)
    wanted = (keep if includes else np.ones(model.hosts, bool)) & ~gone
    written = check_rules([one for rule in rules for one in rule.get("rules", [])])
    return with_rules(model.with_changes(excluded=excluded), bind(model, written, notes)).subset(wanted), notes


def _in_zones(model: ClusterModel, names: Sequence[str], notes: list[str]) -> Bools:
    if names == ["*"]:
        return np.ones(model.hosts, bool)
    found = [model.zone.rows(name) for name in names]
    notes += [f"scope: no host is in zone {name}" for name, rows in zip(names, found, strict=True) if not rows.any()]
    return np.logical_or.reduce([np.zeros(model.hosts, bool), *found])


def _in_aggregates(model: ClusterModel, items: Sequence[Mapping[str, Any]], notes: list[str]) -> Bools:
    if all_aggregates(items):
        return np.asarray(model.aggregates.any(axis=1))
    names = [str(item.get("name", item.get("id"))) for item in items]
    known = {name: column for column, name in enumerate(model.aggregate_names)}
    notes += [f"scope: no host is in aggregate {name}" for name in names if name not in known]
    columns = [known[name] for name in names if name in known]
    return np.asarray(model.aggregates[:, columns].any(axis=1))


def _excluded_hosts(model: ClusterModel, item: Mapping[str, Any], notes: list[str]) -> Bools:
    gone = np.zeros(model.hosts, bool)
    if "compute_nodes" in item:
        names = [node["name"] for node in item["compute_nodes"]]
        rows = model.host_rows_by_name(names)
        notes += [
            f"scope: there is no host {name} to exclude" for name, row in zip(names, rows, strict=True) if row < 0
        ]
        gone[rows[rows >= 0]] = True
    if "host_aggregates" in item:
        gone |= _in_aggregates(model, item["host_aggregates"], notes)
    return gone


def _excluded_instances(model: ClusterModel, item: Mapping[str, Any], notes: list[str]) -> Bools:
    excluded = np.zeros(model.instances, bool)
    if "instances" in item:
        ids = [instance["uuid"] for instance in item["instances"]]
        rows = model.instance_rows(ids)
        notes += [f"scope: there is no instance {i} to exclude" for i, row in zip(ids, rows, strict=True) if row < 0]
        excluded[rows[rows >= 0]] = True
    for project in item.get("projects", []):
        excluded |= model.project.rows(project["uuid"])
    wanted = {str(k): str(v).lower() for pair in item.get("instance_metadata", []) for k, v in pair.items()}
    if wanted:
        codes = model.metadata
        hit = np.array([_matches(codes, code, wanted) for code in range(len(codes.names))] + [False])
        excluded |= hit[codes.codes]
    return excluded


def _matches(codes: Any, code: int, wanted: Mapping[str, str]) -> bool:
    own = {str(k): str(v).lower() for k, v in json.loads(codes.names[code]).items()}
    # All keys must be there and one value equal: Watcher's rule, which operators' templates rely on.
    return all(k in own for k in wanted) and any(own[k] == v for k, v in wanted.items())
