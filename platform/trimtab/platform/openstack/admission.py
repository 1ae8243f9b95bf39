"""What Placement and the hosts' services say of moves before Nova is asked for them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from trimtab.platform.contracts import Wanted
from trimtab.platform.openstack.inventory import Book
from trimtab.platform.openstack.rest import Rest

# Nova keeps new arrivals off disabled hosts by a trait that their providers bear.
NEVER = "!COMPUTE_STATUS_DISABLED"


class Ask(NamedTuple):
    """One question to Placement: the amounts and traits that servers of one flavor need."""

    resources: tuple[tuple[str, int], ...]
    traits: tuple[str, ...] = ()

    @property
    def query(self) -> dict[str, str]:
        """As `GET /allocation_candidates` takes it."""
        amounts = ",".join(f"{name}:{amount}" for name, amount in self.resources)
        return {"resources": amounts, "required": ",".join([*self.traits, NEVER])}


async def refusals(rest: Rest, book: Book, wanted: Sequence[Wanted]) -> list[str]:
    """Why each migration, alone and now, would be refused; "" where nothing speaks against it.

    One question for the services of all hosts, and one to Placement for each kind of server: what the image of a
    server asks for beyond its flavor is not known here, nor are numbered groups of resources. A server that nobody has
    listed is refused.

    Raises:
        CloudError: Nova or Placement cannot be asked.
    """
    if not wanted:
        return []
    asks = {one.server_id: ask_of(book, one.server_id) for one in wanted if one.now}
    kinds = list(dict.fromkeys(ask for ask in asks.values() if ask is not None and ask.resources))
    services, *answers = await asyncio.gather(
        rest.get("compute", "/os-services", binary="nova-compute"),
        *(rest.get("placement", "/allocation_candidates", **kind.query) for kind in kinds),
    )
    service_of = {one["host"]: one for one in services["services"]}
    offered = {kind: roots(answer) for kind, answer in zip(kinds, answers, strict=True)}
    return [_refusal(book, one, service_of.get(one.destination), asks.get(one.server_id), offered) for one in wanted]


def ask_of(book: Book, server_id: str) -> Ask | None:
    """What a server needs, by its flavor; None when it is not in the book."""
    row = book.instances.get(server_id)
    if row is None:
        return None
    specs: Mapping[str, str] = json.loads(row["flavor_specs"])
    dedicated = specs.get("hw:cpu_policy") == "dedicated"
    amounts = {
        "PCPU" if dedicated else "VCPU": math.ceil(row["vcpus"]),
        "MEMORY_MB": math.ceil(row["memory_mb"]),
        "DISK_GB": math.ceil(row["disk_gb"]),
    }
    traits: list[str] = []
    for name, value in specs.items():
        kind, _, rest = name.partition(":")
        if kind == "resources" and value.isdecimal():
            amounts[rest] = int(value)
        elif kind == "trait" and value in ("required", "forbidden"):
            traits.append(rest if value == "required" else f"!{rest}")
    return Ask(tuple(sorted((name, amount) for name, amount in amounts.items() if amount > 0)), tuple(sorted(traits)))


def roots(answer: Mapping[str, Any]) -> frozenset[str]:
    """The hosts (root providers, by uuid) that Placement offers."""
    summaries = answer["provider_summaries"]
    offered: Iterable[str] = (uuid for request in answer["allocation_requests"] for uuid in request["allocations"])
    return frozenset(str(summaries[uuid].get("root_provider_uuid") or uuid) for uuid in offered if uuid in summaries)


def _refusal(
    book: Book,
    one: Wanted,
    service: Mapping[str, Any] | None,
    ask: Ask | None,
    offered: Mapping[Ask, frozenset[str]],
) -> str:
    host = one.destination
    if service is None:
        return f"there is no compute service on host {host}"
    if service.get("status") != "enabled":
        return f"host {host} is disabled"
    if service.get("state") != "up" or service.get("forced_down"):
        return f"host {host} is down"
    if not one.now:
        return ""
    if ask is None:
        return f"instance {one.server_id} was not there when the cloud was read"
    if not ask.resources or book.host_of(host) in offered[ask]:
        return ""
    needs = ask.query["resources"] + (f" with {', '.join(ask.traits)}" if ask.traits else "")
    return f"Placement does not offer host {host} for {needs}"
