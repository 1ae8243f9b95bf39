"""Rules that tenants write into the metadata of their instances: keys `trimtab:<rule>`, a small syntax."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from trimtab.platform.model import RESOURCES, ClusterModel
from trimtab.platform.model.compute import Bools, Ints
from trimtab.platform.rules.kinds import Among, Ban, Fence, Gather, Lonely, Preserve, Root, Rule, Split, Spread
from trimtab.platform.rules.selectors import HostSelector

PREFIX = "trimtab:"
TERMS = ("zone", "aggregate", "trait")
TRUE = ("true", "yes", "1")


def of_metadata(model: ClusterModel, notes: list[str]) -> list[Rule]:
    """The rules in the instances' metadata; notes on what cannot be understood, which binds nobody.

    Labels (spread, gather, lonely, among, split) hold among the instances of one project. A value may end in
    `; discrete`: the rule then holds at the end of a plan only.
    """
    codes = [code for code, text in enumerate(model.metadata.names) if PREFIX in text]
    if not codes:
        return []
    found: list[Rule] = []
    labels: dict[tuple[str, str, str, bool], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    bound: dict[tuple[str, str, bool], list[int]] = defaultdict(list)
    for code in codes:
        pairs = {key: value for key, value in json.loads(model.metadata.names[code]).items() if key.startswith(PREFIX)}
        members = np.flatnonzero(model.metadata.codes == code)
        for key, value in pairs.items():
            kind, (text, *flags) = key.removeprefix(PREFIX), (part.strip() for part in str(value).split(";"))
            if kind not in WRITES and kind not in LABELS:
                known = ", ".join(sorted((*WRITES, *LABELS)))
                notes.append(f"metadata {key}: there is no such rule; known are {known}")
            elif not text or flags not in ([], ["discrete"]):
                notes.append(f"metadata {key} = {value!r}: write VALUE or 'VALUE; discrete'")
            elif kind in LABELS:
                label, _, part = text.partition("/")
                for v in members.tolist():
                    labels[kind, model.project[v] or "", label, not flags][part].append(v)
            else:
                bound[kind, text, not flags] += members.tolist()
    for (kind, text, always), rows in bound.items():
        try:
            found += WRITES[kind](model, text, np.array(rows, np.int32), f"{PREFIX}{kind} {text}", always)
        except ValueError as error:
            notes.append(f"metadata {PREFIX}{kind} = {text!r}: {error}")
    for (kind, project, label, always), parts in labels.items():
        name = f"{PREFIX}{kind} {label}" + (f" of project {project}" if project else "")
        groups = [np.array(rows, np.int32) for rows in parts.values()]
        found.append(LABELS[kind](model, groups, name, always))
    return found


def _fence(model: ClusterModel, text: str, members: Ints, name: str, always: bool) -> list[Rule]:
    hosts = np.flatnonzero(_hosts(model, text)).astype(np.int32)
    return [Fence(name=name, continuous=always, members=members, hosts=hosts)]


def _ban(model: ClusterModel, text: str, members: Ints, name: str, always: bool) -> list[Rule]:
    hosts = np.flatnonzero(_hosts(model, text)).astype(np.int32)
    return [Ban(name=name, continuous=always, members=members, hosts=hosts)]


def _root(_: ClusterModel, text: str, members: Ints, name: str, always: bool) -> list[Rule]:
    if text.lower() not in TRUE:
        raise ValueError(f"write one of {', '.join(TRUE)}")
    return [Root(name=name, continuous=always, members=members)]


def _aggregates(model: ClusterModel, text: str, members: Ints, name: str, always: bool) -> list[Rule]:
    inside = [HostSelector(aggregates=[one]).mask(model) for one in _words(text)]
    hosts = np.flatnonzero(np.logical_and.reduce(inside)).astype(np.int32)
    return [Fence(name=name, continuous=always, members=members, hosts=hosts)]


def _traits(model: ClusterModel, text: str, members: Ints, name: str, always: bool) -> list[Rule]:
    found: list[Rule] = []
    for word in _words(text):
        kind: type[Rule] = Ban if word.startswith("!") else Fence
        hosts = np.flatnonzero(HostSelector(traits=[word.removeprefix("!")]).mask(model)).astype(np.int32)
        found.append(kind(name=name, continuous=always, members=members, hosts=hosts))
    return found


def _preserve(_: ClusterModel, text: str, members: Ints, name: str, always: bool) -> list[Rule]:
    found: list[Rule] = []
    for word in _words(text):
        resource, _sign, amount = word.partition("=")
        if resource.strip() not in RESOURCES:
            raise ValueError(f"write RESOURCE=AMOUNT with one of {', '.join(RESOURCES)}")
        least = float(amount)
        if not 0 <= least < np.inf:
            raise ValueError("the amount is a number from 0 on")
        row = RESOURCES.index(resource.strip())
        found.append(Preserve(name=name, continuous=always, members=members, resource=row, least=least))
    return found


def _hosts(model: ClusterModel, text: str) -> Bools:
    """Hosts for which one of the terms holds: NAME, zone=ZONE, aggregate=AGGREGATE, trait=TRAIT (globs)."""
    ok = np.zeros(model.hosts, bool)
    for word in _words(text):
        term, sign, value = (part.strip() for part in word.partition("="))
        if sign and term not in TERMS:
            raise ValueError(f"there is no term {term!r}: write a host's name or {', '.join(TERMS)} = ...")
        if sign and not value:
            raise ValueError(f"{term}= of what?")
        ok |= HostSelector.model_validate({f"{term}s": [value]} if sign else {"names": [term]}).mask(model)
    return ok


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ValueError("between two commas there must be something")
    return words


def _all(kind: type[Rule]) -> Callable[..., Rule]:
    def make(_: ClusterModel, groups: list[Ints], name: str, always: bool) -> Rule:
        return kind(name=name, continuous=always, members=np.concatenate(groups))

    return make


def _among(model: ClusterModel, groups: list[Ints], name: str, always: bool) -> Rule:
    zones = [np.flatnonzero(model.zone.codes == code).astype(np.int32) for code in range(len(model.zone.names))]
    return Among(name=name, continuous=always, members=np.concatenate(groups), host_groups=zones)


def _split(_: ClusterModel, groups: list[Ints], name: str, always: bool) -> Rule:
    return Split(name=name, continuous=always, groups=groups)


WRITES: dict[str, Callable[[ClusterModel, str, Ints, str, bool], list[Rule]]] = {
    "fence": _fence,
    "ban": _ban,
    "root": _root,
    "aggregates": _aggregates,
    "traits": _traits,
    "preserve": _preserve,
}
LABELS: dict[str, Callable[[Any, list[Ints], str, bool], Rule]] = {
    "spread": _all(Spread),
    "gather": _all(Gather),
    "lonely": _all(Lonely),
    "same_zone": _among,
    "split": _split,
}
