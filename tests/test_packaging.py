"""The four source folders are one namespace that shadows nothing, and no file names a machine it was written on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("platform", "strategies", "simulator", "serve")
FOLDERS = (".", "tests", "notebooks", *SOURCES)

# Written in pieces, so that this file does not match itself.
ABSOLUTE = re.compile(rb"(?<![\w.~$}*-])/" + rb"(?:wo" + rb"rk|ho" + rb"me|ro" + rb"ot|mn" + rb"t|Us" + rb"ers)/[\w.-]")
REGISTRY = re.compile(
    rb"pythonhos" + rb"ted\.org|py" + rb"pi\.org|--(?:extra-)?index-u" + rb"rl|--trusted-ho" + rb"st",
    re.IGNORECASE,
)


def run(arguments: list[str], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def tracked() -> list[Path]:
    listed = run(["git", "ls-files", "-z"])
    if listed.returncode:
        pytest.skip("this is no git checkout, so nobody knows which files belong to the project")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_standard_library_is_itself_wherever_python_is_started(folder: str) -> None:
    """One of our folders is called like a module of Python; without an `__init__.py` it must lose."""
    told = run([sys.executable, "-c", "import platform; print(platform.system(), platform.__file__)"], ROOT / folder)
    assert told.returncode == 0, told.stderr
    assert str(ROOT / "platform") not in told.stdout
    imports = "import trimtab.platform, trimtab.strategies, trimtab.simulator, trimtab.serve"
    told = run([sys.executable, "-c", imports], ROOT / folder)
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_folder_holds_the_namespace_and_nothing_beside_it(source: str) -> None:
    found = {path.name for path in (ROOT / source).iterdir()}
    assert found - {"README.md"} == {"trimtab"}
    inside = {path.name for path in (ROOT / source / "trimtab").iterdir()}
    assert inside - {"__pycache__"} == {source}, "trimtab/ is a namespace: no __init__.py, one package a folder"
    assert (ROOT / source / "trimtab" / source / "py.typed").is_file()


def test_test_files_have_names_of_their_own_and_no_packages() -> None:
    files = list((ROOT / "tests").rglob("test_*.py"))
    assert len({path.name for path in files}) == len(files)
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("pattern", [ABSOLUTE, REGISTRY], ids=["absolute path", "registry"])
def test_no_file_names_a_machine_or_a_registry(pattern: re.Pattern[bytes]) -> None:
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line[:120].decode(errors='replace')}")
    assert not found, "\n".join(found)


def test_the_patterns_find_what_they_are_for() -> None:
    """A search that cannot find anything would always pass."""
    for text in ("/ro" + "ot/x", "see /wo" + "rk/main", '"/ho' + 'me/me/a"', "(/mn" + "t/data"):
        assert ABSOLUTE.search(text.encode()), text
    for text in ("out/wo" + "rk/x", "~/ho" + "me/x", "/v1/audits", "http://127.0.0.1:9322/wo" + "rks", "/tmp"):
        assert not ABSOLUTE.search(text.encode()), text
    assert REGISTRY.search(b"pip install --index-u" + b"rl x")
