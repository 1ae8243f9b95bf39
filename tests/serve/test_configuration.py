"""Where options come from and what is told of them, through the command line as an operator uses it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trimtab.platform.settings import Settings
from trimtab.serve.config_command import tables
from trimtab.serve.configuration import options
from trimtab.serve.main import app
from trimtab.serve.watcher_options import COUNTERPARTS, NOT_USED, OUR_OWN, SAME_SECTIONS, why_unused

DOCS = Path(__file__).parents[2] / "docs"
PASSWORD = "p4ssw0rd-of-the-service"

Told = tuple[int, str, str]
Trimtab = Callable[..., Told]


@pytest.fixture
def trimtab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trimtab:
    """The command line in an empty folder; exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, environ: Mapping[str, str] | None = None) -> Told:
        wide = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1", "TERM": "dumb"}
        told = CliRunner().invoke(app, list(arguments), env={**wide, **(environ or {})}, prog_name="trimtab")
        assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
        return told.exit_code, told.stdout, told.stderr

    return run


def shown(trimtab: Trimtab, *arguments: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    code, out, err = trimtab("config", "show", "--json", *arguments, environ=environ)
    assert code == 0, err
    return dict(json.loads(out))


# -- where options come from ----------------------------------------------------------------------------------------


def test_the_environment_goes_before_the_file_and_the_command_line_before_both(
    trimtab: Trimtab, tmp_path: Path
) -> None:
    (tmp_path / "trimtab.toml").write_text("port = 1001\nmax_limit = 11\nseed = 21\n[cloud]\nhosts = 31\nzones = 3\n")
    environ = {"TRIMTAB_MAX_LIMIT": "12", "TRIMTAB_CLOUD__HOSTS": "32", "TRIMTAB_SEED": "22"}
    rows = shown(trimtab, environ=environ)
    file = str(tmp_path / "trimtab.toml")
    expected = {
        "port": (1001, file),
        "max_limit": (12, "environment TRIMTAB_MAX_LIMIT"),
        "seed": (22, "environment TRIMTAB_SEED"),
        "cloud.hosts": (32, "environment TRIMTAB_CLOUD__HOSTS"),
        "cloud.zones": (3, file),
        "cloud.seed": (1, "default"),
    }
    assert {path: (rows[path]["value"], rows[path]["origin"]) for path in expected} == expected
    assert set(rows) == set(options())
    # Only a command that would start something takes options; what it is told is wrong tells where it took it from.
    code, _, err = trimtab("up", "--port", "0", "--data-dir", "there", environ={"TRIMTAB_PORT": "70000"})
    assert code == 2
    assert "port = 0 (command line)" in err
    assert "70000" not in err
    assert not (tmp_path / "there").exists()


def test_a_file_is_the_one_that_is_named_else_the_one_of_the_environment_else_the_one_here(
    trimtab: Trimtab, tmp_path: Path
) -> None:
    for number, name in enumerate(("trimtab.toml", "other.toml", "named.toml"), start=1):
        (tmp_path / name).write_text(f"seed = {number}\n")
    assert shown(trimtab)["seed"]["value"] == 1
    there = {"TRIMTAB_CONFIG": "other.toml"}
    assert shown(trimtab, environ=there)["seed"]["value"] == 2
    assert shown(trimtab, "--config", "named.toml", environ=there)["seed"]["value"] == 3
    assert trimtab("config", "show", "--config", "none.toml")[2] == "error: option there is no file none.toml\n"


def test_files_that_a_file_names_are_beside_it(trimtab: Trimtab, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "policy.yaml").write_text("{}")
    (tmp_path / "etc" / "t.toml").write_text('policy_file = "policy.yaml"\n')
    assert shown(trimtab, "--config", "etc/t.toml")["policy_file"]["value"] == str(tmp_path / "etc" / "policy.yaml")
    assert trimtab("config", "check", "etc/t.toml")[0] == 0


def test_lists_maps_and_whole_sections_may_be_written_as_openstack_does_or_as_json(trimtab: Trimtab) -> None:
    rows = shown(
        trimtab,
        environ={
            "TRIMTAB_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "TRIMTAB_CORS": '{"allowed_origin": ["https://a.example"], "max_age": 5}',
            "TRIMTAB_CORS__MAX_AGE": "6",
            "TRIMTAB_GRAFANA_CLIENT__DATABASE_MAP": "host_cpu_usage:prod,instance_cpu_usage:test",
            "TRIMTAB_GRAFANA_CLIENT__RETENTION_PERIODS": '{"day": 86400}',
            "TRIMTAB_ACTION_TIMEOUTS_S": "migrate:60, resize:1.5",
        },
    )
    assert rows["trusted_proxies"]["value"] == ["10.0.0.0/8", "::1"]
    assert rows["cors.allowed_origin"]["value"] == ["https://a.example"]
    assert rows["cors.max_age"]["value"] == 6
    assert rows["grafana_client.database_map"]["value"] == {"host_cpu_usage": "prod", "instance_cpu_usage": "test"}
    assert rows["grafana_client.retention_periods"]["value"] == {"day": 86400}
    assert rows["action_timeouts_s"]["value"] == {"migrate": 60.0, "resize": 1.5}
    for wrong, why in (("migrate", "no colon in 'migrate'"), ("migrate:soon", "valid number"), ("migrate:0", "than 0")):
        told = trimtab("config", "check", environ={"TRIMTAB_ACTION_TIMEOUTS_S": wrong})
        assert told[0] == 1
        assert re.search(rf"action_timeouts_s = '{wrong}' \(environment TRIMTAB_ACTION_TIMEOUTS_S\): .*{why}", told[2])


def test_secrets_are_never_shown(trimtab: Trimtab, tmp_path: Path) -> None:
    (tmp_path / "trimtab.toml").write_text(f'[keystone_authtoken]\npassword = "{PASSWORD}"\nport = "{PASSWORD}"\n')
    bus = {"TRIMTAB_NOTIFICATIONS_URL": f"rabbit://trimtab:{PASSWORD}@rabbit//"}
    assert PASSWORD not in "".join(map(str, trimtab("config", "check", environ=bus)))
    (tmp_path / "trimtab.toml").write_text(f'[keystone_authtoken]\npassword = "{PASSWORD}"\n')
    for how in (("show",), ("show", "--json"), ("show", "--changed"), ("check",)):
        told = "".join(map(str, trimtab("config", *how, environ=bus)))
        assert "keystone_authtoken.password" in told
        assert PASSWORD not in told, how
    assert shown(trimtab, environ=bus)["notifications_url"] == {
        "value": "***", "origin": "environment TRIMTAB_NOTIFICATIONS_URL"
    }  # fmt: skip


# -- what is wrong --------------------------------------------------------------------------------------------------


def test_everything_wrong_is_told_at_once_with_its_place_and_a_remedy(trimtab: Trimtab, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(
        'port = 99999\nauth = "kerberos"\nflavour = "red"\ntrusted_proxies = "10.0.0.300"\npolicy_fle = "x"\n'
        '[cloud]\nhosts = "many"\n[cors]\nmax_age = -1\n'
    )
    code, out, err = trimtab("config", "check", str(file), environ={"TRIMTAB_LEASE_S": "0", "TRIMTAB_PROT": "1"})
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert all(line.startswith("error: option ") for line in lines)
    for expected in (
        rf"port = 99999 \({file}\): .*less than or equal to 65535",
        rf"auth = 'kerberos' \({file}\): .*'none' or 'keystone'",
        rf"flavour \({file}\) is no option; `trimtab config show` lists all",
        rf"policy_fle \({file}\) is no option: did you mean policy_file\?",
        r"trusted_proxies = '10\.0\.0\.300' .*does not appear to be an IPv4 or IPv6 network",
        rf"cloud\.hosts = 'many' \({file}\): .*valid integer",
        rf"cors\.max_age = -1 \({file}\): .*greater than or equal to 0",
        r"lease_s = '0' \(environment TRIMTAB_LEASE_S\): .*greater than 0.*After so long without a sign of life",
    ):
        assert sum(bool(re.search(expected, line)) for line in lines) == 1, (expected, err)
    assert len(lines) == 8
    file.write_text("port = 9322\n")
    code, _, err = trimtab("config", "check", str(file), environ={"TRIMTAB_PROT": "1"})
    assert (code, err) == (1, "error: TRIMTAB_PROT is no option: did you mean TRIMTAB_PORT?\n")
    file.write_text("port = \n")
    assert re.search(r"bad\.toml cannot be read: .*line 1", trimtab("config", "check", str(file))[2])


def test_what_does_not_fit_together_is_told_by_what_to_set(trimtab: Trimtab, tmp_path: Path) -> None:
    environ = {"TRIMTAB_AUTH": "keystone", "TRIMTAB_SSL__CERT_FILE": "cert.pem"}
    code, _, err = trimtab("config", "check", environ=environ)
    assert code == 1
    for path in ("keystone_authtoken.auth_url", "keystone_authtoken.username", "keystone_authtoken.password"):
        assert f'error: option {path}: auth = "keystone" needs it\n' in err
    assert "error: option ssl.key_file: a certificate needs its key" in err


def test_files_that_options_name_are_read_as_well(trimtab: Trimtab, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text('"audit:get": "role:a and"\n"goal:get": 5\n')
    (tmp_path / "rules.yaml").write_text("rules: {")
    environ = {"TRIMTAB_POLICY_FILE": "policy.yaml", "TRIMTAB_RULES_FILE": "rules.yaml", "TRIMTAB_CLOUD__TRACE": "none"}
    code, _, err = trimtab("config", "check", environ=environ)
    assert code == 1
    assert re.search(r"policy_file|policy file .*audit:get", err)
    assert "goal:get" in err
    assert "rules_file: " in err
    assert "cloud.trace = 'none': there is no such file" in err


def test_a_file_with_secrets_is_not_for_everybody(trimtab: Trimtab, tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text(f'notifications_url = "rabbit://a:{PASSWORD}@b//"\n')
    file.chmod(0o644)
    code, _, err = trimtab("config", "check", str(file))
    assert code == 1
    assert f"can be read by everybody and has notifications_url: chmod o= {file}" in err
    file.chmod(0o640)
    assert trimtab("config", "check", str(file))[0] == 0


# -- without authentication -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "trimtab.example", "127.0.0.1.example"])
def test_nothing_is_served_to_others_without_authentication(trimtab: Trimtab, tmp_path: Path, host: str) -> None:
    code, _, err = trimtab("up", "--host", host, "--data-dir", "there")
    assert code == 2
    assert f"error: option host: everybody who reaches {host} could change the cloud" in err
    assert "--insecure-no-auth" in err
    assert list(tmp_path.iterdir()) == []


def test_only_the_command_line_may_leave_others_in_without_authentication(trimtab: Trimtab, tmp_path: Path) -> None:
    (tmp_path / "trimtab.toml").write_text('host = "0.0.0.0"\ninsecure_no_auth = true\n')
    assert "say --insecure-no-auth on the command line, at every start" in trimtab("up")[2]
    (tmp_path / "trimtab.toml").write_text('host = "0.0.0.0"\n')
    told = trimtab("up", environ={"TRIMTAB_INSECURE_NO_AUTH": "true"})
    assert told[0] == 2
    assert "at every start" in told[2]
    # With the flag it gets as far as the next thing that is wrong.
    told = trimtab("up", "--insecure-no-auth", "--port", "0")
    assert "could change the cloud" not in told[2]
    assert "port = 0" in told[2]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_itself_needs_none(host: str) -> None:
    assert Settings(host=host).contradictions() == []


# -- Watcher's file -------------------------------------------------------------------------------------------------

WATCHER_CONF = f"""
[DEFAULT]
host = controller-1
debug = true
transport_url = rabbit://watcher:{PASSWORD}@rabbit:5672//
[api]
port = 9399
max_limit = 500
[database]
connection = mysql+pymysql://watcher:secret@db/watcher
[keystone_authtoken]
auth_url = http://controller:5000
auth_type = password
username = watcher
password = {PASSWORD}
project_name = service
memcached_servers = controller:11211
[watcher_decision_engine]
max_audit_workers = 3
action_plan_expiry = 0
[watcher_datasources]
datasources = prometheus,gnocchi
[prometheus_client]
host = prometheus
[grafana_translators]
retention_periods = a_day:86400,a_week:604800
[nova]
migration_interval = 2
migration_max_retries = 100
"""


def test_watchers_own_file_is_understood(trimtab: Trimtab, tmp_path: Path) -> None:
    file = tmp_path / "watcher.conf"
    file.write_text(WATCHER_CONF)
    file.chmod(0o640)
    rows = shown(trimtab, "--config", "watcher.conf")
    expected = {
        "hostname": "controller-1", "port": 9399, "max_limit": 500, "auth": "keystone", "max_audit_workers": 3,
        "keystone_authtoken.auth_url": "http://controller:5000", "keystone_authtoken.username": "watcher",
        "action_plan_expiry_h": 0.0, "datasources": ["prometheus", "gnocchi"], "prometheus_client.host": "prometheus",
        "migration_deadline_s": 200.0, "grafana_client.retention_periods": {"a_day": 86400, "a_week": 604800},
    }  # fmt: skip
    assert {path: rows[path]["value"] for path in expected} == expected
    assert rows["port"]["origin"] == f"{file} [api] port"
    code, out, err = trimtab("config", "check", "watcher.conf")
    assert code == 0, err
    assert "[database] connection is not used: records are in data_dir" in out
    assert "[keystone_authtoken] memcached_servers is not used" in out
    assert PASSWORD not in out


def test_watcher_asks_for_tokens_unless_its_file_says_otherwise(trimtab: Trimtab, tmp_path: Path) -> None:
    (tmp_path / "watcher.conf").write_text("[api]\nhost = 127.0.0.1\n")
    assert "keystone_authtoken.auth_url: " in trimtab("config", "check", "watcher.conf")[2]
    (tmp_path / "watcher.conf").write_text("[DEFAULT]\nenable_authentication = no\n")
    assert shown(trimtab, "--config", "watcher.conf")["auth"]["value"] == "none"


def test_what_is_wrong_in_watchers_file_is_told_by_both_names(trimtab: Trimtab, tmp_path: Path) -> None:
    file = tmp_path / "watcher.conf"
    file.write_text(
        "[DEFAULT]\nenable_authentication = perhaps\n[api]\nport = many\n[watcher_applier]\nworkerz = 2\n"
        "[nova]\nmigration_max_retries = some\n"
    )
    code, _, err = trimtab("config", "check", "watcher.conf")
    assert code == 1
    assert "auth (" in err
    assert "[DEFAULT] enable_authentication): write true or false, not 'perhaps'" in err
    assert f"port = 'many' ({file} [api] port): Input should be a valid integer" in err
    assert "watcher_applier.workerz" in err
    assert "did you mean watcher_applier.workers?" in err
    assert "[nova] migration_max_retries): write numbers" in err


def test_watchers_file_becomes_one_of_ours_that_says_the_same(trimtab: Trimtab, tmp_path: Path) -> None:
    (tmp_path / "watcher.conf").write_text(WATCHER_CONF)
    code, out, _ = trimtab("config", "from-watcher", "watcher.conf")
    assert code == 0
    assert '# password = "***"' in out
    assert PASSWORD not in out
    assert "# " + str(tmp_path / "watcher.conf") + " [DEFAULT] debug is not used" in out
    assert trimtab("config", "from-watcher", "watcher.conf", "-o", "ours.toml")[0] == 0
    ours = tmp_path / "ours.toml"
    assert ours.stat().st_mode & 0o777 == 0o600
    assert PASSWORD in ours.read_text()
    theirs = {path: row["value"] for path, row in shown(trimtab, "--config", "watcher.conf").items()}
    assert {path: row["value"] for path, row in shown(trimtab, "--config", "ours.toml").items()} == theirs
    code, _, err = trimtab("config", "from-watcher", "watcher.conf", "-o", "ours.toml")
    assert code == 1
    assert "File exists" in err


# -- the documentation ----------------------------------------------------------------------------------------------


def test_the_documentation_lists_every_option_as_it_is() -> None:
    text = (DOCS / "configuration.md").read_text()
    assert tables() in text, "put the output of `trimtab config show --markdown` into docs/configuration.md"


def test_every_option_has_a_word_on_it_and_every_counterpart_is_there() -> None:
    known = options()
    assert [path for path, option in known.items() if not option.field.description] == []
    assert {one.path for one in COUNTERPARTS.values()} <= set(known)
    assert set(known) >= OUR_OWN
    assert {path.partition(".")[0] for path in known} >= set(SAME_SECTIONS)
    assert not set(NOT_USED) & (set(COUNTERPARTS) | set(known))


# All options of Watcher's own (its release of 2026), section by section.
OF_WATCHER = {
    "DEFAULT": "host periodic_interval service_down_time print_thread_pool_stats enable_authentication "
    "fatal_exception_format_errors notification_level state_path pybasedir bindir transport_url debug",
    "api": "port host max_limit workers enable_ssl_api enable_webhooks_auth",
    "oslo_policy": "policy_file",
    "cors": "allowed_origin allow_methods allow_headers expose_headers allow_credentials max_age",
    "watcher_decision_engine": "conductor_topic notification_topics publisher_id max_audit_workers "
    "max_general_workers action_plan_expiry check_periodic_interval continuous_audit_interval metric_map_path",
    "watcher_planner": "planner",
    "watcher_planners.weight": "weights parallelization",
    "watcher_planners.workload_stabilization": "weights",
    "watcher_strategies.basic": "check_optimize_metadata datasources",
    "watcher_strategies.storage_capacity_balance": "ex_pools",
    "watcher_applier": "workers conductor_topic publisher_id workflow_engine rollback_when_actionplan_failed",
    "watcher_workflow_engines.taskflow": "max_workers action_execution_rule",
    "collector": "collector_plugins api_query_max_retries api_call_retries api_query_interval api_query_timeout "
    "compute_resources_collector_timeout",
    "watcher_cluster_data_model_collectors.compute": "period",
    "watcher_cluster_data_model_collectors.storage": "period",
    "watcher_cluster_data_model_collectors.baremetal": "period",
    "compute_model": "enable_extended_attributes",
    "watcher_datasources": "datasources query_max_retries query_interval query_timeout",
    "gnocchi_client": "api_version endpoint_type region_name",
    "aetos_client": "interface region_name fqdn_label instance_uuid_label",
    "prometheus_client": "host port fqdn_label instance_uuid_label username password cafile certfile keyfile",
    "grafana_client": "token base_url project_id_map database_map attribute_map translator_map query_map http_timeout",
    "grafana_translators": "retention_periods",
    "watcher_clients_auth": "auth_type auth_url username password project_name user_domain_name cafile insecure",
    "nova": "api_version migration_max_retries migration_interval http_retries http_retry_interval region_name",
    "cinder": "region_name",
    "keystone": "region_name",
    "placement": "region_name",
    "ironic_client": "api_version endpoint_type region_name",
    "maas_client": "url api_key timeout",
    "database": "connection mysql_engine",
    "oslo_messaging_notifications": "topics driver transport_url",
    "keystone_authtoken": "auth_url www_authenticate_uri auth_type username password project_name memcached_servers "
    "cafile insecure interface region_name token_cache_time http_connect_timeout service_token_roles_required",
}


def test_every_option_of_watcher_has_a_counterpart_or_a_reason_why_not() -> None:
    known = options()
    names = [f"{section}.{option}" for section, listed in OF_WATCHER.items() for option in listed.split()]
    assert [name for name in names if name not in known and name not in COUNTERPARTS and why_unused(name) is None] == []
