"""What the actions of a plan take on free links and pools: seconds until their end is noticed, and GiB sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from trimtab.platform.model import StorageModel
from trimtab.platform.model.compute import Floats
from trimtab.platform.planner.durations import MB_PER_GB, NOTICE_S, migration_s, transfer
from trimtab.platform.proposal import Plan, PlannedAction
from trimtab.platform.snapshot import Snapshot

# Of volumes, as rehearsals assume it.
POOL_MB_S = 300.0  # what a pool reads or writes for moves
POOL_SETUP_S = 5.0  # before copying
RETYPE_S = 3.0  # a change of type that moves nothing
UNKNOWN_VOLUME_S = 600.0  # the move of a volume that the model does not have


class Effort(NamedTuple):
    """By position in the plan, [A] each: seconds and GiB; 0 for what sends nothing and is over at once."""

    seconds: Floats
    gib: Floats


def effort(snapshot: Snapshot, plan: Plan) -> Effort:
    """What every action of a plan takes when it has its links and pools for itself; GB of volumes count as GiB."""
    seconds, gib = np.zeros(len(plan.actions)), np.zeros(len(plan.actions))
    moves = plan.migrations()
    rows = np.array([plan.actions[n].instance for n in moves], np.int32)
    live = np.array([plan.actions[n].live for n in moves], bool)
    seconds[moves] = migration_s(snapshot.model, rows, live)
    gib[moves] = transfer(snapshot.model, rows, live).gib
    volumes = [n for n, action in enumerate(plan.actions) if action.action_type == "volume_migrate"]
    for n, taken in zip(volumes, _of_volumes(snapshot.storage, (plan.actions[n] for n in volumes)), strict=True):
        seconds[n], gib[n] = taken
    return Effort(seconds, gib)


def _of_volumes(storage: StorageModel | None, acts: Iterable[PlannedAction]) -> list[tuple[float, float]]:
    """Seconds and GiB of moves of volumes, in the order in which they happen."""
    acts = list(acts)
    if storage is None or not acts:
        return [(UNKNOWN_VOLUME_S + NOTICE_S, 0.0) for _ in acts]
    wanted = {str(act.parameters.get("resource_id")) for act in acts}
    row_of = {name: row for row, name in enumerate(storage.volume_ids.to_pylist()) if name in wanted}
    kinds = {name: row for row, name in enumerate(storage.type_names.to_pylist())}
    copied: set[int] = set()  # where these are now is not known, and need not be: they are copied again
    found = []
    for act in acts:
        row = row_of.get(str(act.parameters.get("resource_id")), -1)
        kind = kinds.get(str(act.parameters.get("destination_type")), -1)
        retyped = act.parameters.get("migration_type") == "retype"
        if row < 0:
            found.append((UNKNOWN_VOLUME_S + NOTICE_S, 0.0))
        elif retyped and kind >= 0 and row not in copied and _serves(storage, kind, int(storage.pool_of[row])):
            found.append((RETYPE_S + NOTICE_S, 0.0))
        else:
            copied.add(row)
            size = float(storage.size_gb[row])
            found.append((POOL_SETUP_S + size * MB_PER_GB / POOL_MB_S + NOTICE_S, size))
    return found


def _serves(storage: StorageModel, kind: int, pool: int) -> bool:
    """Whether a pool has the backend that a type asks for, so that a volume that gets the type may stay."""
    return storage.type_backend[kind] in {"", storage.pool_backend[pool] if pool >= 0 else ""}
