"""Scoring engines: found through entry points of engines and containers, and kept in step with the store's table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from trimtab.platform.errors import InvalidInput, NotFound, TrimtabError
from trimtab.platform.plugins import scoring_engines
from trimtab.platform.records import ScoringEngine
from trimtab.platform.store.catalogue import Synced
from trimtab.platform.store.state import Store

CODE = """
class Even:
    name = "even"
    description = "Says whether a number is even"
    metainfo = ""
    def calculate_score(self, features): return str(int(features) % 2 == 0)
class Half:
    name = "half"
class Several:
    @classmethod
    def get_scoring_engine_list(cls):
        other = Even()
        other.description = "Another one of that name"
        return [other]
class Wrong:
    @classmethod
    def get_scoring_engine_list(cls): return [Half()]
"""
SINGLE, MANY = "trimtab.scoring_engines", "trimtab.scoring_engine_containers"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Put a package with entry points where Python looks for packages, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(entry_points: str) -> None:
        about = tmp_path / "engines-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: engines\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(entry_points)
        (tmp_path / "odd_engines.py").write_text(CODE)

    yield put
    sys.modules.pop("odd_engines", None)


def engine(name: str, description: str | None = "Counts", metainfo: str | None = "{}") -> ScoringEngine:
    return ScoringEngine(uuid=str(uuid4()), name=name, description=description, metainfo=metainfo)


def test_another_package_brings_an_engine(install: Callable[[str], None]) -> None:
    assert "even" not in scoring_engines()
    install(f"[{SINGLE}]\neven = odd_engines:Even\n")
    assert scoring_engines()["even"].calculate_score("4") == "True"


def test_an_engine_of_a_container_counts_more_than_a_single_one_of_its_name(install: Callable[[str], None]) -> None:
    install(f"[{SINGLE}]\neven = odd_engines:Even\n[{MANY}]\nseveral = odd_engines:Several\n")
    assert scoring_engines()["even"].description == "Another one of that name"


@pytest.mark.parametrize(
    ("entry_points", "complaint"),
    [
        (f"[{SINGLE}]\nhalf = odd_engines:Half\n", "half .* lacks a member of contracts.ScoringEngine"),
        (f"[{SINGLE}]\nodd = odd_engines:Even\n", "'odd' gives a plug-in that calls itself 'even'"),
        (f"[{MANY}]\neven = odd_engines:Even\n", "container even has no get_scoring_engine_list"),
        (f"[{MANY}]\nwrong = odd_engines:Wrong\n", "container wrong gives .* no contracts.ScoringEngine"),
        (f"[{SINGLE}]\nnone = odd_engines:Nobody\n", "none of trimtab.scoring_engines .* cannot be loaded"),
    ],
)
def test_what_is_no_engine_is_said_by_name(install: Callable[[str], None], entry_points: str, complaint: str) -> None:
    install(entry_points)
    with pytest.raises(TrimtabError, match=complaint):
        scoring_engines()


def test_the_catalogue_follows_what_is_installed() -> None:
    store = Store(None)
    first = [engine("a"), engine("b"), engine("c", None, None)]
    assert store.sync_catalogue([], [], {}, first) == Synced(created=[f"scoring_engine {n}" for n in "abc"])
    before = {row.name: row for row in store.list(ScoringEngine)}
    assert store.sync_catalogue([], [], {}, first) == Synced()
    assert store.sync_catalogue([], [], {}) == Synced(), "nothing said about engines leaves them alone"
    done = store.sync_catalogue([], [], {}, [engine("a", "Counts well"), engine("b", metainfo='{"features": 2}')])
    assert done == Synced(reworded=["scoring_engine a"], replaced=["scoring_engine b"], removed=["scoring_engine c"])
    assert (store.get(ScoringEngine, "a").uuid, store.get(ScoringEngine, "a").description) == (
        before["a"].uuid,
        "Counts well",
    )
    assert store.get(ScoringEngine, "b").uuid != before["b"].uuid
    assert store.get(ScoringEngine, before["b"].uuid, deleted=True).deleted == before["b"].id
    with pytest.raises(NotFound, match="ScoringEngine c could not be found"):
        store.get(ScoringEngine, "c")
    with pytest.raises(InvalidInput, match="rename or remove one scoring engine"):
        store.sync_catalogue([], [], {}, [engine("a"), engine("a")])
    store.close()
