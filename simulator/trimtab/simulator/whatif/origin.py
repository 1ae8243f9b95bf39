"""Where a sweep begins: a model of the cloud, a moment, and what was recorded before it; fingerprinted by content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel, read_model
from trimtab.platform.snapshot import History, Snapshot
from trimtab.simulator.estate import build_estate
from trimtab.simulator.load import SAMPLE_S
from trimtab.simulator.whatif.scenario import CloudBase, SimulatedBase, SnapshotBase

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Origin:
    """`start_s` is cloud time, a whole sample; `fingerprint` is the same for the same content, wherever it is from."""

    model: ClusterModel
    start_s: float
    history: History | None = None
    fingerprint: str = ""

    @classmethod
    def of(cls, model: ClusterModel, start_s: float, history: History | None = None) -> Self:
        """An origin with its fingerprint."""
        return cls(model, start_s, history, _fingerprint(model, start_s, history))

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot) -> Self:
        """The running cloud as it was collected, with its recorded load."""
        history = snapshot.history
        if history is not None and not (len(history.cpu_pct) and np.isfinite(history.cpu_pct).any()):
            history = None  # nothing was recorded yet
        return cls.of(snapshot.model, snapshot.taken_at // SAMPLE_S * SAMPLE_S, history)

    # -- as tables, to be kept on disk -----------------------------------------------------------

    def tables(self) -> dict[str, pa.Table]:
        """Everything, as tables by name; `from_tables` takes it back."""
        hosts, instances, groups = self.model.to_arrow()
        found = {
            "nodes": hosts,
            "instances": instances,
            "server_groups": groups,
            "origin": pa.table({"start_s": [self.start_s]}),
        }
        if self.history is not None:
            samples, columns = self.history.cpu_pct.shape
            flat = pa.array(np.ascontiguousarray(self.history.cpu_pct).reshape(-1))
            found["history"] = pa.table(
                {
                    "at_s": self.history.start_s + self.history.step_s * np.arange(samples),
                    "step_s": np.full(samples, self.history.step_s),
                    "cpu_pct": pa.FixedSizeListArray.from_arrays(flat, columns),
                }
            )
        return found

    @classmethod
    def from_tables(cls, tables: Mapping[str, pa.Table]) -> Self:
        """What `tables` gave.

        Raises:
            ModelError: the tables are no model.
        """
        model = ClusterModel.from_arrow(tables["nodes"], tables["instances"], tables["server_groups"])
        history = None
        if "history" in tables:
            kept = tables["history"]
            values = kept["cpu_pct"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            history = History(
                float(kept["at_s"][0].as_py()),
                float(kept["step_s"][0].as_py()),
                values.reshape(len(kept), -1).astype(np.float32, copy=False),
            )
        return cls.of(model, float(tables["origin"]["start_s"][0].as_py()), history)


def origin_of(base: SimulatedBase | SnapshotBase | CloudBase) -> Origin:
    """The origin of a base that needs no running Trimtab.

    Raises:
        InvalidInput: the estate cannot be built. ModelError: the folder is no model.
    """
    if isinstance(base, CloudBase):
        raise InvalidInput("the cloud's own model is known to a running Trimtab only: use `--url`, or POST /v1/whatifs")
    start_s = base.start_day * DAY_S
    if isinstance(base, SnapshotBase):
        return Origin.of(read_model(base.folder), start_s)
    estate = build_estate(base.hosts, base.instances, base.seed, base.zones)
    return Origin.of(ClusterModel.from_arrow(*estate), start_s)


def _fingerprint(model: ClusterModel, start_s: float, history: History | None) -> str:
    digest = hashlib.sha256(repr(start_s).encode())
    for table in model.to_arrow():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        digest.update(memoryview(sink.getvalue()))
    if history is not None:
        digest.update(repr((history.start_s, history.step_s, history.cpu_pct.shape)).encode())
        digest.update(np.ascontiguousarray(history.cpu_pct).tobytes())
    return digest.hexdigest()
