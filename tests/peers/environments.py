"""Environments of the peers: one per requirements-<name>.txt beside this file, kept in .venv-peers, made once per pin.

`python tests/peers/environments.py [NAME...]` makes those that are missing; tests ask `programs(NAME)`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("TRIMTAB_PEERS_HOME", HERE.parents[1] / ".venv-peers"))


def names() -> list[str]:
    """All environments that have pins."""
    return sorted(path.stem.removeprefix("requirements-") for path in HERE.glob("requirements-*.txt"))


def _pins(name: str) -> Path:
    return HERE / f"requirements-{name}.txt"


def _mark(name: str) -> str:
    """What an environment was made from: it is made anew when the pins or the interpreter change."""
    return hashlib.sha256(_pins(name).read_bytes() + sys.version.encode()).hexdigest()


def _stamp(name: str) -> Path:
    return ROOT / name / "made-from"


def missing(name: str) -> str | None:
    """Why an environment cannot be used; None when it is there."""
    stamp = _stamp(name)
    if stamp.exists() and stamp.read_text() == _mark(name):
        return None
    failure = ROOT / f"{name}.failed"
    why = failure.read_text().strip() if failure.exists() else "it was not made yet"
    return f"no environment for {name} ({why}); `make test-peers` makes it from the package registry"


def programs(name: str) -> Path:
    """Its folder of programs (`python` among them)."""
    return ROOT / name / "bin"


def make(name: str) -> None:
    """Make or remake one environment; on failure the reason is kept for `missing`."""
    home, failure = ROOT / name, ROOT / f"{name}.failed"
    shutil.rmtree(home, ignore_errors=True)
    failure.unlink(missing_ok=True)
    install: list[str | Path] = [home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # The pins are complete: nothing to resolve. Compiling all would take longer than all that is ever run.
    install += ["--no-deps", "--no-compile", "-r", _pins(name)]
    commands: list[list[str | Path]] = [[sys.executable, "-m", "venv", home], install]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(home, ignore_errors=True)
            ROOT.mkdir(exist_ok=True)
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr[-300:]]
            failure.write_text(lines[-1])
            return
    _stamp(name).write_text(_mark(name))


def main(wanted: list[str]) -> None:
    """Make what is missing, one line each; a failure is told here and by every test that needs it."""
    for name in wanted or names():
        if missing(name) is not None:
            print(f"making the environment {name}", flush=True)
            make(name)
            if (why := missing(name)) is not None:
                print(why, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
