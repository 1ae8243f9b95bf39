"""Stand-ins for backends of measurements over real HTTP, which keep what they were asked.

Shapes of the answers are those that Gnocchi 4.7, Aetos 3.0 and InfluxDB 1.6 gave to the same questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


@dataclass
class Question:
    """One request as it came."""

    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


class Backend:
    """What every stand-in has; served by `openstack_standin.on_loopback`."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Question] = []
        self.fail: list[int] = []  # statuses to answer with before the real answers
        self.raw: Any = None  # instead of every answer

    def paths(self) -> list[str]:
        """What was asked for, in order; forgotten afterwards."""
        found = [one.path for one in self.asked]
        self.asked.clear()
        return found

    def routes(self) -> list[Route]:
        """All paths."""
        return [Route("/{path:path}", self._handle, methods=["GET", "POST"])]

    async def _handle(self, request: Request) -> Response:
        body = await request.json() if await request.body() else None
        question = Question(request.url.path, dict(request.query_params), dict(request.headers), body)
        self.asked.append(question)
        if self.fail:
            return PlainTextResponse("no", self.fail.pop(0))
        return JSONResponse(self.raw) if self.raw is not None else self.answer(question)

    def answer(self, question: Question) -> Response:
        """The real answer."""
        raise NotImplementedError


@dataclass
class Kept:
    """One metric of a resource: what its archive policy keeps, and the points by method."""

    points: dict[str, list[tuple[float, Any]]]
    granularity: int = 300


@dataclass
class Resource:
    """One of Gnocchi's resources; `original` is the id that Ceilometer gave it."""

    id: str
    original: str
    metrics: dict[str, Kept] = field(default_factory=dict)


class Gnocchi(Backend):
    """Resources and metrics, the dynamic aggregates over them, and the list of metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.resources: list[Resource] = []

    def answer(self, question: Question) -> Response:
        """Of the two paths that we use; others do not exist."""
        if question.path == "/v1/aggregates":
            return self._aggregates(question)
        if question.path == "/v1/metric":
            return self._metrics(question)
        return _refusal(404, "no such path")

    def _aggregates(self, question: Question) -> Response:
        _, metric, method = question.body["operations"]
        step = int(question.params["granularity"])
        start, stop = (datetime.fromisoformat(question.params[one]).timestamp() for one in ("start", "stop"))
        chosen = [one for one in self.resources if _fits(one, question.body["search"]) and metric in one.metrics]
        if not chosen:
            return _refusal(404, f"Metric ['{metric}'] does not exist")
        for one in chosen:
            if method not in one.metrics[metric].points:
                return _refusal(404, {"cause": "Metrics with unknown aggregation", "detail": [["m", method]]})
        if any(one.metrics[metric].granularity != step for one in chosen):
            return _refusal(400, {"cause": "Metrics cannot be aggregated", "reason": "Granularities are missing"})
        measures = {
            one.id: {
                metric: {
                    method: [
                        [datetime.fromtimestamp(at, UTC).isoformat(), float(step), value]
                        for at, value in one.metrics[metric].points[method]
                        if start // step * step <= at < stop
                    ]
                }
            }
            for one in chosen
        }
        answer: dict[str, Any] = {"measures": measures}
        if question.params.get("details") == "true":
            answer["references"] = [{"id": one.id, "original_resource_id": one.original} for one in chosen]
        return JSONResponse(answer)

    def _metrics(self, question: Question) -> Response:
        rows: list[dict[str, Any]] = [
            {
                "id": f"{number:04d}",
                "name": name,
                "resource_id": one.id,
                "archive_policy": {
                    "definition": [{"granularity": f"0:{kept.granularity // 60:02d}:00", "points": 8640}],
                    "aggregation_methods": list(kept.points),
                },
            }
            for number, (one, name, kept) in enumerate(
                (one, name, kept) for one in self.resources for name, kept in one.metrics.items()
            )
            if name == question.params["name"]
        ]  # fmt: skip
        behind = [row for row in rows if row["id"] > question.params.get("marker", "")]
        return JSONResponse(behind[: min(int(question.params["limit"]), 1000)])


def _fits(one: Resource, search: Mapping[str, Any]) -> bool:
    ((word, what),) = search.items()
    if word == "and":
        return all(_fits(one, part) for part in what)
    if word == "not":
        return not _fits(one, what)
    ((name, values),) = what.items()
    return {"id": one.id, "original_resource_id": one.original}[name] in values


def _refusal(status: int, why: Any) -> Response:
    return JSONResponse({"code": status, "title": "no", "description": why}, status)


class Aetos(Backend):
    """Prometheus' queries of one moment for who has a token; `series` answers a query, and nothing else exists."""

    def __init__(self, series: Callable[[str, float], list[Any]]) -> None:
        super().__init__()
        self.series = series
        self.tokens: Callable[[], list[str]] = lambda: ["any"]

    def answer(self, question: Question) -> Response:
        """Of one path."""
        if question.headers.get("x-auth-token") not in self.tokens():
            return PlainTextResponse("Authentication required", 401)
        if question.path != "/api/v1/query":
            return JSONResponse({"error_message": "Not Found"}, 404)
        query = question.params["query"]
        found = self.series(query, float(question.params["time"]))
        kind = "matrix" if re.search(r"\)\[\d+s:\d+s\]$", query) else "vector"
        return JSONResponse({"status": "success", "data": {"resultType": kind, "result": found}})


class Grafana(Backend):
    """The way to one InfluxDB, whose answer to one query `found` tells: a value, None for nothing, or an error."""

    def __init__(self, found: Callable[[str], float | str | None]) -> None:
        super().__init__()
        self.found = found
        self.most = 0  # queries in one question

    def answer(self, question: Question) -> Response:
        """Query after query, as far as the first that cannot be carried out, whose error it hides among others."""
        if question.headers.get("authorization") != "Bearer key":
            return JSONResponse({"message": "Unauthorized"}, 401)
        queries = question.params["q"].split("; ")
        self.most = max(self.most, len(queries))
        results: list[dict[str, Any]] = []
        for number, query in enumerate(queries):
            found = self.found(query)
            result: dict[str, Any] = {"statement_id": number}
            if isinstance(found, str):
                result["error"] = found if len(queries) == 1 else "not executed"
            elif found is not None:
                aggregate = query.split("(")[0].split()[-1]
                result["series"] = [{"name": "m", "columns": ["time", aggregate], "values": [[0, found]]}]
            results.append(result)
            if "error" in result:
                break
        return JSONResponse({"results": results})
