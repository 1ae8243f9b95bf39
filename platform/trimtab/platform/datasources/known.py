"""What a datasource must know of the cloud to read its measurements: who is who, and how large."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Size(NamedTuple):
    """What an instance's flavor gives it: memory in MB, disk in GB."""

    vcpus: float
    memory_mb: float
    disk_gb: float


@dataclass(frozen=True, slots=True)
class Known:
    """Hosts by every name that metrics may carry, instances by uuid."""

    hosts: Mapping[str, str] = field(default_factory=dict)  # name -> uuid
    instances: Mapping[str, Size] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)  # of instances, by uuid; their owners choose them

    @classmethod
    def of(
        cls,
        hosts: Iterable[tuple[str, Iterable[str]]],
        instances: Mapping[str, Size],
        called: Mapping[str, str] | None = None,
    ) -> Known:
        """`hosts` are uuids with their names, whose short forms count too where no other host has the same.

        `called` are the names of instances, by uuid.
        """
        named: dict[str, str] = {}
        short: dict[str, set[str]] = {}
        for uuid, names in hosts:
            named[uuid] = uuid
            for name in names:
                named[name] = uuid
                short.setdefault(name.partition(".")[0], set()).add(uuid)
        for name, uuids in short.items():
            if len(uuids) == 1:
                named.setdefault(name, next(iter(uuids)))
        return cls(named, instances, called or {})

    def host(self, name: str) -> str | None:
        """The uuid of a host by what a metric calls it: its name, or that with a domain or port behind it."""
        found = self.hosts.get(name)
        if found is None:
            found = self.hosts.get(name.partition(":")[0]) or self.hosts.get(name.partition(".")[0])
        return found
