"""/v1/scoring_engines in Watcher's shapes, and the commands that show them, over a real socket."""

import asyncio
import json
from typing import Any

from typer.testing import CliRunner

from trimtab.serve.main import app


async def test_engines_are_listed_and_shown_by_name_uuid_and_id_without_timestamps(idle: Any) -> None:
    rows = (await idle.get("/v1/scoring_engines"))["scoring_engines"]
    assert {row["name"] for row in rows} >= {
        "dummy_scorer",
        "dummy_min_scorer",
        "dummy_max_scorer",
        "dummy_avg_scorer",
    }
    assert all(set(row) == {"uuid", "name", "description", "links"} for row in rows)
    one = await idle.get("/v1/scoring_engines/dummy_scorer")
    assert set(one) == {"uuid", "name", "description", "metainfo", "links"}
    assert one["description"] == "Dummy workload classifier"
    assert json.loads(one["metainfo"])["workloads"][0] == "idle"
    assert one["links"][0] == {"href": f"http://trimtab:9322/v1/scoring_engines/{one['uuid']}", "rel": "self"}
    assert await idle.get(f"/v1/scoring_engines/{one['uuid']}") == one
    detail = (await idle.get("/v1/scoring_engines/detail"))["scoring_engines"]
    assert one in detail
    assert await idle.get(f"/v1/scoring_engines/{1 + detail.index(one)}") == one
    assert "scoring_engines" in await idle.get("/v1")


async def test_engines_come_in_pages_and_what_is_not_there_is_a_404(idle: Any) -> None:
    first = await idle.get("/v1/scoring_engines", limit=1, sort_key="name")
    assert [row["name"] for row in first["scoring_engines"]] == ["dummy_avg_scorer"]
    second = await idle.http.get(first["next"])
    assert [row["name"] for row in second.json()["scoring_engines"]] == ["dummy_max_scorer"]
    missing = await idle.http.get("/v1/scoring_engines/nope")
    assert missing.status_code == 404
    assert "ScoringEngine nope could not be found" in missing.text
    assert (await idle.http.delete("/v1/scoring_engines/dummy_scorer")).status_code == 405


async def test_the_commands_list_and_show_engines(listening: Any) -> None:
    async def told(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--url", listening])
        assert result.exit_code == 0, result.output
        return str(result.output)

    rows = json.loads(await told("scoringengine", "list", "--json"))
    assert "dummy_avg_scorer" in {row["name"] for row in rows}
    assert "Dummy workload classifier" in await told("scoringengine", "show", "dummy_scorer")
    shown = json.loads(await told("scoringengine", "show", "dummy_min_scorer", "--json"))
    assert (shown["name"], shown["metainfo"]) == ("dummy_min_scorer", "")
