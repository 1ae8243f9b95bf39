"""A model as a folder of Parquet files: nodes, instances, server_groups; written whole or not at all."""

import shutil
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trimtab.platform.errors import ModelError
from trimtab.platform.model.compute import ClusterModel


def write_model(model: ClusterModel, folder: Path) -> None:
    """Write `nodes.parquet`, `instances.parquet` and `server_groups.parquet` into a folder, which must not exist.

    Raises:
        ModelError: the folder exists already.
    """
    if folder.exists():
        raise ModelError(f"{folder} exists already: choose another folder or remove it")
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    part.mkdir(parents=True)
    try:
        for name, table in zip(("nodes", "instances", "server_groups"), model.to_arrow(), strict=True):
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
