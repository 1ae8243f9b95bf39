"""The placement overlay: who is where and what is used, as plain arrays that numba takes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trimtab.platform.model.compute import Bools, ClusterModel, Floats, Ints

# Amounts are whole numbers times a ratio: anything below this is rounding, not room.
ROUNDING = 1e-6


@dataclass(slots=True)
class Placement:
    """A mutable what-if copy of a model's placement; the model itself never changes.

    Shapes: `host_of` [V] int32; `used` and `capacity` [3, H], one contiguous row per resource, because `fits` asks
    about all hosts at once.
    """

    model: ClusterModel
    host_of: Ints
    used: Floats
    capacity: Floats
    moves: list[tuple[int, int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, model: ClusterModel) -> Placement:
        """The placement as it is in the model."""
        return cls(
            model,
            model.host_of.copy(),
            np.ascontiguousarray(model.used().T),
            np.ascontiguousarray(model.capacity.T),
        )

    def copy(self) -> Placement:
        """An independent copy with an empty undo log."""
        return Placement(self.model, self.host_of.copy(), self.used.copy(), self.capacity)

    def fits(self, instance: int) -> Bools:
        """Hosts with room for one more such instance, [H]; capacity only, see `rules` for the rest."""
        need = self.model.need[instance]
        free = self.capacity - self.used
        return (free[0] >= need[0] - ROUNDING) & (free[1] >= need[1] - ROUNDING) & (free[2] >= need[2] - ROUNDING)

    def free(self) -> Floats:
        """What is left on each host, [3, H]; negative where a host is over its capacity."""
        return self.capacity - self.used

    def over_capacity(self) -> Bools:
        """Hosts that hold more than they may, [H]."""
        return np.asarray((self.used > self.capacity + ROUNDING).any(axis=0))

    def move(self, instance: int, host: int) -> None:
        """Put an instance on a host (from wherever it is); may exceed capacity: ask `fits` first."""
        source = int(self.host_of[instance])
        need = self.model.need[instance]
        if source >= 0:
            self.used[:, source] -= need
        if host >= 0:
            self.used[:, host] += need
        self.host_of[instance] = host
        self.moves.append((instance, source, host))

    def undo(self, count: int = 1) -> None:
        """Take back the last moves."""
        for _ in range(count):
            instance, source, host = self.moves.pop()
            need = self.model.need[instance]
            if host >= 0:
                self.used[:, host] -= need
            if source >= 0:
                self.used[:, source] += need
            self.host_of[instance] = source

    def residents(self, host: int) -> Ints:
        """Instances on one host, ascending rows."""
        return np.flatnonzero(self.host_of == host).astype(np.int32)
