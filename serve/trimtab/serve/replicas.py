"""What replicas of Ray Serve do otherwise than by themselves: where they listen, and when they ask their proxy."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

EMPTY = pickle.dumps([{"type": "http.request", "body": b"", "more_body": False}])
BODY = frozenset({b"content-length", b"transfer-encoding"})  # headers that announce one (RFC 9112, 6.3)


def listen_where_the_node_is() -> None:
    """Make this replica of Serve listen at its node's own address, which is loopback in a local Ray.

    Replicas have a server for each other that believes whatever it is sent, and Serve opens it at all addresses of the
    machine: whoever reached it could run code here. To be called while the replica is made, before it listens.

    Raises:
        RuntimeError: this Serve opens it in another way.
    """
    from ray import util
    from ray.serve._private import replica

    place: Any = replica  # untyped
    node_address: Any = util.get_node_ip_address  # untyped
    listen = getattr(place, "add_port_to_grpc_server", None)
    if listen is None:
        raise RuntimeError("this version of Ray Serve is not known to listen at one address only")
    node = node_address()

    def at_the_node(server: Any, address: str) -> Any:
        return listen(server, address.replace("[::]", f"[{node}]" if ":" in node else node))

    place.add_port_to_grpc_server = at_the_node


def ask_for_announced_bodies_only() -> None:
    """Make this replica ask its proxy for the body of a request only when the request announced one.

    Serve asks for every request's body, and then whether the client is still there: two calls of an actor, which cost
    as much as all the rest of a GET. A client that goes away is noticed all the same: the proxy cancels its request.

    Raises:
        RuntimeError: this Serve asks in another way.
    """
    from ray.serve._private import common

    request: Any = common.StreamingHTTPRequest  # untyped
    asking = getattr(request, "receive_asgi_messages", None)
    if not isinstance(asking, property) or asking.fget is None:
        raise RuntimeError("this version of Ray Serve is not known to ask for bodies through its requests")
    by_proxy = asking.fget

    def receive(self: Any) -> Callable[[Any], Awaitable[bytes]]:
        scope = self.asgi_scope
        if scope["type"] != "http" or any(bytes(name).lower() in BODY for name, _ in scope["headers"]):
            messages: Callable[[Any], Awaitable[bytes]] = by_proxy(self)
            return messages
        return _no_body()

    request.receive_asgi_messages = property(receive)


def _no_body() -> Callable[[Any], Awaitable[bytes]]:
    """The end of the body at once, and then nothing more."""
    told = False

    async def receive(_: Any) -> bytes:
        nonlocal told
        if told:
            await asyncio.Event().wait()  # until the request is over, or cancelled
        told = True
        return EMPTY

    return receive
