"""What the README and docs/ name is there: tests, commands with their options, files that are linked."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from trimtab.serve.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SPAN = re.compile(r"`(trimtab [^`\n]+)`")
LINE = re.compile(r"^(?:\$ )?(trimtab .*)$")
NAMES = {"trimtab/", "trimtab."}  # of files and modules


def commands(page: Path) -> Iterator[str]:
    """Commands in code blocks and in the running text, without comments."""
    fenced, begun = False, ""
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced and (begun or LINE.match(line)):
            begun += " " + line.removeprefix("$ ").rstrip("\\")
            if not line.endswith("\\"):
                yield begun.partition(" #")[0].strip()
                begun = ""
        elif not fenced:
            yield from SPAN.findall(line)


def named(command: str) -> tuple[Any, list[str]]:
    """The command of the program that a text means, and the rest of its words."""
    found: Any = typer.main.get_command(app)
    words = shlex.split(command)[1:]
    while hasattr(found, "commands") and words and words[0] in found.commands:
        found = found.commands[words.pop(0)]
    if hasattr(found, "commands") and "run" in found.commands and words:
        found = found.commands["run"]  # `trimtab whatif FILE`
    return found, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_is_there_with_its_options(page: Path) -> None:
    for command in commands(page):
        found, words = named(command)
        is_group = hasattr(found, "commands")
        assert not is_group or not words or words == ["..."], f"{page.name}: there is no command {command!r}"
        known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition("=")[0] for word in re.findall(r"(?<![\w-])--?[a-z][\w-]*", " ".join(words))}
        assert given <= known | {"--help"}, f"{page.name}: {command!r} has no {given - known}"


def test_commands_are_found_in_all_their_shapes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Say `trimtab up --port 1`.\n```\n$ trimtab db purge \\\n    --yes   # at night\nmore\n```\n")
    assert list(commands(page)) == ["trimtab up --port 1", "trimtab db purge      --yes"]
    page.write_text("`trimtab up --colour red`")
    with pytest.raises(AssertionError, match=r"has no .*--colour"):
        test_every_command_that_a_page_names_is_there_with_its_options(page)
    page.write_text("`trimtab db downgrade`")
    with pytest.raises(AssertionError, match="there is no command"):
        test_every_command_that_a_page_names_is_there_with_its_options(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)\(", tests))
    missing = set(re.findall(r"`(test_\w+)`", page.read_text())) - there
    assert not missing, f"{page.name} names tests that are not there"


def test_each_difference_from_watcher_has_its_test() -> None:
    text = (ROOT / "docs" / "from-watcher.md").read_text()
    differences = text.partition("## What differs")[2].partition("## ")[0]
    rows = [line for line in differences.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 4
    assert all(re.search(r"`test_\w+`", row) for row in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
