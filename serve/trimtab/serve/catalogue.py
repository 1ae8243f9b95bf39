"""GET /v1/goals, /v1/strategies and /v1/scoring_engines: what is installed; read-only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from trimtab.platform.records import Goal, ScoringEngine, Strategy
from trimtab.platform.store.views import View
from trimtab.serve.arguments import Route, query
from trimtab.serve.policy import allowed
from trimtab.serve.resources import Asked, Base, Page, Shown, Wired, listing, stored
from trimtab.serve.wire import GOALS, SCORING_ENGINES, STRATEGIES, Body

router = APIRouter(prefix="/v1", tags=["catalogue"], route_class=Route)


class StrategyPage(Page):
    """Filters of the list of strategies."""

    goal: str | None = None


Paged = Annotated[Page, Depends(query(Page))]
Filtered = Annotated[StrategyPage, Depends(query(StrategyPage))]


@router.get("/goals")
async def list_goals(
    wired: Wired, page: Paged, _: Annotated[None, allowed("goal:get_all")], base: Base, asked: Asked, deleted: Shown
) -> Body:
    """Goals, one page."""
    return await listing(wired, GOALS, page, {}, base, asked, detail=False, deleted=deleted)


@router.get("/goals/detail")
async def list_goals_in_detail(
    wired: Wired, page: Paged, _: Annotated[None, allowed("goal:detail")], base: Base, asked: Asked, deleted: Shown
) -> Body:
    """Goals with all fields, one page."""
    return await listing(wired, GOALS, page, {}, base, asked, detail=True, deleted=deleted)


@router.get("/goals/{ident}")
async def show_goal(
    seen: Annotated[View[Goal], Depends(stored(Goal))],
    _: Annotated[None, allowed("goal:get")],
    base: Base,
    asked: Asked,
) -> Body:
    """One goal by id, uuid or name."""
    return GOALS.show(seen.row, seen.related, base, asked)


@router.get("/strategies")
async def list_strategies(
    wired: Wired,
    page: Filtered,
    _: Annotated[None, allowed("strategy:get_all")],
    base: Base,
    asked: Asked,
    deleted: Shown,
) -> Body:
    """Strategies, one page; `goal` (uuid or name) narrows them."""
    called = {"goal_id": page.goal}
    return await listing(wired, STRATEGIES, page, {}, base, asked, detail=False, called=called, deleted=deleted)


@router.get("/strategies/detail")
async def list_strategies_in_detail(
    wired: Wired,
    page: Filtered,
    _: Annotated[None, allowed("strategy:detail")],
    base: Base,
    asked: Asked,
    deleted: Shown,
) -> Body:
    """Strategies with their parameters, one page."""
    called = {"goal_id": page.goal}
    return await listing(wired, STRATEGIES, page, {}, base, asked, detail=True, called=called, deleted=deleted)


@router.get("/strategies/{ident}")
async def show_strategy(
    seen: Annotated[View[Strategy], Depends(stored(Strategy))],
    _: Annotated[None, allowed("strategy:get")],
    base: Base,
    asked: Asked,
) -> Body:
    """One strategy by id, uuid or name."""
    return STRATEGIES.show(seen.row, seen.related, base, asked)


@router.get("/scoring_engines")
async def list_scoring_engines(
    wired: Wired,
    page: Paged,
    _: Annotated[None, allowed("scoring_engine:get_all")],
    base: Base,
    asked: Asked,
    deleted: Shown,
) -> Body:
    """Scoring engines, one page."""
    return await listing(wired, SCORING_ENGINES, page, {}, base, asked, detail=False, deleted=deleted)


@router.get("/scoring_engines/detail")
async def list_scoring_engines_in_detail(
    wired: Wired,
    page: Paged,
    _: Annotated[None, allowed("scoring_engine:detail")],
    base: Base,
    asked: Asked,
    deleted: Shown,
) -> Body:
    """Scoring engines with what to give them and what they answer, one page."""
    return await listing(wired, SCORING_ENGINES, page, {}, base, asked, detail=True, deleted=deleted)


@router.get("/scoring_engines/{ident}")
async def show_scoring_engine(
    _: Annotated[None, allowed("scoring_engine:get")],  # who may not see them is not told which there are
    seen: Annotated[View[ScoringEngine], Depends(stored(ScoringEngine))],
    base: Base,
    asked: Asked,
) -> Body:
    """One scoring engine by id, uuid or name."""
    return SCORING_ENGINES.show(seen.row, seen.related, base, asked)
