"""The SQLite file of a store: its tables, how it is opened and written, and what its errors mean. Blocks; see `sqlite`."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from narupa_shared.stores.log import read_commit
from narupa_shared.stores.store import Commit, Contents, StoreError, StoreReplacedError

APPLICATION_ID: Final = 0x4E525041  # "NRPA", which `file` and SQLite's own tools show
VERSION: Final = 1
# A predecessor that is just being stopped may hold the file this much longer.
BUSY_TIMEOUT_S: Final = 1.0

_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
CREATE TABLE store (epoch TEXT NOT NULL);
CREATE TABLE records (
    collection TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (collection, key)
) WITHOUT ROWID;
CREATE TABLE commits (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL);
INSERT INTO store VALUES ('{{epoch}}');
COMMIT;
"""


class SqliteFile:
    """An open file. Every method but the constructor and `close` raises StoreError when the file fails; used from one thread.

    Attributes:
        number: Of the last commit that is durable, or of the last one added within `transaction`.
    """

    def __init__(self, path: Path, kept_commits: int) -> None:
        self._path = path
        self._kept = kept_commits
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] = (0, 0)
        self.number = 0

    def open(self) -> Contents:
        """The file is ours alone, and made if there was none; returns what it holds, with no leases."""
        try:
            with self._errors():
                self._create()
                self._identity = self._found()
                self._database = database = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
                database.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._check_kind(database)
                if database.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                    raise StoreError(f"{self._path} cannot have a write-ahead log: put it on a local disk")
                database.execute("PRAGMA synchronous = FULL")
                database.execute("PRAGMA fullfsync = ON")
                if self._version(database) == 0:
                    database.executescript(_SCHEMA.format(epoch=secrets.token_hex(8)))
                return self._contents(database)
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is added within is durable afterwards; when it cannot be, nothing has changed."""
        database, number = self._opened(), self.number
        try:
            with self._errors():
                if self._found() != self._identity:
                    raise StoreReplacedError(
                        f"{self._path} has been deleted or replaced while it was in use; restart the service"
                    )
                database.execute("BEGIN IMMEDIATE")
                yield
                database.execute("DELETE FROM commits WHERE number <= ?", (self.number - self._kept,))
                database.execute("COMMIT")
        except BaseException:
            self.number = number
            if database.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
            raise

    def has(self, id: str) -> bool:
        """Whether a commit with this id is kept."""
        return self._opened().execute("SELECT 1 FROM commits WHERE id = ?", (id,)).fetchone() is not None

    def add(self, commit: Commit, body: str) -> None:
        """The commit is the last one. Only within `transaction`."""
        database = self._opened()
        gone = [key for key, value in commit.changes.items() if value is None]
        put = [(*key, value) for key, value in commit.changes.items() if value is not None]
        database.executemany("DELETE FROM records WHERE collection = ? AND key = ?", gone)
        database.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", put)
        database.execute("INSERT INTO commits VALUES (?, ?, ?)", (commit.number, commit.id, body))
        self.number = commit.number

    def close(self) -> None:
        """The file is let go. Idempotent."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _create(self) -> None:
        """The file is there and only its owner may read it: it holds what signs tokens."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file that is there is not opened: closing it again would let go of SQLite's locks on it in this process.
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            mode = self._path.stat().st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                self._path.chmod(0o600)

    def _found(self) -> tuple[int, int]:
        """Which file has the path now; none of any file's when there is none."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_dev, status.st_ino

    def _check_kind(self, database: sqlite3.Connection) -> None:
        (application_id,) = database.execute("PRAGMA application_id").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        version = self._version(database)
        if application_id != APPLICATION_ID and (tables or application_id or version):
            raise StoreError(f"{self._path} is an SQLite database of something else; name another file")
        if version > VERSION:
            raise StoreError(
                f"{self._path} was written by a newer Narupa (format {version}; this one knows formats up to {VERSION}): "
                "install that version again, or name another file"
            )

    @staticmethod
    def _version(database: sqlite3.Connection) -> int:
        return int(database.execute("PRAGMA user_version").fetchone()[0])

    def _contents(self, database: sqlite3.Connection) -> Contents:
        problems = [row[0] for row in database.execute("PRAGMA quick_check(1)")]
        if problems != ["ok"]:
            raise StoreError(self._damaged(problems[0]))
        (epoch,) = database.execute("SELECT epoch FROM store").fetchone()
        records = {(row[0], row[1]): row[2] for row in database.execute("SELECT collection, key, value FROM records")}
        rows = database.execute("SELECT number, body FROM commits ORDER BY number").fetchall()
        try:
            log = tuple(read_commit(number, body) for number, body in rows)
        except ValueError as error:
            raise StoreError(self._damaged(str(error))) from None
        self.number = log[-1].number if log else 0
        if log and log[0].number != self.number - len(log) + 1:
            raise StoreError(self._damaged("commits are missing from its log"))
        return Contents(epoch, self.number, records, log[-self._kept :], frozenset())

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreError(f"{self._path} is not open")
        return self._database

    def _damaged(self, how: str) -> str:
        return f"{self._path} is damaged ({how}): put a backup in its place, or move it away to start anew"

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of SQLite and of the operating system become StoreError."""
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self._path} cannot be used: {error.strerror or error}") from error
        except sqlite3.Error as error:
            raise StoreError(self._meaning(error)) from error

    def _meaning(self, error: sqlite3.Error) -> str:
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return f"{self._path} is open in another process: stop that one, or name another file"
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return self._damaged(str(error))
            case sqlite3.SQLITE_FULL:
                return f"{self._path} cannot be written: the disk is full; make room"
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return f"{self._path} cannot be written: {error}; make it and its folder writable for this user"
            case sqlite3.SQLITE_CANTOPEN:
                return f"{self._path} cannot be opened: {error}; it must be a file in a folder that this user may write"
            case sqlite3.SQLITE_IOERR:
                return f"{self._path} cannot be read or written: {error}; see whether the disk is full or failing"
            case _:
                return f"{self._path} cannot be used: {error}"
