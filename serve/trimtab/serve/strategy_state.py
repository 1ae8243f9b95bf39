"""GET /v1/strategies/{strategy}/state: whether a strategy would find what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends

from trimtab.platform.collector import Availability
from trimtab.platform.plugins import load
from trimtab.platform.records import Strategy
from trimtab.platform.snapshot import Need
from trimtab.platform.store.views import View
from trimtab.serve.arguments import Route
from trimtab.serve.policy import allowed
from trimtab.serve.resources import Wired, stored
from trimtab.serve.wire import Body

router = APIRouter(prefix="/v1/strategies", tags=["catalogue"], route_class=Route)

MODELS = ("compute", "storage", "baremetal")
Named = Annotated[View[Strategy], Depends(stored(Strategy))]
May = Annotated[None, allowed("strategy:state")]


@router.get("/{ident}/state")
async def show_strategy_state(_: May, seen: Named, wired: Wired) -> list[Body]:
    """What a strategy needs, and whether it is there: datasource, metrics, cluster models; the last entry names it."""
    name = seen.row.name
    wanted = needs(name)
    return state(name, wanted, await wired.availability(wanted))


def needs(strategy: str) -> Sequence[Need]:
    """What a strategy wants measured when it is given no parameters.

    Raises:
        NotFound: no such strategy is installed.
    """
    one = load().strategy(strategy)
    return tuple(one.needs(one.parameters.model_construct()))


def state(strategy: str, wanted: Sequence[Need], found: Availability) -> list[Body]:
    """The four entries, in the order that clients rely on."""
    datasource = f"{found.datasource}: {_word(not found.fault)}"
    metrics: dict[str, bool] = {}
    for need, measured in zip(wanted, found.measured, strict=True):
        metrics[need.metric] = metrics.get(need.metric, True) and measured
    return [
        _entry("Datasource", datasource if wanted else "Datasource is not presented for this strategy", True),
        _entry("Metrics", [{metric: _word(measured)} for metric, measured in metrics.items()], False),
        _entry("CDM", [{f"{name}_model": _word(found.models[name])} for name in MODELS], True),
        _entry("Name", strategy, ""),
    ]


def _entry(title: str, value: object, mandatory: object) -> Body:
    return {"type": title, "state": value, "mandatory": mandatory, "comment": ""}


def _word(there: bool) -> str:
    return "available" if there else "not available"
