"""The hash chain: every change of the ledger is an entry, and each entry's hash covers the one before.

``hash = sha256(previous hash || canonical JSON of the entry)``. An entry names what it is about (``ref``: ``desired//a/b``,
``finding/12``), and carries the digest of the record as it was written, so that not only the chain but every record is
checked against it. It shows what was changed behind the daemon's back; against someone who can rewrite the whole file,
compare the head with one that was noted elsewhere (the daemon logs it, and ``verify-log`` prints it).
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from typing import Any

from killswitch.ledger import schema

GENESIS = "0" * 64
_HASH = re.compile("[0-9a-f]{64}")
# Tables whose rows are checked.
RECORDS = ("workloads", "desired", "incidents", "findings", "receipts", "orders", "charges", "programs")


def digest(data: str) -> str:
    return hashlib.sha256(data.encode("ascii")).hexdigest()


def chain(previous: str, entry: str) -> str:
    return hashlib.sha256(previous.encode("ascii") + entry.encode("ascii")).hexdigest()


class Chain:
    """The end of the chain, inside a transaction: read it, append, commit. A rolled back one is read anew."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        row = connection.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        last: tuple[int, str] = row or checkpoint(connection)
        self.seq, self.head = last
        if not isinstance(self.seq, int) or not isinstance(self.head, str) or not _HASH.fullmatch(self.head):
            raise schema.corrupt(f"the audit's last row is no entry of it: {self.seq!r}")

    def append(self, act: str, ref: str, time_unix: float, **detail: Any) -> None:
        """``act``: put, delete, carry, checkpoint, or note."""
        self.seq += 1
        entry = json.dumps(
            {"seq": self.seq, "act": act, "ref": ref, "time": time_unix, **detail},
            sort_keys=True,
            separators=(",", ":"),
        )
        self.head = chain(self.head, entry)
        self._connection.execute("INSERT INTO audit(seq, entry, hash) VALUES (?, ?, ?)", (self.seq, entry, self.head))


def checkpoint(connection: sqlite3.Connection) -> tuple[int, str]:
    """(seq, hash) of the last entry that was folded away; (0, GENESIS) when none was."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'checkpoint'").fetchone()
    if row is None:
        return 0, GENESIS
    seq, _, value = str(row[0]).partition(":")
    try:
        return int(seq), value
    except ValueError:
        raise schema.corrupt(f"the audit's checkpoint is none: {row[0]!r}") from None


def verify(connection: sqlite3.Connection) -> tuple[bool, str]:
    """(whole, what was checked or where it breaks). Reads everything, in one snapshot."""
    connection.execute("BEGIN")
    try:
        return _verify(connection)
    finally:
        connection.execute("ROLLBACK")


def _verify(connection: sqlite3.Connection) -> tuple[bool, str]:
    for (problem,) in connection.execute("PRAGMA quick_check(1)"):
        if problem != "ok":
            return False, f"the database file is damaged: {problem}"
    seq, head = start = checkpoint(connection)
    latest: dict[str, str] = {}  # ref -> digest of what must be there now
    groups: dict[str, set[str]] = {}  # what is deleted together
    for row_seq, text, stored in connection.execute("SELECT seq, entry, hash FROM audit ORDER BY seq"):
        seq += 1
        if row_seq != seq:
            return False, f"audit row {seq} is missing: the next one is {row_seq}"
        head = chain(head, text) if text.isascii() else ""
        if head != stored:
            return False, f"audit row {seq} does not fit the row before it: it, or that one, was changed"
        entry = json.loads(text)
        if entry["act"] in ("put", "carry"):
            latest[entry["ref"]] = entry["sha256"]
            if group := entry.get("group"):
                groups.setdefault(group, set()).add(entry["ref"])
        elif entry["act"] == "delete":
            latest.pop(entry["ref"], None)
            for ref in groups.pop(entry.get("group", ""), ()):
                latest.pop(ref, None)
    for table in RECORDS:
        for key, data in connection.execute(f"SELECT key, data FROM {table}"):
            expected = latest.pop(f"{table}/{key}", None)
            if expected is None:
                return False, f"{table} row {key!r} was added behind the ledger's back: the audit does not know it"
            if not data.isascii() or digest(data) != expected:
                return False, f"{table} row {key!r} was changed behind the ledger's back: the audit has another digest"
    for ref in latest:
        table, _, key = ref.partition("/")
        return False, f"{table} row {key!r} is missing: the audit has no entry that deletes it"
    folded = f", after {start[0]:,} that were folded into a checkpoint" if start[0] else ""
    return True, f"{seq - start[0]:,} audit entries{folded}, all records as they were written; head {seq}:{head}"
