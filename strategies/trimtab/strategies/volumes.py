"""Which volumes can move, and which pools a volume's type allows."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from trimtab.platform.model import StorageModel
from trimtab.platform.model.compute import Bools
from trimtab.platform.model.tables import Codes

MOVABLE_STATUS = ("available", "in-use")
MOVABLE_MIGRATION = ("", "success")


def movable(storage: StorageModel) -> Bools:
    """Volumes that Cinder would move, [V]: on a pool, idle, not migrating, without snapshots, not excluded."""
    return (
        (storage.pool_of >= 0)
        & ~storage.excluded
        & (storage.snapshots == 0)
        & is_one_of(storage.status, MOVABLE_STATUS)
        & is_one_of(storage.migration_status, MOVABLE_MIGRATION)
    )


def is_one_of(column: Codes, words: Sequence[str]) -> Bools:
    """Rows whose text is one of some words."""
    allowed = np.array([*(name in words for name in column.names), "" in words], bool)
    return allowed[column.codes]


def allows(storage: StorageModel, kind: int, pool: int) -> bool:
    """Whether a volume of a type (-1: none) may be on a pool, as far as the model knows.

    The type's backend must be the pool's. A type that names no backend but other extra specs goes where a type with
    the same specs has its backend, for it is those specs that Cinder compares.
    """
    if kind < 0:
        return True
    backend = storage.type_backend[kind]
    if backend:
        return storage.pool_backend[pool] == backend
    specs = specs_of(storage, kind)
    if not specs:
        return True
    peers = [row for row in range(len(storage.type_names)) if row != kind and specs_of(storage, row) == specs]
    return any(storage.type_backend[row] == storage.pool_backend[pool] != "" for row in peers)


def specs_of(storage: StorageModel, kind: int) -> dict[str, object]:
    """Extra specs of a type, without its backend; empty for -1."""
    return dict(json.loads(storage.type_extra_specs[kind] or "{}")) if kind >= 0 else {}
