"""The storage and the baremetal model keep what they are given and name what is wrong."""

import numpy as np
import pyarrow as pa
import pytest

from trimtab.platform.errors import ModelError
from trimtab.platform.model import BaremetalModel, StorageModel

NODES = pa.table({"host": ["h0@b0", "h1@b1"], "state": ["up", "down"]})
POOLS = pa.table(
    {
        "name": ["h0@b0#p0", "h1@b1#p0", "lost#p"],
        "node": ["h0@b0", "h1@b1", None],
        "total_gb": [500.0, float("inf"), None],
        "free_gb": [420.0, float("inf"), None],
        "backend": ["b0", "b1", ""],
    }
)
TYPES = pa.table({"name": ["gold"], "backend": ["b0"], "extra_specs": ['{"qos": "high"}']})
VOLUMES = pa.table(
    {
        "uuid": ["v0", "v1"],
        "size_gb": [40, 1],
        "pool": ["h0@b0#p0", None],
        "type": ["gold", ""],
        "attached_to": pa.array([["s0", "s1"], []], pa.list_(pa.string())),
    }
)


def test_a_storage_model_knows_pools_types_and_volumes() -> None:
    model = StorageModel.from_arrow(NODES, POOLS, TYPES, VOLUMES)
    assert model.usable.tolist() == [True, False, True]
    assert model.pool_of.tolist() == [0, -1]
    assert model.type_of.tolist() == [0, -1]
    assert model.attached.tolist() == [True, False]
    assert np.isinf(model.total_gb[1])
    assert np.isnan(model.free_gb[2])
    assert model.pool_name(0) == "h0@b0#p0"
    with pytest.raises(ValueError, match="read-only"):
        model.free_gb[0] = 1


def test_a_storage_model_survives_the_way_to_arrow_and_back() -> None:
    tables = StorageModel.from_arrow(NODES, POOLS, TYPES, VOLUMES).to_arrow()
    again = StorageModel.from_arrow(*tables).to_arrow()
    for first, second in zip(tables, again, strict=True):
        assert str(first.to_pylist()) == str(second.to_pylist())  # NaN is not equal to itself


@pytest.mark.parametrize(
    ("volumes", "complaint"),
    [
        (
            {"uuid": ["v"], "size_gb": [1], "pool": ["nowhere"]},
            r"volumes row 0 \(v\): pool 'nowhere' is not in the pools",
        ),
        ({"uuid": ["v"], "size_gb": [-1], "pool": ["h0@b0#p0"]}, "size_gb is -1"),
        ({"uuid": ["v", "v"], "size_gb": [1, 1], "pool": [None, None]}, "stands in row 0 too"),
        ({"uuid": ["v"], "size_gb": [1], "pool": [None], "type": ["tin"]}, "'tin' is not in the volume_types"),
    ],
)
def test_a_wrong_volume_is_named(volumes: dict[str, list[object]], complaint: str) -> None:
    table = pa.table({**volumes, "pool": pa.array(volumes["pool"], pa.string())})
    with pytest.raises(ModelError, match=complaint):
        StorageModel.from_arrow(NODES, POOLS, TYPES, table)


def test_a_pool_with_negative_space_is_refused() -> None:
    with pytest.raises(ModelError, match=r"pools row 0 \(p\): free_gb is -3"):
        StorageModel.from_arrow(NODES, pa.table({"name": ["p"], "node": ["h0@b0"], "free_gb": [-3.0]}))


def test_metal_nodes_keep_power_and_maintenance() -> None:
    table = pa.table(
        {"uuid": ["m0", "m1"], "power": ["on", "off"], "hostname": ["c0", ""], "maintenance": [False, True]}
    )
    model = BaremetalModel.from_arrow(table)
    assert model.power.tolist() == [0, 1]
    assert BaremetalModel.from_arrow(model.to_arrow()).to_arrow() == model.to_arrow()
    with pytest.raises(ModelError, match=r"metal_nodes row 0 \(m\): power is 'warm'; use one of on, off, unknown"):
        BaremetalModel.from_arrow(pa.table({"uuid": ["m"], "power": ["warm"]}))
