"""The datasources of the settings, in the operator's order."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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

    session = rest.connection.session  # whom the cloud's own services are trusted by
    client = httpx.AsyncClient(verify=_trust(name, session.verify, session.cert), timeout=_patience(TIMEOUT_S))
    return Asking(name, client, door)


def _trust(name: str, verify: bool | str | Path | None, cert: Any) -> ssl.SSLContext | bool:
    """How TLS is spoken with a backend.

    Args:
        name: of the datasource, for messages.
        verify: whether its certificate is checked, or the file of certificates it is checked against; None: as usual.
        cert: our own certificate: a file, or a pair of it and its key.

    Raises:
        InvalidInput: a file is not there or has no certificate.
    """
    if verify in (True, None) and not cert:
        return True
    try:
        trusted = None if isinstance(verify, bool | None) else str(verify)
        folder = trusted is not None and Path(trusted).is_dir()
        context = ssl.create_default_context(cafile=None if folder else trusted, capath=trusted if folder else None)
        if cert:
            context.load_cert_chain(
                *([str(cert)] if isinstance(cert, str | Path) else [one and str(one) for one in cert])
            )
    except OSError as error:  # ssl's own errors, too
        raise InvalidInput(f"the certificates for {name} cannot be used: {error}") from error
    if verify is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


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
        verify=_trust("prometheus", told.cafile, (told.certfile, told.keyfile) if told.certfile else None),
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
