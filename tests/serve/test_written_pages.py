"""Pages written once for what they were made of; what changed is written again."""

from __future__ import annotations

import json
from typing import Any

from trimtab.serve.remembering import Written


def test_the_same_is_written_once_and_anything_else_again() -> None:
    written, made = Written(most=2), list[str]()

    def answer(of: list[int], how: str) -> Any:
        def make() -> Any:
            made.append(how)
            return {"of": of, "how": how}

        return json.loads(written.json(of, how, make))

    one, equal = [1], [1]
    assert answer(one, "a") == answer(one, "a") == {"of": [1], "how": "a"}
    assert made == ["a"]
    answer(equal, "a")
    assert made == ["a", "a"], "equal is not the same: it may change on its own"
    answer(one, "b")
    assert made == ["a", "a", "b"]
    answer(one, "a")
    assert made == ["a", "a", "b", "a"], "only so many are kept"


async def test_a_page_shows_what_was_changed_since(idle: Any) -> None:
    made = await idle.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy", "name": "before"})
    for _ in range(2):
        (listed,) = (await idle.get("/v1/audits"))["audits"]
        assert (listed["name"], listed["state"]) == ("before", "PENDING")
    change = [{"op": "replace", "path": "/state", "value": "CANCELLED"}]
    assert (await idle.http.patch(f"/v1/audits/{made['uuid']}", json=change)).status_code == 200
    (listed,) = (await idle.get("/v1/audits"))["audits"]
    assert listed["state"] == "CANCELLED"
