"""Serves the real WSGI application of a backend of measurements on loopback, run in that backend's environment.

Arguments: `gnocchi` or `aetos`, and its configuration file. Orders, one JSON line each: `where` it listens. Ends with
its input.
"""

from __future__ import annotations

import json
import sys
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no answer


class Quiet(WSGIRequestHandler):
    """Backends write their own logs."""

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class Server(ThreadingMixIn, WSGIServer):
    """Requests beside each other, as behind a real web server."""

    daemon_threads = True


def gnocchi(config: str) -> Any:
    """Gnocchi's API, its index and storage made ready as `gnocchi-upgrade` does."""
    from gnocchi.cli import api, manage

    sys.argv = ["gnocchi-upgrade", "--config-file", config]
    manage.upgrade()
    sys.argv = ["gnocchi-api", "--config-file", config]
    return api.wsgi()


def aetos(config: str) -> Any:
    """Aetos' API."""
    from aetos.app import build_wsgi_app

    return build_wsgi_app(["--config-file", config])


def say(text: str) -> None:
    """One line of answer."""
    print(text, file=answers, flush=True)


def main(which: str, config: str) -> None:
    """Serve, and take orders until the input ends."""
    application = {"gnocchi": gnocchi, "aetos": aetos}[which](config)
    server = make_server("127.0.0.1", 0, application, server_class=Server, handler_class=Quiet)
    Thread(target=server.serve_forever, daemon=True).start()
    say("ready")
    for line in sys.stdin:
        if json.loads(line)["do"] == "where":
            say(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}))


if __name__ == "__main__":
    main(*sys.argv[1:])
