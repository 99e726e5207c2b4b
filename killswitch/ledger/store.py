"""Rows: how each kind of record is put into the database, each change with its entry in the audit."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from killswitch.ledger import codec
from killswitch.ledger.audit import Chain, digest
from killswitch.ledger.backlog import Entry
from killswitch.ledger.records import Desired, IncidentRecord, OrderRecord, WorkloadRecord

NO_INCIDENT = "loose"  # the group of receipts that belong to no incident


def row_key(text: str) -> str:
    """ASCII for any text that a workload chose: as JSON writes it."""
    return json.dumps(text)[1:-1]


def text_of(key: str) -> str:
    """Inverse of ``row_key``; the key itself when it is none of ours."""
    try:
        return str(json.loads(f'"{key}"'))
    except ValueError:
        return key


def incident_number(incident: str) -> int:
    """n of "inc-<n>", 0 for anything else."""
    digits = incident.removeprefix("inc-")
    return int(digits) if digits != incident and digits.isascii() and digits.isdigit() else 0


class Store:
    """One transaction's view: make it after BEGIN, drop it after COMMIT or ROLLBACK."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._chain = Chain(connection)

    @property
    def end(self) -> tuple[int, str]:
        """(seq, hash) of the audit's last entry."""
        return self._chain.seq, self._chain.head

    def write(self, entry: Entry) -> None:
        """Raises sqlite3.Error; TypeError, ValueError or OverflowError for a record that cannot be kept as it is."""
        match entry.kind:
            case "finding" | "receipt":
                self._append(entry)
            case "desired" | "workload" | "incident" | "order" | "charge" | "program":
                self._upsert(entry)
            case _:
                self._chain.append("note", entry.kind, entry.time_unix, detail=dict(entry.record))

    def _append(self, entry: Entry) -> None:
        table = f"{entry.kind}s"
        data = codec.dumps(entry.record)
        cursor = self._connection.execute(
            f"INSERT INTO {table}(incident, data) VALUES (?, ?)", (row_key(entry.group), data)
        )
        group = row_key(entry.group) or NO_INCIDENT
        self._put(f"{table}/{cursor.lastrowid}", entry, data, group=group)

    def _upsert(self, entry: Entry) -> None:
        key, record = row_key(entry.key), entry.record
        table = {"desired": "desired"}.get(entry.kind, f"{entry.kind}s")
        if entry.delete:
            self._connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))
            self._chain.append("delete", f"{table}/{key}", entry.time_unix, **_reason(record))
            return
        data = codec.dumps(record)
        extra: dict[str, Any] = {}
        if isinstance(record, IncidentRecord):
            columns: dict[str, object] = {"number": incident_number(record.id), "closed_unix": record.closed_unix}
            self._connection.execute(  # outlives the incident: no later one may have its number
                "INSERT INTO meta VALUES ('last_incident', ?) ON CONFLICT DO UPDATE SET value = excluded.value "
                "WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)",
                (str(columns["number"]),),
            )
        elif isinstance(record, OrderRecord):
            columns = {"number": int(record.time_unix * 1e6), "request_id": row_key(record.request_id)}
            extra = {"detail": {k: v for k, v in json.loads(data).items() if k not in ("content", "answer")}}
        else:
            columns = {}
            extra = {"detail": json.loads(data)} if isinstance(record, Desired | WorkloadRecord) else {}
        columns = {"key": key, **columns, "data": data}
        self._connection.execute(
            f"INSERT OR REPLACE INTO {table}({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            tuple(columns.values()),
        )
        self._put(f"{table}/{key}", entry, data, **extra)

    def _put(self, ref: str, entry: Entry, data: str, **detail: Any) -> None:
        self._chain.append("put", ref, entry.time_unix, sha256=digest(data), **detail)

    def delete_incident(self, key: str, time_unix: float) -> None:
        """An incident with all that belongs to it, as one entry of the audit."""
        counts = {
            table: self._connection.execute(f"DELETE FROM {table} WHERE incident = ?", (key,)).rowcount
            for table in ("findings", "receipts")
        }
        self._connection.execute("DELETE FROM incidents WHERE key = ?", (key,))
        self._chain.append("delete", f"incidents/{key}", time_unix, group=key, why="retention", **counts)

    def delete_rows(self, table: str, keys: Iterable[object], time_unix: float) -> None:
        for key in keys:
            self._connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))
            self._chain.append("delete", f"{table}/{key}", time_unix, why="retention")

    def fold_audit(self, through: int, time_unix: float) -> None:
        """Replace the entries up to ``through`` by a checkpoint; records that only they vouch for are vouched for anew."""
        vouched: dict[str, dict[str, Any]] = {}  # by the old entries alone
        for seq, text in self._connection.execute("SELECT seq, entry FROM audit ORDER BY seq"):
            entry = json.loads(text)
            if entry["act"] in ("put", "carry") and seq <= through:
                vouched[entry["ref"]] = entry
            elif entry["act"] in ("put", "carry", "delete"):
                vouched.pop(entry["ref"], None)
                if entry["act"] == "delete" and (group := entry.get("group")):
                    vouched = {ref: kept for ref, kept in vouched.items() if kept.get("group") != group}
        seq, head = self._connection.execute("SELECT seq, hash FROM audit WHERE seq = ?", (through,)).fetchone()
        for ref, entry in vouched.items():
            group = {"group": entry["group"]} if "group" in entry else {}
            self._chain.append("carry", ref, time_unix, sha256=entry["sha256"], **group)
        self._chain.append("checkpoint", "audit", time_unix, through=seq, hash=head)
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('checkpoint', ?)", (f"{seq}:{head}",))
        self._connection.execute("DELETE FROM audit WHERE seq <= ?", (through,))


def _reason(record: object) -> Mapping[str, object]:
    return {"reason": record} if isinstance(record, str) and record else {}
