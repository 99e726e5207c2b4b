"""Reading back. Each call has a connection of its own, so that it sees one snapshot and never waits for the writer."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeVar

from killswitch.commands import Containment, Finding, Receipt
from killswitch.errors import LedgerError
from killswitch.ledger import audit, codec, schema, witness
from killswitch.ledger.records import (
    ChargeRecord,
    Desired,
    Incident,
    IncidentRecord,
    OrderRecord,
    ProgramRecord,
    WorkloadRecord,
)
from killswitch.ledger.store import row_key, text_of

log = logging.getLogger(__name__)
T = TypeVar("T")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Raises LedgerError for whatever SQLite says."""
    try:
        with contextlib.closing(schema.connect(path, read_only=True)) as connection:
            connection.execute("BEGIN")
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}: cannot be read: {error}; killswitch status tells the ledger's health") from error


def desired(connection: sqlite3.Connection) -> dict[str, Desired]:
    """By cgroup path. A row that cannot be read stands for a cgroup that was to be contained: it is, fully, to be safe."""
    found: dict[str, Desired] = {}
    for key, data in connection.execute("SELECT key, data FROM desired"):
        try:
            record = codec.loads(data, Desired)
        except LedgerError as error:
            cgroup = text_of(key)
            log.error("desired containment of %s: %s; it is to be severed and frozen until released", key, error)
            why = "its row in the ledger could not be read, so it is contained to be safe"
            record = Desired(cgroup, 0, "", cgroup.rpartition("/")[2], Containment(True, True), "", why, 0.0)
        found[record.cgroup] = record
    return found


def salvage(path: Path) -> tuple[dict[str, Desired], dict[str, WorkloadRecord]]:
    """What a broken ledger that was moved aside still tells of desired containment and workloads; often all of it."""
    wanted: dict[str, Desired] = {}
    watched: dict[str, WorkloadRecord] = {}
    try:
        with contextlib.closing(schema.connect(path, read_only=True)) as connection:
            if connection.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION_ID:
                wanted = desired(connection)
                watched = workloads(connection)
    except (sqlite3.Error, ValueError) as error:
        log.error("%s: desired containment could not all be read from it: %s", path, error)
    return wanted, watched


def workloads(connection: sqlite3.Connection) -> dict[str, WorkloadRecord]:
    rows = connection.execute("SELECT data FROM workloads")
    return {w.cgroup: w for w in _readable("workloads", rows, WorkloadRecord)}


def charges(connection: sqlite3.Connection) -> dict[str, ChargeRecord]:
    return {c.cgroup: c for c in _readable("charges", _rows_of(connection, "charges"), ChargeRecord)}


def programs(connection: sqlite3.Connection) -> dict[str, ProgramRecord]:
    return {p.sha256: p for p in _readable("programs", _rows_of(connection, "programs"), ProgramRecord)}


def _rows_of(connection: sqlite3.Connection, table: str) -> Iterator[tuple[str]]:
    """A file of an earlier schema, on a disk that cannot be written, has not every table."""
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
    return iter(connection.execute(f"SELECT data FROM {table}") if there else ())


def last_incident(connection: sqlite3.Connection) -> int:
    """The highest incident number that was ever given out."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'last_incident'").fetchone()
    return int(row[0]) if row else 0


def open_incidents(connection: sqlite3.Connection) -> dict[str, IncidentRecord]:
    """By id, without what belongs to them: a start must not wait for a flood of findings to be read."""
    rows = connection.execute("SELECT data FROM incidents WHERE closed_unix = 0")
    return {i.id: i for i in _readable("incidents", rows, IncidentRecord)}


def findings_of_open(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(
        connection.execute(
            "SELECT f.incident, count(*) FROM findings f JOIN incidents i ON i.key = f.incident "
            "WHERE i.closed_unix = 0 GROUP BY f.incident"
        )
    )


def incidents(connection: sqlite3.Connection, *, open_only: bool, limit: int) -> list[Incident]:
    """Newest first; ``limit`` 0 is all."""
    rows = connection.execute(
        f"SELECT key, data FROM incidents {'WHERE closed_unix = 0' if open_only else ''} ORDER BY number DESC LIMIT ?",
        (limit or -1,),
    ).fetchall()
    return [_incident(connection, key, codec.loads(data, IncidentRecord)) for key, data in rows]


def incident(connection: sqlite3.Connection, identifier: str) -> Incident | None:
    row = connection.execute("SELECT key, data FROM incidents WHERE key = ?", (row_key(identifier),)).fetchone()
    return _incident(connection, row[0], codec.loads(row[1], IncidentRecord)) if row else None


def order(connection: sqlite3.Connection, request_id: str) -> OrderRecord | None:
    row = connection.execute(
        "SELECT data FROM orders WHERE request_id = ? ORDER BY number DESC LIMIT 1", (row_key(request_id),)
    ).fetchone()
    return codec.loads(row[0], OrderRecord) if row else None


def last_order(connection: sqlite3.Connection, verb: str, outcomes: Collection[str]) -> OrderRecord | None:
    """The latest order of this kind that came to one of these."""
    row = connection.execute(
        "SELECT data FROM orders WHERE json_extract(data, '$.verb') = ? "
        f"AND json_extract(data, '$.outcome') IN ({', '.join('?' * len(outcomes))}) ORDER BY number DESC LIMIT 1",
        (verb, *outcomes),
    ).fetchone()
    return codec.loads(row[0], OrderRecord) if row else None


def request_ids(connection: sqlite3.Connection, limit: int) -> set[str]:
    rows = connection.execute("SELECT request_id FROM orders ORDER BY number DESC LIMIT ?", (limit,))
    return {text_of(key) for (key,) in rows}


def verify(path: Path) -> tuple[bool, str]:
    """As ``audit.verify``; a file that cannot be read is not whole."""
    try:
        told, problem = witness.read(
            path
        )  # first: what is written meanwhile is in the database, and not the other way round
        with contextlib.closing(schema.connect(path, read_only=True)) as connection:
            whole, text = audit.verify(connection)
            if whole and told is not None:
                problem = witness.loss(connection, told)
            return (False, problem) if whole and problem else (whole, text)
    except (sqlite3.Error, ValueError) as error:
        return False, f"{path}: cannot be read: {error}"


def _incident(connection: sqlite3.Connection, key: str, record: IncidentRecord) -> Incident:
    found = connection.execute("SELECT data FROM findings WHERE incident = ? ORDER BY key", (key,))
    got = connection.execute("SELECT data FROM receipts WHERE incident = ? ORDER BY key", (key,))
    return Incident(
        record,
        tuple(_readable(f"findings of {key}", found, Finding)),
        tuple(_readable(f"receipts of {key}", got, Receipt)),
    )


def _readable(what: str, rows: Iterator[tuple[str]] | sqlite3.Cursor, cls: type[T]) -> Iterator[T]:
    """What an older release wrote, or somebody changed, must not hide the rest: it is logged and left out."""
    for (data,) in rows:
        try:
            yield codec.loads(data, cls)
        except LedgerError as error:
            log.error("%s: left out: %s", what, error)
