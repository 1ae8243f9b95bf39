"""Changes of the estate: hosts added, removed or broken, as another model and things that happen to it later."""

from __future__ import annotations

import uuid
import zlib
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Bools, Codes, Floats, Ints
from trimtab.simulator.happenings import Happening
from trimtab.simulator.scheduler import choose_host
from trimtab.simulator.whatif.scenario import AddHosts, FailHosts, Hosts, RemoveHosts, Topology

HOUR_S = 3600.0
OF_HOST = ("total", "reserved", "ratio", "up", "enabled", "aggregates", "traits")


class Unknown(InvalidInput):
    """A host, zone or aggregate that is not there; `place` is where in the change it is named."""

    def __init__(self, place: tuple[str, ...], message: str) -> None:
        super().__init__(place, message)
        self.place, self.message = place, message

    def __str__(self) -> str:
        return self.message


class Changed(NamedTuple):
    """The estate of one point of the topology axis. `unplaced`: instances of removed hosts that fit nowhere.

    `begins`, `ends`: cloud time from which and until which each host is part of the estate, [H]; -inf, inf: always.
    """

    model: ClusterModel
    happenings: tuple[Happening, ...]
    unplaced: int
    begins: Floats
    ends: Floats


class _Later(NamedTuple):
    """A happening whose host is named, because rows still change."""

    at: float
    kind: str
    host: str


def changed(topology: Topology, model: ClusterModel, start_s: float, first: int = 0) -> Changed:
    """Apply the changes in order; later ones see what earlier ones did; `first` is the position of the first one.

    Raises:
        Unknown: a selector finds nothing, or no host would be left; `place` begins with the change's position.
    """
    later: list[_Later] = []
    born, gone = dict[str, float](), dict[str, float]()
    unplaced = 0
    for position, change in enumerate(topology.changes, first):
        at = start_s + change.at_h * HOUR_S
        try:
            if isinstance(change, AddHosts):
                model, names = _added(model, change, position)
                if change.at_h > 0:
                    later += [_Later(at, "host_up", name) for name in names]
                    born |= dict.fromkeys(names, at)
            elif isinstance(change, FailHosts):
                for row in np.flatnonzero(found(model, change.hosts)):
                    later += _failure(change, at, model.host_id(int(row)))
            elif change.at_h > 0:
                names = [model.host_id(int(row)) for row in np.flatnonzero(found(model, change.hosts))]
                # All are off before the first is evacuated, so that nobody is put where it cannot stay.
                later += [_Later(at, kind, name) for kind in ("disable", "host_down", "evacuate") for name in names]
                gone |= {name: min(at, gone.get(name, np.inf)) for name in names}
            else:
                model, lost = _removed(model, change)
                unplaced += lost
        except Unknown as error:
            raise Unknown((str(position), *error.place), error.message) from error
    rows = model.host_rows([one.host for one in later])
    kept = [(one, int(row)) for one, row in zip(later, rows, strict=True) if row >= 0]  # others were removed since
    happenings = sorted((Happening(one.at, one.kind, row) for one, row in kept), key=lambda h: h.at)
    begins, ends = np.full(model.hosts, -np.inf), np.full(model.hosts, np.inf)
    for times, known in ((begins, born), (ends, gone)):
        rows = model.host_rows(list(known))
        times[rows[rows >= 0]] = np.array(list(known.values()))[rows >= 0]
    return Changed(model, tuple(happenings), unplaced, begins, ends)


def found(model: ClusterModel, hosts: Hosts) -> Bools:
    """Hosts that a selector means, [H].

    Raises:
        Unknown: a name, glob, zone or aggregate matches nothing, or all together match nothing.
    """
    ok = np.ones(model.hosts, bool)
    if hosts.names:
        texts = [str(name) for name in model.host_names.to_pylist()]
        some = np.zeros(model.hosts, bool)
        for n, pattern in enumerate(hosts.names):
            hits = np.array([fnmatchcase(text, pattern) for text in texts])
            if not hits.any():
                raise Unknown(("hosts", "names", str(n)), f"no host matches {pattern!r}: {_some(texts)}")
            some |= hits
        ok &= some
    if hosts.zone is not None:
        present = {model.zone.names[int(code)] for code in np.unique(model.zone.codes)}
        if hosts.zone not in present:
            raise Unknown(("hosts", "zone"), f"there is no zone {hosts.zone!r}: {_some(sorted(present))}")
        ok &= model.zone.codes == model.zone.names.index(hosts.zone)
    if hosts.aggregate is not None:
        if hosts.aggregate not in model.aggregate_names:
            known = _some(list(model.aggregate_names))
            raise Unknown(("hosts", "aggregate"), f"there is no aggregate {hosts.aggregate!r}: {known}")
        ok &= model.aggregates[:, model.aggregate_names.index(hosts.aggregate)]
    if not ok.any():
        raise Unknown(("hosts",), "no host matches all of it: say less")
    return ok


def _some(names: list[str]) -> str:
    return f"there are {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else "there is none"


def _failure(change: FailHosts, at: float, host: str) -> list[_Later]:
    happens = [_Later(at, "host_down", host)]
    back = at + change.recover_after_h * HOUR_S if change.recover_after_h is not None else np.inf
    noticed = at + change.evacuate_after_min * 60.0
    if change.evacuate and noticed < back:
        happens.append(_Later(noticed, "evacuate", host))
    if back < np.inf:
        happens.append(_Later(back, "host_up", host))
    return happens


def _added(model: ClusterModel, change: AddHosts, position: int) -> tuple[ClusterModel, list[str]]:
    if change.like is None:
        _, first, count = np.unique(model.total, axis=0, return_index=True, return_counts=True)
        like = int(first[np.argmax(count)])
    else:
        like = int(model.host_rows_by_name([change.like])[0])
        if like < 0:
            known = _some([str(name) for name in model.host_names.to_pylist()])
            raise Unknown(("like",), f"there is no host {change.like!r}: {known}")
    zone = int(model.zone.codes[like])
    if change.zone is not None:
        if change.zone not in model.zone.names:
            raise Unknown(("zone",), f"there is no zone {change.zone!r}: {_some(list(model.zone.names))}")
        zone = model.zone.names.index(change.zone)
    names = [f"new-{position + 1}-{n + 1:03d}" for n in range(change.count)]
    ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"trimtab:what-if:{name}")) for name in names]
    columns: dict[str, Any] = {}
    for name in OF_HOST:
        values = getattr(model, name)
        columns[name] = np.concatenate([values, np.repeat(values[like : like + 1], change.count, axis=0)])
    columns["enabled"][model.hosts :] = True
    columns["up"][model.hosts :] = change.at_h == 0  # one that comes later is down until then
    wider = model.with_changes(
        **columns,
        host_ids=pa.concat_arrays([_flat(model.host_ids), pa.array(ids, pa.string())]),
        host_names=pa.concat_arrays([_flat(model.host_names), pa.array(names, pa.string())]),
        zone=_extended(model.zone, zone, change.count),
        disabled_reason=_with_empty(model.disabled_reason, change.count),
    )
    return wider, ids


def _flat(array: Any) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _extended(codes: Codes, code: int, count: int) -> Codes:
    return Codes(np.concatenate([codes.codes, np.full(count, code, codes.codes.dtype)]), codes.names)


def _with_empty(codes: Codes, count: int) -> Codes:
    if "" not in codes.names:
        codes = Codes(codes.codes, (*codes.names, ""))
    return _extended(codes, codes.names.index(""), count)


def _removed(model: ClusterModel, change: RemoveHosts) -> tuple[ClusterModel, int]:
    gone = found(model, change.hosts)
    if gone.all():
        raise Unknown(("hosts",), "no host would be left: remove fewer")
    displaced = np.flatnonzero((model.host_of >= 0) & gone[model.host_of]).astype(np.int32)
    host_of = model.host_of.copy()
    host_of[displaced] = -1
    smaller = model.with_changes(host_of=host_of).subset(~gone)  # keeps all instances, in their order
    return _replaced(smaller, displaced)


def _replaced(model: ClusterModel, displaced: Ints) -> tuple[ClusterModel, int]:
    """Start instances elsewhere, the largest first; those that fit nowhere stay out."""
    place, unplaced = model.placement(), 0
    for row in displaced[np.argsort(-model.demand[displaced, 1], kind="stable")]:
        host = choose_host(place, int(row), model.usable)
        if host < 0:
            unplaced += 1
        else:
            place.move(int(row), host)
    return model.with_changes(host_of=place.host_of.copy()), unplaced


def host_key(host_id: str) -> int:
    """A number that names a host's own random stream, whatever other hosts there are."""
    return zlib.crc32(host_id.encode())
