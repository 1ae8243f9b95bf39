"""The API asks for the catalogue once a second at most, and for everything else each time."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.platform.errors import NotFound
from trimtab.platform.records import Audit, Goal
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.state import Store
from trimtab.serve.compose import sync_catalogue
from trimtab.serve.remembering import remembering


class Counted:
    """A store in memory that knows what it was asked, and a clock."""

    def __init__(self) -> None:
        self.store, self.asked, self.now_s = Store(None), list[str](), 0.0
        sync_catalogue(self.store)

    async def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.asked.append(method)
        return getattr(self.store, method)(*args, **kwargs)

    def port(self) -> StorePort:
        return StorePort(remembering(self.call, 1.0, lambda: self.now_s))


async def test_goals_are_asked_for_once_and_again_when_a_second_is_over() -> None:
    counted = Counted()
    port = counted.port()
    first = await port.view(Goal, {}, limit=10)
    assert await port.view(Goal, {}, limit=10) == first
    assert counted.asked == ["view"]
    gone = counted.store.delete(Goal, first.rows[0].uuid)
    counted.now_s = 1.0
    assert gone.uuid not in {row.uuid for row in (await port.view(Goal, {}, limit=10)).rows}
    assert len(counted.asked) == 2


async def test_another_question_has_another_answer() -> None:
    counted = Counted()
    port = counted.port()
    assert len((await port.view(Goal, {}, limit=1)).rows) == 1
    assert len((await port.view(Goal, {}, limit=2)).rows) == 2


async def test_audits_and_errors_are_never_remembered() -> None:
    counted = Counted()
    port = counted.port()
    for _ in range(2):
        await port.view(Audit, {}, limit=10)
        with pytest.raises(NotFound):
            await port.get(Goal, "nothing like it")
    assert counted.asked == ["view", "get"] * 2
