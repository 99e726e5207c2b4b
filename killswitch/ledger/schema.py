"""The database file: its schema, how it is opened, and what happens to a file that is not ours or is broken.

WAL, with ``synchronous=FULL``: each commit is on disk when it returns, so that desired containment survives a power cut;
with ``NORMAL`` WAL may lose the last commits. It costs one fsync a batch, in the writer's thread, where no kill waits.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from pathlib import Path

from killswitch.errors import LedgerError

APPLICATION_ID = 0x4B535744  # "KSWD", in the file's header
VERSION = 2

_TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE workloads(key TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE desired(key TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE incidents(key TEXT PRIMARY KEY, number INTEGER NOT NULL, closed_unix REAL NOT NULL, data TEXT NOT NULL);
CREATE INDEX incidents_number ON incidents(number);
CREATE TABLE findings(key INTEGER PRIMARY KEY, incident TEXT NOT NULL, data TEXT NOT NULL);
CREATE INDEX findings_incident ON findings(incident);
CREATE TABLE receipts(key INTEGER PRIMARY KEY, incident TEXT NOT NULL, data TEXT NOT NULL);
CREATE INDEX receipts_incident ON receipts(incident);
CREATE TABLE orders(key TEXT PRIMARY KEY, number INTEGER NOT NULL, request_id TEXT NOT NULL, data TEXT NOT NULL);
CREATE INDEX orders_request ON orders(request_id);
CREATE TABLE charges(key TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE programs(key TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE audit(seq INTEGER PRIMARY KEY, entry TEXT NOT NULL, hash TEXT NOT NULL);
"""
TABLES = frozenset(re.findall(r"CREATE TABLE (\w+)", _TABLES))
MIGRATIONS: dict[int, str] = {  # from version -> SQL that brings it to the next
    1: "CREATE TABLE charges(key TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE programs(key TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;",
}

BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}  # the file itself is no good


class Broken(Exception):
    """The file cannot be used, and is to be moved aside. ``str()`` says why."""


def is_broken(error: sqlite3.Error) -> bool:
    """Whether the file is at fault, and not the disk, its rights, or another process."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    # What the schema says is read once: a table that is missing later was lost with a page.
    return code & 0xFF in BROKEN or (code == sqlite3.SQLITE_ERROR and str(error).startswith("no such "))


def corrupt(what: str) -> sqlite3.DatabaseError:
    """As SQLite itself would say it, of what only we can tell: a value that nobody can have written."""
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def may_pass(error: Exception) -> bool:
    """Whether the same connection may work again by itself: the disk was full, or another process held the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Raises sqlite3.Error. Autocommit: transactions are begun by hand."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    connection.execute("PRAGMA busy_timeout = 1000")
    return connection


def _text(raw: bytes) -> str:
    """Ours is ASCII. What is no text is damage, to be told by who reads it, and no reason for sqlite3 to give up on the row."""
    return raw.decode("utf-8", "surrogateescape")


def open_database(path: Path) -> tuple[sqlite3.Connection, bool, int]:
    """(connection, new, version that was migrated from or 0).

    Raises Broken for a file that is not ours or cannot be read, LedgerError for one of a newer release, sqlite3.Error
    for what may pass (full disk, no rights).
    """
    connection = connect(path)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = _tables(connection)
        if not tables and not application:
            _create(connection)
            return connection, True, 0
        if application != APPLICATION_ID:
            raise Broken("it is a database of another program")
        if version > VERSION:
            raise LedgerError(
                f"{path}: was written by a newer killswitch (schema {version}, this one knows {VERSION}); "
                "run that release, or move the file away to begin a new ledger"
            )
        _settings(connection)
        migrated = version if _migrate(connection, version) else 0
        if missing := TABLES - _tables(connection):
            raise Broken(f"it lacks the tables {', '.join(sorted(missing))}")
        return connection, False, migrated
    except sqlite3.Error as error:
        connection.close()
        if is_broken(error):
            raise Broken(str(error)) from error
        raise
    except ValueError as error:  # names, or SQLite's own words about them, that are no text
        connection.close()
        raise Broken(f"its schema cannot be read: {error}") from error
    except BaseException:
        connection.close()
        raise


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _settings(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_size_limit = 8388608")


def _create(connection: sqlite3.Connection) -> None:
    _settings(connection)
    connection.executescript(
        f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
    )


def _migrate(connection: sqlite3.Connection, version: int) -> bool:
    """Step by step, each in a transaction of its own, so that a crash leaves a whole version."""
    for step in range(version, VERSION):
        connection.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[step]} PRAGMA user_version = {step + 1}; COMMIT;")
    return version < VERSION


def move_aside(path: Path) -> Path:
    """Rename the file, and its -wal and -shm, to ``<name>.corrupt-<time>``; nothing is lost. Raises OSError."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    target = path.with_name(f"{path.name}.corrupt-{stamp}")
    n = 1
    while target.exists():
        n += 1
        target = path.with_name(f"{path.name}.corrupt-{stamp}-{n}")
    for suffix in ("-wal", "-shm"):  # first these: a new database must not find the old one's log
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{target}{suffix}")
    path.rename(target)
    return target
