"""What Prometheus reads at /metrics beside records by state: parts that are up, and a model that is stale."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from trimtab.platform.records import Service


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
