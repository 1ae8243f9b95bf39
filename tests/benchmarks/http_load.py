"""Ask an HTTP server the same thing again and again over plain sockets, in a process of its own; prints JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time


async def _client(host: str, port: int, path: str, until: float, took_s: list[float]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: application/json\r\n\r\n".encode()
    try:
        while (began := time.perf_counter()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{path} was answered with {head[:80]!r}")
            await _body(reader, head.lower())
            took_s.append(time.perf_counter() - began)
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> None:
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
        return
    _, _, after = head.partition(b"content-length:")
    await reader.readexactly(int(after.split(b"\r\n", 1)[0]))


async def load(host: str, port: int, path: str, clients: int, seconds: float) -> dict[str, float]:
    """Requests a second and the percentiles of one request's milliseconds."""
    took_s: list[float] = []
    began = time.perf_counter()
    await asyncio.gather(*(_client(host, port, path, began + seconds, took_s) for _ in range(clients)))
    elapsed = time.perf_counter() - began
    took_s.sort()
    return {
        "per_s": len(took_s) / elapsed,
        "p50_ms": 1000 * took_s[len(took_s) // 2],
        "p95_ms": 1000 * took_s[int(0.95 * (len(took_s) - 1))],
    }


if __name__ == "__main__":
    _host, _port, _path, _clients, _seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(load(_host, int(_port), _path, int(_clients), float(_seconds)))))
