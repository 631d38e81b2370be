"""A cache on disk for facts about texts, shared by all recipes, so that none is computed twice.

Keys are hashes of everything that determines a fact; facts are JSON values. Losing the file costs time, never a result.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import StoreError
from distill.storage.files import Closing, disk_errors

KEY_BYTES = 16
NUM_ASKED = 500
"""Keys in one query. SQLite allows up to 32,766 parameters."""
BUSY_S = 60.0


def fact_key(*parts: str) -> bytes:
    """Return the key (16 bytes) of a fact that is determined by these texts, in this order."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.digest()


class FactCache(Closing):
    """Facts by key in one SQLite file. One process writes; any number read at the same time.

    Args:
        path: the file.
        write: whether to create a missing file and allow `put`; otherwise only read.

    Raises:
        StoreError: the disk is full or not writable.
    """

    def __init__(self, path: Path, write: bool = False) -> None:
        self._path = path
        with disk_errors(path):
            try:
                self._connection = _open(path, write)
            except sqlite3.OperationalError as error:  # locked, or the disk is not writable
                if not write:
                    raise
                raise StoreError(f"{path}: cannot be opened ({error}). Free it, or check the disk.") from None
            except sqlite3.DatabaseError:
                if not write:
                    raise
                for file in path.parent.glob(f"{path.name}*"):  # facts can be recomputed
                    file.replace(file.with_name(f"{file.name}.damaged"))
                self._connection = _open(path, write)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Any]:
        """Return the facts that are known for these keys, as far as the file is not damaged."""
        found: dict[bytes, Any] = {}
        with contextlib.suppress(sqlite3.DatabaseError):  # everything in it can be computed again
            for start in range(0, len(keys), NUM_ASKED):
                some = keys[start : start + NUM_ASKED]
                marks = ",".join("?" * len(some))
                rows = self._connection.execute(f"SELECT key, value FROM facts WHERE key IN ({marks})", some)  # noqa: S608
                found.update((key, json.loads(value)) for key, value in rows)
        return found

    def put(self, facts: Mapping[bytes, Any] | Iterable[tuple[bytes, Any]]) -> None:
        """Store facts: all of them or, after a kill, none.

        Raises:
            StoreError: the disk is full or not writable.
        """
        pairs = facts.items() if isinstance(facts, Mapping) else facts
        rows = [(key, json.dumps(value, ensure_ascii=True, separators=(",", ":"))) for key, value in pairs]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self._path}: writing failed ({error}). Free some space, or remove the file: all of it can be "
                "recomputed."
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _open(path: Path, write: bool) -> sqlite3.Connection:
    if not write:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)
        connection.execute("SELECT 1 FROM facts LIMIT 1")
        return connection
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_S)
    try:
        connection.execute("PRAGMA journal_mode=WAL")  # workers read while the parent writes
        connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the last facts, but not the file
        # With rowids, facts are appended, and only the small index over the keys sees random writes.
        connection.execute("CREATE TABLE IF NOT EXISTS facts (key BLOB PRIMARY KEY, value TEXT NOT NULL)")
        connection.commit()
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
