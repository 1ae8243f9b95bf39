"""The datasources of the settings, in the operator's order."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from trimtab.platform.datasources.asking import Asking
from trimtab.platform.datasources.known import Known
from trimtab.platform.datasources.ordered import Ordered, Source
from trimtab.platform.datasources.prometheus import Prometheus
from trimtab.platform.errors import InvalidInput
from trimtab.platform.settings import PrometheusSettings, Settings


def sources_of(settings: Settings, known: Callable[[], Known]) -> Ordered:
    """All that are named and configured.

    Raises:
        InvalidInput: one is named, and where it is is not told.
    """
    return Ordered([_source(name, settings, known) for name in settings.datasources])


def _source(name: str, settings: Settings, known: Callable[[], Known]) -> Source:
    if name == "prometheus":
        told = settings.prometheus_client
        return Prometheus(Asking(name, _client(told)), known, told.fqdn_label, told.instance_uuid_label)
    raise InvalidInput(f"datasources: {name} is not there")


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
        timeout=told.timeout_s,
    )
