"""Programs that run in a peer's environment and answer one JSON line for each JSON line they are given."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.peers import environments

HERE = Path(__file__).parent


def bare_environment() -> dict[str, str]:
    """This process's environment without any OpenStack client's options."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OS_")}


class Worker:
    """One such program, from its word `ready` to the end of its input."""

    def __init__(self, environment: str, program: str, *arguments: str, settings: Mapping[str, str] | None = None):
        command = [str(environments.programs(environment) / "python"), str(HERE / program), *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**bare_environment(), **(settings or {})},
        )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, **order: Any) -> dict[str, Any]:
        """The answer to an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._read())
        return answer

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
