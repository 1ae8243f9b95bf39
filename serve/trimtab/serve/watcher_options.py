"""Watcher's options and what they are here: counterparts that are taken over, and those that have none and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Given = Mapping[str, Any]  # all that a file says, by "section.option"


class Counterpart(NamedTuple):
    """The option that has the same meaning here.

    `value` makes its value from Watcher's, where that is not the same; it raises ValueError for what has no meaning.
    """

    path: str
    value: Callable[[Any, Given], Any] | None = None


def _authentication(value: Any, _: Given) -> str:
    return "keystone" if _truth(value) else "none"


def _truth(value: Any) -> bool:
    text = str(value).strip().lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off"}:
        return False
    raise ValueError(f"write true or false, not {value!r}")


def _retries(value: Any, given: Given) -> float:
    try:
        return float(value) * float(given.get("nova.migration_interval", 5.0))
    except ValueError as error:
        raise ValueError(f"write numbers: {error}") from error


COUNTERPARTS: Mapping[str, Counterpart] = {
    "DEFAULT.host": Counterpart("hostname"),
    "DEFAULT.periodic_interval": Counterpart("periodic_interval_s"),
    "DEFAULT.service_down_time": Counterpart("service_down_time_s"),
    "DEFAULT.enable_authentication": Counterpart("auth", _authentication),
    "DEFAULT.notification_level": Counterpart("notification_level"),
    "DEFAULT.state_path": Counterpart("data_dir"),
    "DEFAULT.transport_url": Counterpart("notifications_url"),
    "oslo_messaging_notifications.transport_url": Counterpart("notifications_url"),
    "api.port": Counterpart("port"),
    "api.host": Counterpart("host"),
    "api.max_limit": Counterpart("max_limit"),
    "api.enable_webhooks_auth": Counterpart("enable_webhooks_auth"),
    "oslo_policy.policy_file": Counterpart("policy_file"),
    "oslo_middleware.max_request_body_size": Counterpart("max_body_bytes"),
    "watcher_decision_engine.max_audit_workers": Counterpart("max_audit_workers"),
    "watcher_decision_engine.action_plan_expiry": Counterpart("action_plan_expiry_h"),
    "watcher_decision_engine.check_periodic_interval": Counterpart("check_periodic_interval_s"),
    "watcher_decision_engine.continuous_audit_interval": Counterpart("continuous_audit_interval_s"),
    "watcher_applier.workers": Counterpart("applier_workers"),
    "watcher_applier.rollback_when_actionplan_failed": Counterpart("rollback_when_actionplan_failed"),
    "watcher_cluster_data_model_collectors.compute.period": Counterpart("collect_interval_s"),
    "watcher_decision_engine.notification_topics": Counterpart("openstack.notification_topics"),
    "watcher_datasources.datasources": Counterpart("datasources"),
    "watcher_clients_auth.region_name": Counterpart("openstack.region"),
    "nova.region_name": Counterpart("openstack.region"),
    "grafana_translators.retention_periods": Counterpart("grafana_client.retention_periods"),
    "nova.migration_interval": Counterpart("migration_interval_s"),
    "nova.migration_max_retries": Counterpart("migration_deadline_s", _retries),
    "keystone_authtoken.auth_uri": Counterpart("keystone_authtoken.www_authenticate_uri"),
}

_LOGS = "logs go to trimtab.log in the data folder"
_BUS = "there is no message bus between the parts; Ray connects them"
_MODELS = "models are collected as a whole, by the driver of the cloud"
_CLOUD = "openstacksdk signs in: name an entry of clouds.yaml in openstack.cloud, or set OS_* variables"
_RETRIES = "what fails is asked again for openstack.deadline_s"
_GONE = "Watcher itself has left it"
_CACHE = "tokens are remembered in the API's own memory"
NOT_USED: Mapping[str, str] = {
    **{
        f"DEFAULT.{name}": _LOGS
        for name in ("debug", "log_file", "log_dir", "log_config_append", "log_date_format", "use_syslog",
                     "use_stderr", "use_journal", "use_json", "syslog_log_facility", "watch_log_file",
                     "logging_context_format_string", "logging_default_format_string", "default_log_levels",
                     "print_thread_pool_stats", "instance_format")
    },
    **{f"DEFAULT.{name}": _BUS for name in ("control_exchange", "rpc_response_timeout", "executor_thread_pool_size")},
    "DEFAULT.fatal_exception_format_errors": "for developers of Watcher",
    "DEFAULT.pybasedir": "set data_dir",
    "DEFAULT.bindir": "set data_dir",
    "api.workers": "Ray Serve scales the API",
    "api.enable_ssl_api": "TLS is on when ssl.cert_file and ssl.key_file are given",
    **{
        f"keystone_authtoken.{name}": _CACHE
        for name in ("memcached_servers", "memcache_security_strategy", "memcache_secret_key", "cache",
                     "memcache_use_advanced_pool", "memcache_pool_maxsize", "memcache_pool_dead_retry",
                     "memcache_pool_socket_timeout",
                     "memcache_pool_unused_timeout", "memcache_pool_conn_get_timeout")
    },
    **{
        f"keystone_authtoken.{name}": "the service user signs in with its password"
        for name in ("auth_type", "auth_plugin", "auth_section", "auth_version", "auth_protocol", "certfile", "keyfile")
    },
    **{
        f"keystone_authtoken.{name}": "no request without a valid token of a user comes in"
        for name in ("delay_auth_decision", "service_token_roles", "service_token_roles_required", "service_type",
                     "enforce_token_bind", "include_service_catalog", "http_request_max_retries")
    },
    "ssl.ca_file": "clients' certificates are asked for by a proxy in front, if at all",
    "oslo_policy.enforce_scope": "rules say what they need: system_scope:all, project_id:%(project_id)s",
    "oslo_policy.enforce_new_defaults": "there is one set of defaults",
    "oslo_policy.policy_dirs": "write all rules into policy_file",
    "oslo_policy.policy_default_rule": "the rule named default",
    "oslo_middleware.enable_proxy_headers_parsing": "name your proxies in trusted_proxies",
    "oslo_messaging_notifications.driver": "notifications are sent when notifications_url is given",
    "oslo_messaging_notifications.topics": "the topic is watcher's own: notifications",
    "oslo_messaging_notifications.retry": "notifications wait and are tried again",
    **{f"watcher_decision_engine.{name}": _BUS for name in ("conductor_topic", "publisher_id")},
    "watcher_decision_engine.max_general_workers": "see ray.num_cpus",
    "watcher_decision_engine.metric_map_path": "metrics have one name each",
    "watcher_planner.planner": "strategies choose their planner, in Watcher as well",
    **{f"watcher_applier.{name}": _BUS for name in ("conductor_topic", "publisher_id")},
    "watcher_applier.workflow_engine": "there is one applier; it runs what may run in parallel",
    "watcher_workflow_engines.taskflow.max_workers": "see migrations_total and migrations_per_host",
    "watcher_workflow_engines.taskflow.action_execution_rule": "an action waits for those it depends on, always",
    "collector.collector_plugins": "all models are loaded",
    **{
        f"collector.{name}": _MODELS
        for name in ("api_query_max_retries", "api_query_interval", "api_call_retries", "api_query_timeout",
                     "compute_resources_collector_timeout")
    },
    "watcher_cluster_data_model_collectors.storage.period": _MODELS,
    "watcher_cluster_data_model_collectors.baremetal.period": _MODELS,
    "compute_model.enable_extended_attributes": _MODELS,
}  # fmt: skip
# Sections whose options come from libraries, or belong to services that are not asked yet.
NOT_USED_SECTIONS: Mapping[str, str] = {
    "database": "records are in data_dir; `trimtab import watcher --db URL` brings those of Watcher over",
    "oslo_messaging_rabbit": _BUS,
    "oslo_messaging_kafka": _BUS,
    "oslo_concurrency": "nothing locks files",
    "oslo_reports": "see Ray's dashboard",
    "watcher_planners": "weights are those of the planner `weight`",
    "watcher_strategies": "strategies take parameters, see their parameters_spec",
    "watcher_datasources": _RETRIES,
    "watcher_messenger": _BUS,
    "gnocchi_client": "the catalogue says which version there is",
    "grafana_client": _GONE,
    "grafana_translators": _GONE,
    "prometheus_client": _GONE,
    "aetos_client": _GONE,
    **dict.fromkeys(("monasca_client", "ceilometer_client"), _GONE),
    **dict.fromkeys(
        ("watcher_clients_auth", "nova", "cinder", "keystone", "placement", "glance_client", "nova_client",
         "cinder_client", "keystone_client", "placement_client", "ironic_client", "maas_client", "neutron_client"),
        _CLOUD,
    ),
}  # fmt: skip
# Sections whose options have the same names there and here, but for these.
SAME_SECTIONS = ("keystone_authtoken", "cors", "ssl", "prometheus_client", "aetos_client", "gnocchi_client",
                 "grafana_client")  # fmt: skip
OUR_OWN = frozenset({
    "keystone_authtoken.token_cache_size", "keystone_authtoken.validations", "prometheus_client.url",
    "prometheus_client.timeout_s", "grafana_client.retention_periods",
})  # fmt: skip
SECTIONS = frozenset({name.rpartition(".")[0] for name in (*COUNTERPARTS, *NOT_USED)}) | frozenset(NOT_USED_SECTIONS)


def why_unused(name: str) -> str | None:
    """Why an option of Watcher, as "section.option", does nothing here; None when it is not known to be unused."""
    if name in NOT_USED:
        return NOT_USED[name]
    section = name.rpartition(".")[0]
    while section:
        if section in NOT_USED_SECTIONS:
            return NOT_USED_SECTIONS[section]
        section = section.rpartition(".")[0]
    return None


def names_at_watcher(path: str) -> list[str]:
    """What an option of ours is called there, as "section.option"; most have one name, ours alone have none."""
    same = path.partition(".")[0] in SAME_SECTIONS and path not in OUR_OWN
    return [path] * same + [name for name, one in COUNTERPARTS.items() if one.path == path]
