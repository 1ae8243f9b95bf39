"""A Keystone of its own, run in its environment: database and keys in a new folder, the API on a free port.

Arguments: the folder, the first administrator's password. Answers orders, one JSON line each: where it listens, and
tokens as only Keystone itself can issue them, such as expired ones. Beside Keystone it serves two trivial services
behind keystonemiddleware, to compare answers with: one that reaches Keystone and one that does not.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import sys
import threading
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

CONFIG = """
[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = sqlite:///{folder}/keystone.db
[fernet_tokens]
key_repository = {folder}/keys
max_active_keys = 3
[fernet_receipts]
key_repository = {folder}/keys
[cache]
enabled = true
backend = oslo_cache.dict
[identity]
password_hash_rounds = 4
"""


def manage(config: Path, *arguments: str) -> None:
    """`keystone-manage` in a child that shares what was imported already."""
    child = os.fork()
    if child == 0:
        try:
            from keystone.cmd import cli

            cli.main(["keystone-manage", "--config-file", str(config), *arguments])
        except BaseException as error:  # noqa: BLE001 (nothing may get past the end of a child)
            print(f"keystone-manage {arguments[0]}: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit(f"keystone-manage {arguments[0]} failed")


def listening() -> socket.socket:
    """A socket on a free port."""
    return socket.create_server(("127.0.0.1", 0))


def serve(application: Any, where: socket.socket) -> None:
    """Serve in threads of this process."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            """Keystone writes its own log."""

    host, port = where.getsockname()
    server = make_server(host, port, application, threaded=True, request_handler=Quiet, fd=where.fileno())
    threading.Thread(target=server.serve_forever, daemon=True).start()


def guarded(config: Path, keystone: str, auth_url: str, password: str) -> Any:
    """A service that answers everybody whom keystonemiddleware lets in."""
    from keystonemiddleware.auth_token import AuthProtocol

    def inside(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["HTTP_X_ROLES"].encode()]

    options = {"www_authenticate_uri": keystone, "auth_url": auth_url, "auth_type": "password", "username": "admin"}
    options |= {"password": password, "project_name": "admin", "interface": "public", "http_request_max_retries": "0"}
    options |= {"user_domain_name": "Default", "project_domain_name": "Default"}
    config.write_text("[keystone_authtoken]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()))
    return AuthProtocol(inside, {"oslo_config_project": "guarded", "oslo_config_file": str(config)})


def issue(user_id: str, project_id: str, lasts_s: float) -> str:
    """A token that ends so many seconds from now; in the past for a negative number."""
    from keystone.common.provider_api import ProviderAPIs

    ends = (datetime.now(UTC) + timedelta(seconds=lasts_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    made = ProviderAPIs.token_provider_api.issue_token(user_id, ["password"], expires_at=ends, project_id=project_id)
    return str(made.id)


def main(folder: Path, password: str) -> None:
    """Set Keystone up as its manual says, serve it, and take orders until the input ends."""
    warnings.simplefilter("ignore")  # what Keystone's libraries think of each other
    from keystone.server import wsgi

    config = folder / "keystone.conf"
    config.write_text(CONFIG.format(folder=folder))
    public, near, far = listening(), listening(), listening()
    urls = ["http://{}:{}".format(*one.getsockname()) for one in (public, near, far)]
    manage(config, "db_sync")
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    manage(config, "fernet_setup", "--keystone-user", owner, "--keystone-group", group)
    manage(config, "bootstrap", "--bootstrap-password", password, "--bootstrap-public-url", f"{urls[0]}/v3/")
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = str(config)
    application = wsgi.initialize_public_application()
    serve(application, public)
    serve(guarded(folder / "near.conf", urls[0], urls[0], password), near)
    serve(guarded(folder / "far.conf", urls[0], "http://127.0.0.1:9", password), far)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order.pop("do") == "where":
            answer = dict(zip(("keystone", "guarded", "guarded_in_vain"), urls, strict=True))
        else:
            with application.test_request_context():
                answer = {"token": issue(**order)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    del sys.argv[1:]  # which oslo.config would read
    main(Path(given[0]), given[1])
