"""The journal of the simulated cloud: one JSON object a line, on disk before anything is acknowledged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from trimtab.platform.errors import CloudUnavailable, InvalidInput

Entry = dict[str, Any]


class Journal:
    """An append-only file. Without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._size = 0

    def entries(self) -> list[Entry]:
        """All whole lines, oldest first; a torn last line was never acknowledged and is cut off.

        Raises:
            InvalidInput: a line in the middle is no JSON object: the file is damaged or not a journal.
        """
        if self.path is None or not self.path.exists():
            return []
        raw = self.path.read_bytes()
        self._size = raw.rfind(b"\n") + 1
        entries: list[Entry] = []
        for number, line in enumerate(raw[: self._size].splitlines(), 1):
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                raise InvalidInput(f"{self.path} line {number} is no JSON object: restore the file or remove it")
            entries.append(entry)
        if self._size < len(raw):
            os.truncate(self.path, self._size)
        return entries

    def append(self, entry: Entry) -> None:
        """Write one entry and wait until it is on disk.

        Raises:
            CloudUnavailable: it could not be written; nothing of it is left in the file.
        """
        if self.path is None:
            return
        line = json.dumps(entry, sort_keys=True).encode() + b"\n"
        created = not self.path.exists()
        try:
            if created:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                try:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self.path, self._size)
                    raise
            if created:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise CloudUnavailable(f"the simulated cloud cannot write its journal {self.path}: {error}") from error
        self._size += len(line)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
