"""Models as a folder of Parquet files: nodes, instances, server_groups, and storage and metal; all or nothing."""

import shutil
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trimtab.platform.errors import ModelError
from trimtab.platform.model.baremetal import BaremetalModel
from trimtab.platform.model.compute import ClusterModel
from trimtab.platform.model.storage import StorageModel

STORAGE = ("storage_nodes", "pools", "volume_types", "volumes")
METAL = "metal_nodes"


def write_model(
    model: ClusterModel, folder: Path, storage: StorageModel | None = None, baremetal: BaremetalModel | None = None
) -> None:
    """Write `nodes.parquet`, `instances.parquet` and `server_groups.parquet` into a folder, which must not exist.

    With a storage model also `storage_nodes`, `pools`, `volume_types` and `volumes`, with a baremetal model also
    `metal_nodes`.

    Raises:
        ModelError: the folder exists already.
    """
    if folder.exists():
        raise ModelError(f"{folder} exists already: choose another folder or remove it")
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    part.mkdir(parents=True)
    tables = dict(zip(("nodes", "instances", "server_groups"), model.to_arrow(), strict=True))
    if storage is not None:
        tables |= dict(zip(STORAGE, storage.to_arrow(), strict=True))
    if baremetal is not None:
        tables[METAL] = baremetal.to_arrow()
    try:
        for name, table in tables.items():
            pq.write_table(table, part / f"{name}.parquet", compression="zstd")
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_model(folder: Path) -> ClusterModel:
    """Read what `write_model` wrote, or any folder whose files have the same columns.

    A single text column `aggregate` in nodes.parquet is taken as a list of one.

    Raises:
        ModelError: a file is missing or its rows do not make a model.
    """
    tables: dict[str, Any] = {}
    for name, required in (("nodes", True), ("instances", True), ("server_groups", False)):
        path = folder / f"{name}.parquet"
        if path.exists():
            tables[name] = pq.read_table(path)
        elif required:
            raise ModelError(f"{path} is missing: a model folder needs nodes.parquet and instances.parquet")
        else:
            tables[name] = None
    nodes = tables["nodes"]
    if "aggregate" in nodes.column_names and "aggregates" not in nodes.column_names:
        one = [[name] if name else [] for name in nodes.column("aggregate").to_pylist()]
        nodes = nodes.append_column("aggregates", pa.array(one, pa.list_(pa.string())))
    return ClusterModel.from_arrow(nodes, tables["instances"], tables["server_groups"])


def read_storage(folder: Path) -> StorageModel | None:
    """The storage model in a folder; None when there is no `pools.parquet`.

    Raises:
        ModelError: a file is missing or its rows do not make a model.
    """
    if not (folder / "pools.parquet").exists():
        return None
    paths = [folder / f"{name}.parquet" for name in STORAGE]
    if missing := [path for path in paths if not path.exists()]:
        raise ModelError(f"{missing[0]} is missing: storage needs {', '.join(f'{name}.parquet' for name in STORAGE)}")
    return StorageModel.from_arrow(*(pq.read_table(path) for path in paths))


def read_baremetal(folder: Path) -> BaremetalModel | None:
    """The baremetal model in a folder; None when there is no `metal_nodes.parquet`.

    Raises:
        ModelError: its rows do not make a model.
    """
    path = folder / f"{METAL}.parquet"
    return BaremetalModel.from_arrow(pq.read_table(path)) if path.exists() else None
