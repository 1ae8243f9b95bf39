"""What instances will need once they are resized: from the flavors that instances of the model have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.planner.rooms import Amounts, exact
from trimtab.platform.proposal import Act


def sizes_of(model: ClusterModel, resizes: Sequence[Act]) -> list[tuple[int, Amounts | None]]:
    """Row of the instance of every resize, and what it will need.

    -1 and None where the model does not know: an instance it does not have, a flavor that no instance has (the model
    knows flavors by the name and size of who has them) or that is given by its id. What a rule wants kept for the
    instance is kept with any flavor.
    """
    rows = model.instance_rows([act.resource_id or str(act.parameters.get("resource_id")) for act in resizes])
    found: list[tuple[int, Amounts | None]] = []
    for row, act in zip(rows.tolist(), resizes, strict=True):
        owners = np.flatnonzero(model.flavor.rows(str(act.parameters.get("flavor") or "")))
        if row < 0 or not len(owners):
            found.append((row, None))
            continue
        kept = np.where(model.need[row] > model.demand[row], model.need[row], 0.0)
        vcpus, memory, disk = exact(np.maximum(model.demand[owners[0]], kept)).tolist()
        found.append((row, (vcpus, memory, disk)))
    return found
