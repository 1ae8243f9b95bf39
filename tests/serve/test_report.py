"""The HTML report: one file that needs nothing else, whatever the names in it look like."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from trimtab.platform.contracts import Score
from trimtab.serve.report import Story, figure_rows, write_report

ODD = "<script>alert('x')</script> & \"ü\" {{ 7 * 7 }}"
# References that are names of vocabularies in SVG and its metadata; nothing is fetched for them.
NAMESPACES = re.compile(r'(?:xmlns(?::\w+)?|rdf:resource|rdf:about)="[^"]*"|<dc:title>[^<]*</dc:title>|"-//W3C//[^>]*>')


class Page(HTMLParser):
    """Tags and attributes of a page, and the text outside of styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in {"src", "href", "data", "srcset", "action"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def candidate(number: int, verdict: str, **more: Any) -> dict[str, Any]:
    return {
        "number": number,
        "strategy_name": "vm_workload_consolidation",
        "parameters": {"granularity": 300},
        "verdict": verdict,
        "rank": 1 if verdict == "chosen" else None,
        "because": "",
        "reason": None,
        "score": asdict(Score(hosts_in_use=7, moves=3, moved_gib=12.5, duration_s=90)),
        "worker": "pid-7",
        "rehearse_s": 0.25,
        **more,
    }


@pytest.fixture
def story() -> Story:
    figures = {
        "hosts_in_use": 9,
        "cpu_sd_pp": 12.345,
        "cpu_mean_pct": 30.0,
        "overloaded_hosts": 0,
        "power_w": 12_345.6,
        "cpu_pct_by_host": [80.0, 20.0, 0.0],
    }
    return Story(
        title=f"Audit {ODD}",
        audit={"name": ODD},
        plan={"uuid": "p-1", "state": "SUCCEEDED", "status_message": ODD},
        candidates=[
            candidate(0, "ranked", strategy_name="do_nothing", parameters={}),
            candidate(1, "chosen", because=ODD, parameters={"name": ODD}),
            candidate(2, "rejected", reason=ODD, score={}),
        ],
        before=figures,
        after={**figures, "hosts_in_use": 7, "cpu_pct_by_host": [50.0, 50.0, 0.0]},
        nothing=asdict(Score(hosts_in_use=9)),
        rehearsed=asdict(Score(hosts_in_use=7, moves=3, duration_s=90)),
        measured={"hosts_in_use": 7},
        timeline=[
            {
                "started_at": "2026-03-01T12:00:00+00:00",
                "finished_at": "2026-03-01T12:01:00+00:00",
                "state": "SUCCEEDED",
            },
            {"started_at": None, "finished_at": None, "state": "SKIPPED"},
        ],
        facts={"cloud": ODD},
    )


def written(story: Story, folder: Path) -> tuple[str, Page]:
    path = folder / "deep" / "report.html"
    write_report(story, path)
    assert [one.name for one in path.parent.iterdir()] == ["report.html"], "one file, nothing beside it"
    html = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    return html, page


def test_the_report_needs_nothing_from_outside(story: Story, tmp_path: Path) -> None:
    html, page = written(story, tmp_path)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert all(reference.startswith("#") for reference in page.references), page.references
    assert not re.findall(r"https?://[^\"'<\s]*", NAMESPACES.sub("", html))
    assert "@import" not in html
    assert "url(http" not in html
    assert page.tags.count("svg") == 3


def test_odd_names_are_text_and_nothing_else(story: Story, tmp_path: Path) -> None:
    html, page = written(story, tmp_path)
    assert "<script" not in html
    assert page.text.count(ODD) >= 5, "title, heading, facts, reason, because and plan"


def test_every_candidate_stands_in_the_table_with_its_verdict(story: Story, tmp_path: Path) -> None:
    html, page = written(story, tmp_path)
    rows = re.findall(r'<tr class="(\w+)">', html)
    assert rows == ["ranked", "chosen", "rejected"]
    assert "do_nothing #0" in page.text


def test_a_story_without_a_plan_is_a_report_too(story: Story, tmp_path: Path) -> None:
    nothing = replace(story, plan=None, timeline=(), measured={}, rehearsed={})
    html, page = written(nothing, tmp_path)
    assert page.tags.count("svg") == 2
    assert "action by action" not in html


def test_figures_stand_beside_each_other_in_their_units(story: Story) -> None:
    rows = {row[0]: row[1:] for row in figure_rows(story)}
    assert rows["Hosts in use"] == ("", "9", "7", "7")
    assert rows["Duration of the plan"] == ("min", "0", "1.5", "–"), "minutes; what was not measured is a dash"
