"""The store as everybody else sees it: the methods of `Store` as coroutines, over a local store or an actor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import pyarrow as pa

from trimtab.platform.liveness import Change
from trimtab.platform.records import (
    Action,
    ActionPlan,
    Audit,
    CandidateRecord,
    Claimable,
    EfficacyIndicator,
    Event,
    Explanation,
    Goal,
    Json,
    Record,
    ScoringEngine,
    Service,
    Strategy,
)
from trimtab.platform.store.transaction import Move

if TYPE_CHECKING:
    from trimtab.platform.store.catalogue import Synced
    from trimtab.platform.store.purging import Purged
    from trimtab.platform.store.state import Store
    from trimtab.platform.store.sweeps import Sweeps
    from trimtab.platform.store.views import Related, View

R = TypeVar("R", bound=Record)
C = TypeVar("C", bound=Claimable)
Rows: TypeAlias = list[R]  # inside the classes `list` is the method
Changes: TypeAlias = list[Change]
Call = Callable[[str, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]


class Together:
    """Transitions that wait for each other anyway, as one call: while one batch is under way the next one gathers."""

    def __init__(self, call: Call, at_most: int = 200) -> None:
        self._call, self._at_most = call, at_most
        self._waiting: list[tuple[Move, asyncio.Future[Any]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def add(self, move: Move) -> Any:
        """The record afterwards.

        Raises:
            TrimtabError: whatever `Store.transition` raises.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((move, answer))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return await answer

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._at_most], self._waiting[self._at_most :]
            try:
                results = await self._call("transitions", ([move for move, _ in batch],), {})
            except Exception as error:  # noqa: BLE001 (everybody who waits must hear of it)
                results = [error] * len(batch)
            for (_, answer), result in zip(batch, results, strict=True):
                if answer.done():  # who asked has been cancelled
                    continue
                if isinstance(result, BaseException):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)


class StorePort:
    """Asks the one owner of the store; `call` gets a method's name, its arguments and its keyword arguments.

    Every method means, raises and returns what the method of the same name of `Store` does. What changes something is
    durable when it returns.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._moves = Together(call)

    @classmethod
    def direct(cls, store: Store) -> StorePort:
        """A port to a store of this process; calls run in place."""

        async def call(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return getattr(store, method)(*args, **kwargs)

        return cls(call)

    # -- reading ---------------------------------------------------------------------------------

    async def get(self, kind: type[R], ident: int | str, *, deleted: bool = False) -> R:
        """See `Store.get`."""
        return await self._call("get", (kind, ident), {"deleted": deleted})

    async def find(self, kind: type[R], ident: int | str, *, deleted: bool = False) -> R | None:
        """See `Store.find`."""
        return await self._call("find", (kind, ident), {"deleted": deleted})

    async def list(
        self,
        kind: type[R],
        where: Mapping[str, Any] | None = None,
        *,
        limit: int | None = None,
        marker: str | None = None,
        sort_key: str = "id",
        sort_dir: str = "asc",
        deleted: bool = False,
    ) -> Rows[R]:
        """See `Store.list`."""
        paging = {"limit": limit, "marker": marker, "sort_key": sort_key, "sort_dir": sort_dir, "deleted": deleted}
        return await self._call("list", (kind, where), paging)

    async def view(
        self,
        kind: type[R],
        where: Mapping[str, Any] | None = None,
        *,
        called: Mapping[str, str] | None = None,
        limit: int | None = None,
        marker: str | None = None,
        sort_key: str = "id",
        sort_dir: str = "asc",
        deleted: bool = False,
    ) -> View[R]:
        """See `Store.view`."""
        paging = {"limit": limit, "marker": marker, "sort_key": sort_key, "sort_dir": sort_dir, "deleted": deleted}
        return await self._call("view", (kind, where), {"called": called, **paging})

    async def view_one(self, kind: type[R], ident: int | str, *, deleted: bool = False) -> View[R]:
        """See `Store.view_one`."""
        return await self._call("view_one", (kind, ident), {"deleted": deleted})

    async def related(self, row: Record, *, deleted: bool = False) -> Related:
        """See `Store.related`."""
        return await self._call("related", (row,), {"deleted": deleted})

    async def count(self, kind: type[Record], where: Mapping[str, Any] | None = None) -> int:
        """See `Store.count`."""
        return await self._call("count", (kind, where), {})

    async def claimable(self, kind: type[C], states: Sequence[str]) -> Rows[C]:
        """See `Store.claimable`."""
        return await self._call("claimable", (kind, states), {})

    async def runnable_audits(self, within_s: float = 0.0, since: datetime | None = None) -> Rows[Audit]:
        """See `Store.runnable_audits`."""
        return await self._call("runnable_audits", (within_s, since), {})

    async def events(self, after_id: int = 0, limit: int = 1000, record_uuid: str | None = None) -> Rows[Event]:
        """See `Store.events`."""
        return await self._call("events", (after_id, limit, record_uuid), {})

    # -- writing ---------------------------------------------------------------------------------

    async def newest_event(self) -> int:
        """See `Store.newest_event`."""
        return await self._call("newest_event", (), {})

    async def feed(self, name: str) -> int:
        """See `Store.feed`."""
        return await self._call("feed", (name,), {})

    async def feed_to(self, name: str, position: int) -> None:
        """See `Store.feed_to`."""
        await self._call("feed_to", (name, position), {})

    async def note(self, kind: type[Record], uuid: str, event: str, message: str | None = None) -> None:
        """See `Store.note`."""
        await self._call("note", (kind, uuid, event, message), {})

    async def create(self, record: R, *, key: str | None = None) -> R:
        """See `Store.create`."""
        return await self._call("create", (record,), {"key": key})

    async def create_many(self, records: Sequence[R]) -> Rows[R]:
        """See `Store.create_many`."""
        return await self._call("create_many", (records,), {})

    async def update(
        self,
        kind: type[R],
        uuid: str,
        changes: Mapping[str, Any],
        *,
        epoch: int | None = None,
        state: str | None = None,
    ) -> R:
        """See `Store.update`."""
        return await self._call("update", (kind, uuid, changes), {"epoch": epoch, "state": state})

    async def transition(
        self,
        kind: type[R],
        uuid: str,
        event: str,
        changes: Mapping[str, Any] | None = None,
        *,
        message: str | None = None,
        epoch: int | None = None,
    ) -> R:
        """See `Store.transition`; those asked for at the same time travel and are committed together."""
        if event == "delete":
            return await self._call("transition", (kind, uuid, event, changes), {"message": message, "epoch": epoch})
        return await self._moves.add(Move(kind, uuid, event, changes or {}, message, epoch))

    async def transition_all(
        self,
        kind: type[Record],
        where: Mapping[str, Any],
        event: str,
        changes: Mapping[str, Any] | None = None,
        message: str | None = None,
        *,
        epoch: int | None = None,
    ) -> int:
        """See `Store.transition_all`."""
        return await self._call("transition_all", (kind, where, event, changes, message), {"epoch": epoch})

    async def delete(self, kind: type[R], uuid: str) -> R:
        """See `Store.delete`."""
        return await self._call("delete", (kind, uuid), {})

    # -- claims ----------------------------------------------------------------------------------

    async def claim(self, kind: type[C], uuid: str, owner: str, lease_s: float) -> C:
        """See `Store.claim`."""
        return await self._call("claim", (kind, uuid, owner, lease_s), {})

    async def renew(self, kind: type[C], uuid: str, owner: str, epoch: int, lease_s: float) -> C:
        """See `Store.renew`."""
        return await self._call("renew", (kind, uuid, owner, epoch, lease_s), {})

    async def release(self, kind: type[C], uuid: str, owner: str, epoch: int) -> C:
        """See `Store.release`."""
        return await self._call("release", (kind, uuid, owner, epoch), {})

    # -- services, and growing old ---------------------------------------------------------------

    async def beat(self, name: str, host: str) -> Service:
        """See `Store.beat`."""
        return await self._call("beat", (name, host), {})

    async def roll_call(self, name: str, host: str, down_after_s: float) -> Changes:
        """See `Store.roll_call`."""
        return await self._call("roll_call", (name, host, down_after_s), {})

    async def supersede_plans(self, hours: float) -> int:
        """See `Store.supersede_plans`."""
        return await self._call("supersede_plans", (hours,), {})

    async def tidy(self, keep_days: float) -> int:
        """See `Store.tidy`."""
        return await self._call("tidy", (keep_days,), {})

    async def purge(
        self,
        *,
        age_days: float | None = None,
        most: int | None = None,
        goal: str | None = None,
        orphans: bool = True,
        dry_run: bool = False,
    ) -> Purged:
        """See `Store.purge`."""
        asked = {"age_days": age_days, "most": most, "goal": goal, "orphans": orphans, "dry_run": dry_run}
        return await self._call("purge", (), asked)

    # -- whole stories ---------------------------------------------------------------------------

    async def save_outcome(
        self,
        audit_uuid: str,
        *,
        event: str | None,
        epoch: int | None,
        status_message: str | None = None,
        audit_changes: Mapping[str, Any] | None = None,
        candidates: Sequence[CandidateRecord] = (),
        plan: ActionPlan | None = None,
        actions: Sequence[Action] = (),
        indicators: Sequence[EfficacyIndicator] = (),
        explanations: Sequence[Explanation] = (),
        launch: bool = False,
        replaces: bool = False,
        note: str | None = None,
    ) -> ActionPlan | None:
        """See `Store.save_outcome`."""
        outcome: Json = {
            "event": event,
            "epoch": epoch,
            "status_message": status_message,
            "audit_changes": audit_changes,
            "candidates": candidates,
            "plan": plan,
            "actions": actions,
            "indicators": indicators,
            "explanations": explanations,
            "launch": launch,
            "replaces": replaces,
            "note": note,
        }
        return await self._call("save_outcome", (audit_uuid,), outcome)

    async def save_plan(
        self,
        audit_uuid: str,
        plan: ActionPlan,
        actions: Sequence[Action],
        indicators: Sequence[EfficacyIndicator] = (),
        explanations: Sequence[Explanation] = (),
        *,
        supersedes: str | None = None,
    ) -> ActionPlan:
        """See `Store.save_plan`."""
        rows = (audit_uuid, plan, list(actions), list(indicators), list(explanations))
        return await self._call("save_plan", rows, {"supersedes": supersedes})

    async def sync_catalogue(
        self,
        goals: Sequence[Goal],
        strategies: Sequence[tuple[Strategy, str]],
        action_descriptions: Mapping[str, str],
        scoring_engines: Sequence[ScoringEngine] | None = None,
    ) -> Synced:
        """See `Store.sync_catalogue`."""
        return await self._call("sync_catalogue", (goals, strategies, action_descriptions, scoring_engines), {})

    async def checkpoint(self) -> None:
        """See `Store.checkpoint`."""
        await self._call("checkpoint", (), {})

    async def close(self) -> None:
        """See `Store.close`."""
        await self._call("close", (), {})


class SweepsPort:
    """Asks the one owner of what-if files; methods mean what those of `Sweeps` mean."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @classmethod
    def direct(cls, sweeps: Sweeps) -> SweepsPort:
        """A port to files of this process; calls run in place."""

        async def call(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return getattr(sweeps, method)(*args, **kwargs)

        return cls(call)

    async def keep_origin(self, uuid: str, tables: Mapping[str, pa.Table]) -> None:
        """See `Sweeps.keep_origin`."""
        await self._call("keep_origin", (uuid, tables), {})

    async def origin(self, uuid: str) -> dict[str, pa.Table]:
        """See `Sweeps.origin`."""
        return await self._call("origin", (uuid,), {})

    async def begin(self, uuid: str, wanted: Collection[str]) -> set[str]:
        """See `Sweeps.begin`."""
        return await self._call("begin", (uuid, wanted), {})

    async def add(self, uuid: str, rows: pa.Table, series: Mapping[str, pa.Table]) -> tuple[int, int]:
        """See `Sweeps.add`."""
        return await self._call("add", (uuid, rows, series), {})

    async def counts(self, uuid: str) -> tuple[int, int]:
        """See `Sweeps.counts`."""
        return await self._call("counts", (uuid,), {})

    async def table(self, uuid: str) -> pa.Table | None:
        """See `Sweeps.table`."""
        return await self._call("table", (uuid,), {})

    async def series(self, uuid: str, key: str) -> pa.Table | None:
        """See `Sweeps.series`."""
        return await self._call("series", (uuid, key), {})

    async def page(
        self,
        uuid: str,
        where: Mapping[str, Any],
        *,
        limit: int,
        marker: str | None = None,
        sort_key: str = "key",
        sort_dir: str = "asc",
    ) -> list[Json]:
        """See `Sweeps.page`."""
        paging = {"limit": limit, "marker": marker, "sort_key": sort_key, "sort_dir": sort_dir}
        return await self._call("page", (uuid, where), paging)

    async def remove(self, uuid: str) -> None:
        """See `Sweeps.remove`."""
        await self._call("remove", (uuid,), {})

    async def remove_orphans(self, known: Collection[str], before_s: float) -> int:
        """See `Sweeps.remove_orphans`."""
        return await self._call("remove_orphans", (known, before_s), {})
