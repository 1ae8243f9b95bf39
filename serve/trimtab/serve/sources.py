"""The datasources of the settings, in the operator's order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx

from trimtab.platform.datasources.asking import Asking
from trimtab.platform.datasources.gnocchi import Gnocchi
from trimtab.platform.datasources.grafana import Asked, Grafana
from trimtab.platform.datasources.known import Known
from trimtab.platform.datasources.ordered import Ordered, Source
from trimtab.platform.datasources.prometheus import Aetos, Prometheus
from trimtab.platform.errors import InvalidInput
from trimtab.platform.openstack.rest import Rest
from trimtab.platform.settings import GrafanaSettings, PrometheusSettings, Settings

TIMEOUT_S = 60.0
CONNECT_S = 5.0  # a host that is gone is noticed long before a slow query is given up


def sources_of(settings: Settings, rest: Rest, known: Callable[[], Known]) -> Ordered:
    """All that are named; Grafana only where it is configured, since Watcher's default order names it.

    Args:
        settings: which, and where they are.
        rest: the way to those behind Keystone.
        known: who is who in the cloud at the moment.

    Raises:
        InvalidInput: one is named, and where it is is not told.
    """
    found: list[Source] = []
    for name in settings.datasources:
        if name == "prometheus":
            there = settings.prometheus_client
            found.append(Prometheus(Asking(name, _client(there)), known, there.fqdn_label, there.instance_uuid_label))
        elif name == "aetos":
            aetos = settings.aetos_client
            asking = _behind(rest, name, "metric-storage", aetos.interface, aetos.region_name)
            found.append(Aetos(asking, known, aetos.fqdn_label, aetos.instance_uuid_label))
        elif name == "gnocchi":
            gnocchi = settings.gnocchi_client
            found.append(Gnocchi(_behind(rest, name, "metric", gnocchi.endpoint_type, gnocchi.region_name), known))
        elif settings.grafana_client.base_url is not None:
            found.append(_grafana(settings.grafana_client, known))
    return Ordered(found)


def _behind(rest: Rest, name: str, service_type: str, interface: str, region: str | None) -> Asking:
    async def door(fresh: bool) -> tuple[str, Mapping[str, str]]:
        return await rest.door(service_type, interface.removesuffix("URL"), region, fresh=fresh)

    return Asking(name, httpx.AsyncClient(timeout=_patience(TIMEOUT_S)), door)


def _patience(query_s: float) -> httpx.Timeout:
    return httpx.Timeout(query_s, connect=min(query_s, CONNECT_S))


def _client(told: PrometheusSettings) -> httpx.AsyncClient:
    base = told.base_url()
    if base is None:
        raise InvalidInput("prometheus_client.host: say where Prometheus is")
    password = told.password.get_secret_value() if told.password else ""
    return httpx.AsyncClient(
        base_url=base,
        auth=(told.username, password) if told.username else None,
        verify=str(told.cafile) if told.cafile else True,
        cert=(str(told.certfile), str(told.keyfile)) if told.certfile and told.keyfile else None,
        timeout=_patience(told.timeout_s),
    )


def _grafana(told: GrafanaSettings, known: Callable[[], Known]) -> Grafana:
    maps = (told.project_id_map, told.database_map, told.attribute_map, told.query_map)
    whole = set.intersection(*(set(one) for one in maps)) & set(told.translator_map)
    metrics = {name: Asked(*(one[name] for one in maps)) for name in whole if told.translator_map[name] == "influxdb"}
    token = told.token.get_secret_value() if told.token else ""
    client = httpx.AsyncClient(
        base_url=told.base_url or "",
        headers={"Authorization": f"Bearer {token}"},
        timeout=_patience(told.http_timeout),
    )
    return Grafana(Asking("grafana", client, at_most=8), known, metrics, told.retention_periods)
