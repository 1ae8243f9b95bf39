"""Rules as operators and audits write them: checked all at once, then bound to the rows of a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, TypeAdapter, ValidationError

from trimtab.platform.errors import RulesError
from trimtab.platform.model import RESOURCES, ClusterModel
from trimtab.platform.model.compute import Ints
from trimtab.platform.rules.book import with_rules
from trimtab.platform.rules.kinds import (
    KINDS,
    Among,
    Ban,
    Fence,
    Preserve,
    ResourceCapacity,
    Rule,
    Split,
    SplitAmong,
)
from trimtab.platform.rules.metadata import of_metadata
from trimtab.platform.rules.selectors import Hosts, Instances, matches

Resource = Literal["vcpus", "memory_mb", "disk_gb"]
HostGroups = Literal["zone", "aggregate"] | Annotated[list[Hosts], Field(min_length=1)]


class Written(BaseModel):
    """What all written rules have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rule: str
    name: str = ""
    continuous: bool = True

    def bind(self, model: ClusterModel, notes: list[str], name: str) -> list[Rule]:
        """The rule with the rows of a model; notes on what it names in vain."""
        raise NotImplementedError


class OfInstances(Written):
    """spread, gather, root, lonely."""

    rule: Literal["spread", "gather", "root", "lonely"]
    instances: Instances

    def bind(self, model: ClusterModel, notes: list[str], name: str) -> list[Rule]:
        """See `Written`."""
        members = _members(model, self.instances, notes, name)
        return [KINDS[self.rule](name=name, continuous=self.continuous, members=members)]


class OfHosts(Written):
    """fence, ban."""

    rule: Literal["fence", "ban"]
    instances: Instances
    hosts: Hosts

    def bind(self, model: ClusterModel, notes: list[str], name: str) -> list[Rule]:
        """See `Written`."""
        members = _members(model, self.instances, notes, name)
        hosts = _hosts(model, self.hosts, notes, name)
        return [KINDS[self.rule](name=name, continuous=self.continuous, members=members, hosts=hosts)]


class Traits(Written):
    """Only hosts with all required and none of the forbidden traits."""

    rule: Literal["traits"]
    instances: Instances
    required: list[str] = []
    forbidden: list[str] = []

    def bind(self, model: ClusterModel, notes: list[str], name: str) -> list[Rule]:
        """See `Written`."""
        members = _members(model, self.instances, notes, name)
        given: dict[str, Any] = {"name": name, "continuous": self.continuous, "members": members}
        found: list[Rule] = []
        for trait in self.required:
            hosts = np.flatnonzero(_column(model.traits, model.trait_names, trait)).astype(np.int32)
            found.append(Fence(hosts=hosts, **given))
        for trait in self.forbidden:
            hosts = np.flatnonzero(_column(model.traits, model.trait_names, trait)).astype(np.int32)
            found.append(Ban(hosts=hosts, **given))
        return found


class Aggregates(Written):
    """Only hosts that are in all of these aggregates."""

    rule: Literal["aggregates"]
    instances: Instances
    required: Annotated[list[str], Field(min_length=1)]

    def bind(self, model: ClusterModel, notes: list[str], name: str) -> list[Rule]:
        """See `Written`."""
        members = _members(model, self.instances, notes, name)
        inside = [_column(model.aggregates, model.aggregate_names, aggregate) for aggregate in self.required]
        hosts = np.flatnonzero(np.logical_and.reduce(inside)).astype(np.int32)
        return [Fence(name=name, continuous=self.continuous, members=members, hosts=hosts)]


class WrittenAmong(Written):
    """All instances inside one of the host groups."""

    rule: Literal["among"]
    instances: Instances
    host_groups: HostGroups

    def bind(self, model: ClusterModel, notes: list[str], name: str) -> list[Rule]:
        """See `Written`."""
        members = _members(model, self.instances, notes, name)
        groups = _groups(model, self.host_groups, notes, name)
        return [Among(name=name, continuous=self.continuous, members=members, host_groups=groups)]


class WrittenSplit(Written):
    """Groups of instances that share no host."""

    rule: Literal["split"]
    groups: Annotated[list[Instances], Field(min_length=2)]

    def bind(self, model: ClusterModel, notes: list[str], name: str) -> list[Rule]:
        """See `Written`."""
        groups = [_members(model, one, notes, f"{name} group {n}") for n, one in enumerate(self.groups)]
        return [Split(name=name, continuous=self.continuous, groups=groups)]


class WrittenSplitAmong(Written):
    """Groups of instances, each inside a host group of its own."""

    rule: Literal["split_among"]
    groups: Annotated[list[Instances], Field(min_length=2)]
    host_groups: HostGroups

    def bind(self, model: ClusterModel, notes: list[str], name: str) -> list[Rule]:
        """See `Written`."""
        groups = [_members(model, one, notes, f"{name} group {n}") for n, one in enumerate(self.groups)]
        parts = _groups(model, self.host_groups, notes, name)
        return [SplitAmong(name=name, continuous=self.continuous, groups=groups, host_groups=parts)]


class Limit(Written):
    """max_online, running_capacity."""

    rule: Literal["max_online", "running_capacity"]
    hosts: Hosts
    most: Annotated[int, Field(ge=0)]

    def bind(self, model: ClusterModel, notes: list[str], name: str) -> list[Rule]:
        """See `Written`."""
        hosts = _hosts(model, self.hosts, notes, name)
        given: dict[str, Any] = {"name": name, "continuous": self.continuous, "hosts": hosts, "most": float(self.most)}
        return [KINDS[self.rule](**given)]


class WrittenCapacity(Written):
    """At most so much of a resource on some hosts together."""

    rule: Literal["resource_capacity"]
    hosts: Hosts
    resource: Resource
    most: Annotated[float, Field(ge=0, strict=False)]

    def bind(self, model: ClusterModel, notes: list[str], name: str) -> list[Rule]:
        """See `Written`."""
        hosts = _hosts(model, self.hosts, notes, name)
        resource = RESOURCES.index(self.resource)
        return [
            ResourceCapacity(
                name=name, continuous=self.continuous, hosts=hosts, resource=resource, most=float(self.most)
            )
        ]


class WrittenPreserve(Written):
    """At least so much of a resource for each of some instances."""

    rule: Literal["preserve"]
    instances: Instances
    resource: Resource
    least: Annotated[float, Field(ge=0, strict=False)]

    def bind(self, model: ClusterModel, notes: list[str], name: str) -> list[Rule]:
        """See `Written`."""
        members = _members(model, self.instances, notes, name)
        resource = RESOURCES.index(self.resource)
        return [
            Preserve(name=name, continuous=self.continuous, members=members, resource=resource, least=float(self.least))
        ]


AnyRule = Annotated[
    OfInstances
    | OfHosts
    | Traits
    | Aggregates
    | WrittenAmong
    | WrittenSplit
    | WrittenSplitAmong
    | Limit
    | WrittenCapacity
    | WrittenPreserve,
    Discriminator("rule"),
]
_LIST: TypeAdapter[list[AnyRule]] = TypeAdapter(list[AnyRule])


def check_rules(given: Any, where: str = "rules") -> list[AnyRule]:
    """Rules as written, checked.

    Raises:
        RulesError: names every fault with its path, all at once.
    """
    try:
        return _LIST.validate_python(given)
    except ValidationError as error:
        kinds = set(KINDS) | {"traits", "aggregates"}
        faults = [f"{_path(where, fault['loc'], kinds)}: {fault['msg']}" for fault in error.errors()]
        raise RulesError("; ".join(faults)) from error


def read_rules(path: Path) -> list[AnyRule]:
    """The rules of an operator's file: YAML or JSON, either a list or an object with the key `rules`.

    Raises:
        RulesError: the file cannot be read or holds what is no rule; names every fault with its path.
    """
    import yaml  # JSON is YAML; not needed where nobody has a rules file

    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RulesError(f"rules file {path}: {error}; set TRIMTAB_RULES_FILE to a YAML or JSON file") from error
    if isinstance(given, dict):
        if set(given) != {"rules"}:
            raise RulesError(f"rules file {path}: the only key is `rules`, a list; found {', '.join(map(str, given))}")
        given = given["rules"]
    return check_rules([] if given is None else given, f"rules file {path}: rules")


def bind(model: ClusterModel, written: Sequence[AnyRule], notes: list[str]) -> list[Rule]:
    """Written rules with the rows of a model; notes on rules that bind nobody or cannot be bound to this model."""
    found: list[Rule] = []
    for n, one in enumerate(written):
        try:
            found += one.bind(model, notes, one.name or f"#{n}")
        except RulesError as error:  # host groups that overlap in this cloud: the others hold all the same
            notes.append(f"{error}; the rule is left out")
    return found


def ruled(model: ClusterModel, written: Sequence[AnyRule], notes: list[str]) -> ClusterModel:
    """The model with all rules there are for it: those of its instances' metadata and those of the operator."""
    return with_rules(model, [*of_metadata(model, notes), *bind(model, written, notes)])


def _path(where: str, location: Sequence[int | str], kinds: set[str]) -> str:
    # The kind of a rule is a step in pydantic's path but not in the file.
    return where + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}"
        for n, part in enumerate(location)
        if not (n == 1 and part in kinds)
    )


def _members(model: ClusterModel, selector: Instances, notes: list[str], name: str) -> Ints:
    members = np.flatnonzero(selector.mask(model)).astype(np.int32)
    if not len(members):
        notes.append(f"rule {name}: no instance is {_shown(selector)}")
    return members


def _hosts(model: ClusterModel, selector: Hosts, notes: list[str], name: str) -> Ints:
    hosts = np.flatnonzero(selector.mask(model)).astype(np.int32)
    if not len(hosts):
        notes.append(f"rule {name}: no host is {_shown(selector)}")
    return hosts


def _groups(model: ClusterModel, given: Any, notes: list[str], name: str) -> list[Ints]:
    if given == "zone":
        return [np.flatnonzero(model.zone.codes == code).astype(np.int32) for code in range(len(model.zone.names))]
    if given == "aggregate":
        return [np.flatnonzero(column).astype(np.int32) for column in model.aggregates.T]
    return [_hosts(model, one, notes, f"{name} host group {n}") for n, one in enumerate(given)]


def _column(member: Any, names: Sequence[str], wanted: str) -> Any:
    columns = [n for n, name in enumerate(names) if matches(name, [wanted])]
    return member[:, columns].any(axis=1)


def _shown(selector: BaseModel) -> str:
    return json.dumps(selector.model_dump(exclude_none=True))
