"""Runs inside Gnocchi's environment: prepares its index and serves its real WSGI application on loopback.

Arguments: the configuration file. Says `ready` when the API answers; the orders are `{"do": "where"}`, answered with
its address. Ends with its input.
"""

import json
import sys
from socketserver import ThreadingMixIn
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class Quiet(WSGIRequestHandler):
    """Standard output is for answers."""

    def log_message(self, *_):
        """Says nothing."""


class Threading(ThreadingMixIn, WSGIServer):
    """Requests beside each other, as behind a real web server."""

    daemon_threads = True


def main(config):
    """Prepare, serve and answer."""
    from gnocchi.cli import api, manage

    sys.argv = ["gnocchi-upgrade", "--config-file", config]
    manage.upgrade()
    sys.argv = ["gnocchi-api", "--config-file", config]
    server = make_server("127.0.0.1", 0, api.wsgi(), server_class=Threading, handler_class=Quiet)
    Thread(target=server.serve_forever, daemon=True).start()
    say("ready")
    for line in sys.stdin:
        assert json.loads(line) == {"do": "where"}
        say(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}))


def say(text):
    """One line on standard output."""
    print(text, file=answers, flush=True)


answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no answer
main(sys.argv[1])
