"""Records and pages of lists as they were last read, and where each uuid is: what the owner of a file may remember."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trimtab.platform.records import RECORDS, Record

KINDS: frozenset[type[Record]] = frozenset(kind for kind in RECORDS.values() if kind.often_shown)
MOST = 10_000
MOST_PAGES = 500  # of each kind
LONGEST_PAGE = 2_000


class Kept:
    """The records of KINDS that were read last, deleted ones too, the ids of all their uuids, and pages of lists.

    Whoever writes a row forgets it here, and keeps nothing of its kind that is read before the commit; so what is here
    was committed, and a rollback changes nothing. A uuid's id never changes, but its row may be gone, or never have
    been committed: look.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._records: OrderedDict[tuple[type[Record], int], Record] = OrderedDict()
        self._ids: dict[type[Record], dict[str, int]] = {}
        self._pages: dict[type[Record], dict[str, list[int]]] = {}

    def records(self, kind: type[Any], ids: Iterable[int]) -> dict[int, Any]:
        """Those of these records that are here, by id."""
        found = {}
        for row_id in ids:
            record = self._records.get((kind, row_id))
            if record is not None:
                self._records.move_to_end((kind, row_id))
                found[row_id] = record
        return found

    def keep(self, records: Iterable[Record]) -> None:
        """Keep these; the ones that were not asked for longest make room."""
        for record in records:
            self._records[type(record), record.id] = record
        while len(self._records) > self._most:
            self._records.popitem(last=False)

    def forget(self, kind: type[Record], ids: Iterable[int] | None = None) -> None:
        """These rows are written, or all rows of a kind may be."""
        if kind in KINDS:
            for key in [key for key in self._records if key[0] is kind] if ids is None else [(kind, i) for i in ids]:
                self._records.pop(key, None)
            self._pages.pop(kind, None)

    def page(self, kind: type[Record], asked: str, read: Callable[[], list[int]], *, keep: bool) -> Sequence[int]:
        """The ids of the rows a question of one of KINDS finds; `read` asks the file, again after any row is written.

        `asked` is the whole question: its statement and parameters.
        """
        pages = self._pages.setdefault(kind, {})
        ids = pages.get(asked)
        if ids is None:
            ids = read()
            if keep and len(ids) <= LONGEST_PAGE:
                if len(pages) >= MOST_PAGES:
                    pages.clear()
                pages[asked] = ids
        return ids

    def ids(self, kind: type[Record], read: Callable[[], Mapping[str, int]]) -> Mapping[str, int]:
        """The ids of all uuids of a kind; `read` asks the file, which is done once."""
        if kind not in self._ids:
            self._ids[kind] = dict(read())
        return self._ids[kind]

    def added(self, kind: type[Record], rows: Iterable[tuple[str, int]]) -> None:
        """New rows: uuid and id."""
        known = self._ids.get(kind)
        if known is not None:
            known.update(rows)
