"""What Prometheus reads at /metrics beside records by state: parts that are up, and a model that is stale."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from trimtab.platform.model import VCPU
from trimtab.platform.records import Service
from trimtab.platform.snapshot import History
from trimtab.serve.figures import cluster_figures, newest_of_each


async def test_metrics_tell_which_parts_are_up_and_whether_the_model_is_stale(idle: Any) -> None:
    now = datetime.now(UTC)
    for host, seen in (("here", now), ("gone", now - timedelta(hours=1))):
        idle.store.create(Service(uuid=str(uuid4()), name="watcher-applier", host=host, last_seen_up=seen))
    await idle.collector.collect()
    text = (await idle.http.get("/metrics")).text
    assert 'trimtab_service_up{host="here",name="watcher-applier"} 1.0' in text
    assert 'trimtab_service_up{host="gone",name="watcher-applier"} 0.0' in text
    assert "trimtab_cluster_stale 0.0" in text
    idle.collector.fault = "Nova is away"
    assert "trimtab_cluster_stale 1.0" in (await idle.http.get("/metrics")).text


async def test_figures_count_everybody_also_where_the_last_sample_has_holes(idle: Any) -> None:
    await idle.collector.collect()
    collector, model = idle.collector, idle.collector.model
    whole = np.full((3, model.instances), 50.0, np.float32)
    collector.history = History(0.0, 300.0, whole)
    full = cluster_figures(collector)
    holes = whole.copy()
    holes[-1, ::2] = np.nan
    holes[:, 0] = np.nan
    collector.history = History(0.0, 300.0, holes)
    one = float(50.0 * model.demand[0, VCPU] / model.total[int(model.host_of[0]), VCPU])
    by_host = cluster_figures(collector)["cpu_pct_by_host"]
    for host, (now, before) in enumerate(zip(by_host, full["cpu_pct_by_host"], strict=True)):
        assert now == pytest.approx(before - (one if host == model.host_of[0] else 0.0), abs=0.011)
    assert np.isnan(newest_of_each(holes[:, :1])).all()
    assert np.isnan(newest_of_each(holes[:0])).all()
