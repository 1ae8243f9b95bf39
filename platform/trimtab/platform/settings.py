"""Options, read once: defaults here, overridden by a file, TRIMTAB_* environment variables and the command line.

What is told of an option here is what docs/configuration.md and `trimtab config show` tell.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from trimtab.platform.proposal import Limits

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
CONTRADICTIONS: Final = "contradictions"  # type of the fault that names options that do not fit each other


def _listed(value: Any) -> Any:
    """Lists may be written as JSON or with commas, as OpenStack's files do."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _mapped(value: Any) -> Any:
    """Maps may be written as JSON or as `key:value,key:value`, as OpenStack's files do."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return json.loads(value)
    pairs = [part.partition(":") for part in value.split(",") if part.strip()]
    if faulty := [key for key, colon, _ in pairs if not colon]:
        raise ValueError(f"write key:value,key:value; there is no colon in {faulty[0]!r}")
    return {key.strip(): text.strip() for key, _, text in pairs}


Texts = Annotated[list[str], NoDecode, BeforeValidator(_listed)]
TextByName = Annotated[dict[str, str], NoDecode, BeforeValidator(_mapped)]
WholeSecondsByName = Annotated[dict[str, int], NoDecode, BeforeValidator(_mapped)]
SecondsByName = Annotated[dict[str, Annotated[float, Field(gt=0)]], NoDecode, BeforeValidator(_mapped)]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def networks(trusted: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks; `*` stands for all.

    Raises:
        ValueError: one of them is neither.
    """
    found: list[Network] = []
    for text in trusted:
        found += [ipaddress.ip_network(one) for one in (("0.0.0.0/0", "::/0") if text == "*" else (text,))]
    return tuple(found)


class Section(BaseModel):
    """Options that belong together."""

    model_config = ConfigDict(extra="forbid")


class SimulatedCloudSettings(Section):
    """The embedded cloud that is used where no real one is configured."""

    hosts: int = Field(200, ge=2, le=20_000, description="Its hosts")
    instances: int = Field(2_000, ge=1, le=400_000, description="Its instances")
    zones: int = Field(2, ge=1, le=26, description="Its availability zones")
    seed: int = Field(1, description="The same seed gives the same cloud")
    speed: float = Field(1.0, gt=0, description="Cloud seconds that pass in one second of wall time")
    trace: Path | None = Field(None, description="PlanetLab-style Parquet file that replaces the generated load")


class OpenStackSettings(Section):
    """The real cloud, where `driver = "openstack"`."""

    cloud: str | None = Field(None, description="Its entry in clouds.yaml; the OS_* variables when not given")
    region: str | None = Field(None, description="Its region")
    in_flight: int = Field(8, ge=1, le=64, description="Most requests at a time")
    deadline_s: float = Field(120.0, gt=0, description="Seconds for which a question that fails is asked again")
    notifications_url: SecretStr | None = Field(None, description="Nova's message bus, rabbit://...; none: no updates")
    notification_topics: Texts = Field(["nova.versioned_notifications"], description="Each a topic or exchange.topic")
    notification_pool: str = Field("", description="A name of our own where others listen to these topics too")
    settle_s: float = Field(2.0, gt=0, description="Seconds for which news are gathered before the model is new")


class PrometheusSettings(Section):
    """Prometheus as a source of measurements; Watcher's `[prometheus_client]`."""

    host: str | None = Field(None, description="Its address")
    port: int = Field(9090, ge=1, le=65535, description="Its port")
    url: str | None = Field(None, description="Instead of host and port, such as https://metrics.example/prometheus")
    fqdn_label: str = Field("fqdn", description="Label that names the host")
    instance_uuid_label: str = Field("resource", description="Label that has the uuid of the instance")
    username: str | None = Field(None, description="For HTTP's basic authentication")
    password: SecretStr | None = Field(None, description="Its password")
    cafile: Path | None = Field(None, description="Certificates that Prometheus' own is checked against")
    certfile: Path | None = Field(None, description="Certificate that is shown to it")
    keyfile: Path | None = Field(None, description="Key of that certificate")
    timeout_s: float = Field(30.0, gt=0, description="Seconds that a query may take")

    def base_url(self) -> str | None:
        """Where it is; None when it is not configured."""
        if self.url is not None or self.host is None:
            return self.url
        return f"{'https' if self.cafile or self.certfile else 'http'}://{self.host}:{self.port}"


class AetosSettings(Section):
    """Prometheus behind Keystone, found in the catalogue as `metric-storage`."""

    interface: str = Field("public", description="Interface of its endpoint")
    region_name: str | None = Field(None, description="Region of its endpoint")
    fqdn_label: str = Field("fqdn", description="Label that names the host")
    instance_uuid_label: str = Field("resource", description="Label that has the uuid of the instance")


class GnocchiSettings(Section):
    """Gnocchi, found in the catalogue as `metric`."""

    endpoint_type: str = Field("public", description="Interface of its endpoint")
    region_name: str | None = Field(None, description="Region of its endpoint")


class GrafanaSettings(Section):
    """InfluxDB behind Grafana's proxy; the maps are by Watcher's names of metrics."""

    token: SecretStr | None = Field(None, description="Grafana's token for services")
    base_url: str | None = Field(None, description="Up to the number of the data source")
    http_timeout: float = Field(60.0, gt=0, description="Seconds that a query may take")
    project_id_map: TextByName = Field({}, description="Number of the data source")
    database_map: TextByName = Field({}, description="Database")
    attribute_map: TextByName = Field({}, description="Attribute of a resource that the query names it by")
    translator_map: TextByName = Field({}, description="Kind of database: influxdb")
    query_map: TextByName = Field({}, description="Query")
    retention_periods: WholeSecondsByName = Field(
        {"one_week": 604_800, "one_month": 2_592_000, "five_years": 31_556_952},
        description="Seconds that each of InfluxDB's retention policies keeps",
    )


class RaySettings(Section):
    """How much of this machine a local Ray takes."""

    num_cpus: int | None = Field(None, ge=1, description="CPUs for tasks; all of the machine's when not given")
    object_store_mb: int = Field(256, ge=80, description="Shared memory for objects")
    dashboard: bool = Field(True, description="Whether there is a dashboard, on loopback")
    dashboard_port: int = Field(8265, ge=1, le=65535, description="Its port")
    metrics_port: int | None = Field(None, description="Export Ray's metrics here (loopback only is advised)")
    address: str | None = Field(None, description="Join this Ray cluster instead of starting a local one")


class KeystoneSettings(Section):
    """Where tokens are validated, and as whom; Watcher's `[keystone_authtoken]`."""

    auth_url: str | None = Field(None, description="Keystone's address, such as http://controller:5000/v3")
    www_authenticate_uri: str | None = Field(None, description="Address told to callers without token; else auth_url")
    username: str | None = Field(None, description="The service user")
    password: SecretStr | None = Field(None, description="Its password")
    user_domain_name: str = Field("Default", description="Its domain")
    user_domain_id: str | None = Field(None, description="Instead of user_domain_name")
    project_name: str = Field("service", description="The project in which it has the role `service`")
    project_domain_name: str = Field("Default", description="That project's domain")
    project_domain_id: str | None = Field(None, description="Instead of project_domain_name")
    region_name: str | None = Field(None, description="Region of Keystone in the catalogue")
    cafile: Path | None = Field(None, description="Certificates that Keystone's own is checked against")
    insecure: bool = Field(False, description="Do not check Keystone's certificate")
    interface: str | None = Field(
        None, description="Interface of the catalogue's Keystone that is asked; else auth_url"
    )
    http_connect_timeout: float = Field(10.0, gt=0, description="Seconds that Keystone has to answer")
    token_cache_time: float = Field(300.0, ge=0, description="Seconds for which a valid token is not asked about again")
    token_cache_size: int = Field(10_000, ge=1, description="Most tokens that are remembered")
    validations: int = Field(8, ge=1, description="Most tokens that are asked about at once")


class CorsSettings(Section):
    """Which web pages of other origins may call the API; none unless `allowed_origin` names them."""

    allowed_origin: Texts = Field([], description="Origins such as https://dashboard.example, or *")
    allow_credentials: bool = Field(True, description="Whether pages may send cookies and certificates")
    allow_methods: Texts = Field(["GET", "PUT", "POST", "DELETE", "PATCH"], description="Methods pages may use")
    allow_headers: Texts = Field(
        [
            "X-Auth-Token",
            "X-Identity-Status",
            "X-Roles",
            "X-Service-Catalog",
            "X-User-Id",
            "X-Tenant-Id",
            "X-OpenStack-Request-ID",
        ],
        description="Headers pages may send",
    )
    expose_headers: Texts = Field(
        ["X-Auth-Token", "X-Subject-Token", "X-Service-Token", "X-OpenStack-Request-ID"],
        description="Headers pages may read",
    )
    max_age: int = Field(3600, ge=0, description="Seconds for which a browser may remember the answer")


class SslSettings(Section):
    """The server's certificate; without one the API speaks plain HTTP."""

    cert_file: Path | None = Field(None, description="Certificate, with those that signed it")
    key_file: Path | None = Field(None, description="Its key")


class Settings(BaseSettings):
    """All options of Trimtab; times in seconds."""

    model_config = SettingsConfigDict(env_prefix="TRIMTAB_", env_nested_delimiter="__", extra="forbid")

    data_dir: Path = Field(Path("trimtab-data"), description="Folder of records, measurements and the log")
    host: str = Field("127.0.0.1", description="Address that is served; other ones than loopback need auth")
    port: int = Field(9322, ge=1, le=65535, description="Port of the API")
    hostname: str = Field("trimtab", description="Name of this node in service rows and `hostname` fields")
    service_down_time_s: float = Field(
        90.0, gt=0, description="Seconds without a sign of life until a service is FAILED"
    )
    max_limit: int = Field(1000, ge=1, description="Page size cap of lists, and the default limit")

    auth: Literal["none", "keystone"] = Field("none", description="Who is asked whether a caller may come in")
    insecure_no_auth: bool = Field(False, description="Serve other addresses than this machine's own without auth")
    policy_file: Path | None = Field(None, description="YAML file that overrides policies, read again when it changes")
    enable_webhooks_auth: bool = Field(True, description="Whether webhooks need a token and a role")
    max_body_bytes: int = Field(1_048_576, ge=1, description="Larger requests are refused")
    requests_per_second: float = Field(0.0, ge=0, description="Most of one caller on average; 0 sets no limit")
    requests_burst: int = Field(100, ge=1, description="Most of one caller at once, where there is a limit")
    trusted_proxies: Texts = Field([], description="Addresses and networks whose X-Forwarded-* headers are believed")

    periodic_interval_s: float = Field(60.0, gt=0, description="Seconds between two signs of life of a service")
    continuous_audit_interval_s: float = Field(
        10.0, gt=0, description="Seconds between two looks for continuous audits that are due"
    )
    action_plan_expiry_h: float = Field(
        24.0, ge=0, description="Hours until a plan that nobody started is SUPERSEDED; 0: never"
    )
    check_periodic_interval_s: float = Field(1800.0, gt=0, description="Seconds between two looks for such plans")
    notification_level: Literal["", "debug", "info", "warning", "error", "critical"] = Field(
        "info", description="Least priority of notifications that are sent; empty: none is"
    )
    notifications_url: SecretStr | None = Field(None, description="Message bus for notifications, rabbit://...")

    collect_interval_s: float = Field(300.0, gt=0, description="Cloud seconds between two collections")
    history_s: float = Field(86_400.0, gt=0, description="How much recorded load a rehearsal may look back on")
    keep_days: int = Field(30, ge=1, description="Days after which recorded measurements are deleted")
    horizon_s: float = Field(86_400.0, gt=0, description="How far a rehearsal looks ahead")
    max_audit_workers: int = Field(2, ge=1, description="Audits at once")
    applier_workers: int = Field(1, ge=1, description="Action plans at once")
    lease_s: float = Field(15.0, gt=0, description="After so long without a sign of life others take over")
    audit_deadline_s: float = Field(600.0, gt=0, description="A strategy or rehearsal that takes longer is stopped")
    seed: int = Field(0, description="Of what strategies and rehearsals draw")
    weigh_moves: bool = Field(True, description="Leave out moves that cost more than they bring in an instance's life")
    rules_file: Path | None = Field(None, description="YAML or JSON file with the operator's rules, see docs/rules.md")

    whatif_most_cells: int = Field(100_000, ge=1, description="A what-if sweep with more cells is refused")
    whatif_deadline_s: float = Field(600.0, gt=0, description="A cell of a what-if that takes longer is stopped")

    migrations_per_host: int = Field(1, ge=1, description="Migrations at once from or to one host")
    migrations_total: int = Field(20, ge=1, description="Migrations at once in all")
    migration_interval_s: float = Field(5.0, ge=0.1, description="Cloud seconds between two looks at a migration")
    migration_deadline_s: float = Field(900.0, gt=0, description="Cloud seconds after which a migration is given up")
    rollback_when_actionplan_failed: bool = Field(
        False, description="Undo what a plan did when one of its actions fails"
    )
    abort_when_cancelled: bool = Field(True, description="Live migrations of a plan that is cancelled are aborted")
    action_timeouts_s: SecondsByName = Field(
        {}, description="By action type, seconds after which it is given up; others have migration_deadline_s"
    )

    keystone_authtoken: KeystoneSettings = KeystoneSettings()
    cors: CorsSettings = CorsSettings()
    ssl: SslSettings = SslSettings()
    driver: Literal["simulated", "openstack"] = Field("simulated", description="The cloud that is optimised")
    datasources: Annotated[
        list[Literal["prometheus", "aetos", "gnocchi", "grafana"]], NoDecode, BeforeValidator(_listed)
    ] = Field(
        ["gnocchi", "grafana", "aetos"], description="Where a real cloud's measurements come from, the preferred first"
    )
    openstack: OpenStackSettings = OpenStackSettings()
    prometheus_client: PrometheusSettings = PrometheusSettings()
    aetos_client: AetosSettings = AetosSettings()
    gnocchi_client: GnocchiSettings = GnocchiSettings()
    grafana_client: GrafanaSettings = GrafanaSettings()
    cloud: SimulatedCloudSettings = SimulatedCloudSettings()
    ray: RaySettings = RaySettings()

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        networks(value)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if faults := self.contradictions():
            text = "; ".join(f"{path}: {fault}" for path, fault in faults)
            raise PydanticCustomError(CONTRADICTIONS, "{text}", {"text": text, "faults": faults})
        return self

    def contradictions(self) -> list[tuple[str, str]]:
        """Options that do not fit others: their paths, and what to do."""
        found = []
        if self.auth == "none" and not is_loopback(self.host) and not self.insecure_no_auth:
            why = f"everybody who reaches {self.host} could change the cloud"
            remedy = 'set auth = "keystone", or host = "127.0.0.1"; who wants just that says --insecure-no-auth'
            found.append(("host", f"{why}: {remedy}"))
        if {"prometheus", "aetos"} <= set(self.datasources):
            found.append(("datasources", "prometheus and aetos are the same behind two doors: name one of them"))
        if self.driver == "openstack" and "prometheus" in self.datasources and not self.prometheus_client.base_url():
            found.append(("prometheus_client.host", "datasources names prometheus: say where it is"))
        if self.auth == "keystone":
            found += [
                (f"keystone_authtoken.{name}", 'auth = "keystone" needs it')
                for name in ("auth_url", "username", "password")
                if getattr(self.keystone_authtoken, name) is None
            ]
        if (self.ssl.cert_file is None) != (self.ssl.key_file is None):
            missing = "ssl.cert_file" if self.ssl.cert_file is None else "ssl.key_file"
            found.append((missing, "a certificate needs its key, and a key its certificate"))
        return found

    @property
    def limits(self) -> Limits:
        """Migrations in flight."""
        return Limits(self.migrations_per_host, self.migrations_total)
