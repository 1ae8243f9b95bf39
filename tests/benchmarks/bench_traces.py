"""How fast a trace is read: OpenDC fragments, made up, in a temporary folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trimtab.simulator.traces.opendc import read_opendc

Row = tuple[str, float, str, str]
TASKS = 1000


def measure(fragments: int = 2_000_000) -> list[Row]:
    """What, value, unit, target."""
    random = np.random.default_rng(1)
    ids = np.array([f"task-{n}" for n in range(TASKS)])
    tasks = {
        "id": ids,
        "submission_time": random.integers(0, 86_400_000, TASKS),
        "duration": np.full(TASKS, 300_000 * (fragments // TASKS)),
        "cpu_count": np.full(TASKS, 4),
        "cpu_capacity": np.full(TASKS, 8000.0),
        "mem_capacity": np.full(TASKS, 4096),
    }
    names = pa.DictionaryArray.from_arrays(pa.array(np.arange(fragments, dtype=np.int32) % TASKS), pa.array(ids))
    pieces = {
        "id": names.dictionary_decode(),
        "duration": np.full(fragments, 300_000),
        "cpu_usage": random.uniform(0, 8000, fragments),
    }
    with tempfile.TemporaryDirectory() as name:
        paths = Path(name) / "tasks.parquet", Path(name) / "fragments.parquet"
        pq.write_table(pa.table(tasks), paths[0])
        pq.write_table(pa.table(pieces), paths[1])
        read_opendc(*paths, step_s=86_400.0)  # compiled, files cached
        start = perf_counter()
        read_opendc(*paths)
        taken = perf_counter() - start
    return [(f"OpenDC trace of {fragments / 1e6:g} million fragments read", taken, "s", "")]
