"""What a replica of Serve asks its proxy for: the body of a request that announced one, and nothing else."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from ray.serve._private import common

from trimtab.serve.replicas import ask_for_announced_bodies_only


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> None:
    request: Any = common.StreamingHTTPRequest
    monkeypatch.setattr(request, "receive_asgi_messages", request.receive_asgi_messages)  # put back afterwards
    ask_for_announced_bodies_only()


def received(headers: list[tuple[bytes, bytes]], kind: str = "http") -> Any:
    async def proxied(_: Any) -> bytes:
        return pickle.dumps(["from the proxy"])

    request: Any = common.StreamingHTTPRequest
    return request({"type": kind, "headers": headers}, receive_asgi_messages=proxied).receive_asgi_messages


@pytest.mark.parametrize(
    ("headers", "kind"),
    [([(b"content-length", b"2")], "http"), ([(b"Transfer-Encoding", b"chunked")], "http"), ([], "websocket")],
)
async def test_an_announced_body_comes_from_the_proxy(asking: None, headers: Any, kind: str) -> None:
    assert pickle.loads(await received(headers, kind)(None)) == ["from the proxy"]


async def test_without_one_the_body_ends_at_once_and_nothing_more_comes(asking: None) -> None:
    receive = received([(b"accept", b"application/json")])
    assert pickle.loads(await receive(None)) == [{"type": "http.request", "body": b"", "more_body": False}]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(receive(None), 0.05)
    again = received([])
    assert pickle.loads(await again(None))[0]["more_body"] is False, "each request has an end of its own"


async def test_a_serve_that_asks_in_another_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common.StreamingHTTPRequest, "receive_asgi_messages", lambda: None)
    with pytest.raises(RuntimeError, match="not known"):
        ask_for_announced_bodies_only()
