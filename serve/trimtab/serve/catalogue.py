"""GET /v1/goals, /v1/strategies and /v1/scoring_engines: what is installed; read-only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from trimtab.platform.records import Goal, ScoringEngine, Strategy
from trimtab.serve.resources import Asked, Base, Page, Paged, Wired, filter_by, listing, show
from trimtab.serve.wire import GOALS, SCORING_ENGINES, STRATEGIES, Body

router = APIRouter(prefix="/v1", tags=["catalogue"])


class StrategyPage(Page):
    """Filters of the list of strategies."""

    goal: str | None = None


@router.get("/goals")
async def list_goals(wired: Wired, page: Paged, base: Base, asked: Asked) -> Body:
    """Goals, one page."""
    return await listing(wired, GOALS, page, {}, base, asked, detail=False)


@router.get("/goals/detail")
async def list_goals_in_detail(wired: Wired, page: Paged, base: Base, asked: Asked) -> Body:
    """Goals with all fields, one page."""
    return await listing(wired, GOALS, page, {}, base, asked, detail=True)


@router.get("/goals/{ident}")
async def show_goal(ident: str, wired: Wired, base: Base, asked: Asked) -> Body:
    """One goal by id, uuid or name."""
    return await show(wired, GOALS, await wired.store.get(Goal, ident), base, asked)


@router.get("/strategies")
async def list_strategies(wired: Wired, page: Annotated[StrategyPage, Query()], base: Base, asked: Asked) -> Body:
    """Strategies, one page; `goal` (uuid or name) narrows them."""
    where = await filter_by(wired.store, "goal_id", Goal, page.goal)
    return await listing(wired, STRATEGIES, page, where, base, asked, detail=False)


@router.get("/strategies/detail")
async def list_strategies_in_detail(
    wired: Wired, page: Annotated[StrategyPage, Query()], base: Base, asked: Asked
) -> Body:
    """Strategies with their parameters, one page."""
    where = await filter_by(wired.store, "goal_id", Goal, page.goal)
    return await listing(wired, STRATEGIES, page, where, base, asked, detail=True)


@router.get("/strategies/{ident}")
async def show_strategy(ident: str, wired: Wired, base: Base, asked: Asked) -> Body:
    """One strategy by id, uuid or name."""
    return await show(wired, STRATEGIES, await wired.store.get(Strategy, ident), base, asked)


@router.get("/scoring_engines")
async def list_scoring_engines(wired: Wired, page: Paged, base: Base, asked: Asked) -> Body:
    """Scoring engines, one page."""
    return await listing(wired, SCORING_ENGINES, page, {}, base, asked, detail=False)


@router.get("/scoring_engines/detail")
async def list_scoring_engines_in_detail(wired: Wired, page: Paged, base: Base, asked: Asked) -> Body:
    """Scoring engines with what to give them and what they answer, one page."""
    return await listing(wired, SCORING_ENGINES, page, {}, base, asked, detail=True)


@router.get("/scoring_engines/{ident}")
async def show_scoring_engine(ident: str, wired: Wired, base: Base, asked: Asked) -> Body:
    """One scoring engine by id, uuid or name."""
    return await show(wired, SCORING_ENGINES, await wired.store.get(ScoringEngine, ident), base, asked)
