"""Runs in the clients' environment: every order line is one run of `openstack` or `watcher` in a process of its own.

The programs' modules are imported once and each run is a fork of that state, which saves seconds per command.
An order is a JSON line with `program`, `arguments` and `environment`; the answer has `code`, `out` and `err`.
"""

import contextlib
import json
import logging
import os
import sys
import tempfile
from typing import Any

import openstackclient.shell
import watcherclient.shell

PROGRAMS = {"openstack": openstackclient.shell.main, "watcher": watcherclient.shell.main}


def warm() -> None:
    """Import what `openstack` imports late. No command is run: its clients would stay, for every server and version."""
    kept, sys.stdout = sys.stdout, sys.stderr
    with contextlib.suppress(SystemExit):
        PROGRAMS["openstack"](["optimize", "goal", "list", "--help"])
    sys.stdout = kept
    logging.getLogger().handlers.clear()


def run(program: str, arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """One run of a program's console script."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.environ.update(environment)
            sys.argv = [program, *arguments]
            code = 70
            try:
                code = PROGRAMS[program]() or 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode())
    return {"code": os.waitstatus_to_exitcode(status), "out": texts[0], "err": texts[1]}


if __name__ == "__main__":
    warm()
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(run(order["program"], order["arguments"], order["environment"])), flush=True)
