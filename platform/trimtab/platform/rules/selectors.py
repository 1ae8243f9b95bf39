"""Who a written rule is about: hosts by name, zone, aggregate and trait, instances by name, uuid, project and so on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Bools, Codes

Globs = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class HostSelector(BaseModel):
    """Hosts for which every key given holds; a key holds when one of its globs does."""

    model_config = ConfigDict(extra="forbid", strict=True)

    names: Globs | None = None
    zones: Globs | None = None
    aggregates: Globs | None = None
    traits: Globs | None = None

    def mask(self, model: ClusterModel) -> Bools:
        """The hosts, [H]."""
        ok = np.ones(model.hosts, bool)
        if self.names is not None:
            ok &= _texts(model.host_names, self.names)
        if self.zones is not None:
            ok &= _coded(model.zone, self.zones)
        if self.aggregates is not None:
            ok &= _columns(model.aggregates, model.aggregate_names, self.aggregates)
        if self.traits is not None:
            ok &= _columns(model.traits, model.trait_names, self.traits)
        return ok


class InstanceSelector(BaseModel):
    """Instances for which every key given holds; `metadata` wants every one of its pairs (values are globs)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    names: Globs | None = None
    uuids: Globs | None = None
    projects: Globs | None = None
    flavors: Globs | None = None
    metadata: Annotated[dict[str, str], Field(min_length=1)] | None = None

    def mask(self, model: ClusterModel) -> Bools:
        """The instances, [V]."""
        ok = np.ones(model.instances, bool)
        if self.names is not None:
            ok &= _texts(model.instance_names, self.names)
        if self.uuids is not None:
            rows = model.instance_rows(self.uuids)
            wanted = np.zeros(model.instances, bool)
            wanted[rows[rows >= 0]] = True
            ok &= wanted
        if self.projects is not None:
            ok &= _coded(model.project, self.projects)
        if self.flavors is not None:
            ok &= _coded(model.flavor, self.flavors)
        if self.metadata is not None:
            hit = [_has(text, self.metadata) for text in model.metadata.names]
            ok &= np.array([*hit, False])[model.metadata.codes]
        return ok


def _some(selector: Any) -> Any:
    if not selector.model_fields_set:
        raise ValueError("an empty selector means everything by accident: name something, or names: ['*']")
    return selector


def _listed(given: Any) -> Any:
    """A name or a list of names stands for a selector by name."""
    if isinstance(given, str):
        return {"names": [given]}
    return {"names": given} if isinstance(given, list) else given


Hosts = Annotated[HostSelector, AfterValidator(_some), BeforeValidator(_listed)]
Instances = Annotated[InstanceSelector, AfterValidator(_some), BeforeValidator(_listed)]


def matches(text: str, globs: Sequence[str]) -> bool:
    """Whether one of the globs fits; case counts."""
    return any(fnmatchcase(text, glob) for glob in globs)


def _texts(values: Any, globs: Sequence[str]) -> Bools:
    plain = {glob for glob in globs if not any(sign in glob for sign in "*?[")}
    wild = [glob for glob in globs if glob not in plain]
    return np.array([text in plain or (bool(wild) and matches(text, wild)) for text in values.to_pylist()], bool)


def _coded(column: Codes, globs: Sequence[str]) -> Bools:
    hit = np.array([*(matches(name, globs) for name in column.names), False])
    return np.asarray(hit[column.codes])


def _columns(member: Bools, names: Sequence[str], globs: Sequence[str]) -> Bools:
    columns = [n for n, name in enumerate(names) if matches(name, globs)]
    return np.asarray(member[:, columns].any(axis=1))


def _has(text: str, wanted: dict[str, str]) -> bool:
    own = json.loads(text)
    return all(key in own and fnmatchcase(str(own[key]), value) for key, value in wanted.items())
