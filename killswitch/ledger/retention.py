"""Keeps the file bounded. Open incidents, desired containment and watched workloads are never deleted."""

from __future__ import annotations

import sqlite3
import time

from killswitch.ledger.audit import RECORDS
from killswitch.ledger.records import Retention
from killswitch.ledger.store import Store

BATCH = 200  # incidents, or rows, in one transaction: the writer must not be away for long


def prune(connection: sqlite3.Connection, keep: Retention, now: float | None = None) -> int:
    """Delete at most a batch of what is too old or too much; how many were. Inside a transaction of the caller's."""
    now = time.time() if now is None else now
    store = Store(connection)
    closed = connection.execute(
        "SELECT key FROM incidents WHERE closed_unix > 0 AND (closed_unix < ? OR key NOT IN "
        "(SELECT key FROM incidents WHERE closed_unix > 0 ORDER BY closed_unix DESC LIMIT ?)) "
        "ORDER BY closed_unix LIMIT ?",
        (now - keep.closed_seconds, keep.closed_incidents, BATCH),
    ).fetchall()
    if not closed and _count(connection, "findings") > keep.findings:
        closed = connection.execute(
            "SELECT key FROM incidents WHERE closed_unix > 0 ORDER BY closed_unix LIMIT 1"
        ).fetchall()
    for (key,) in closed:
        store.delete_incident(key, now)
    pruned = len(closed)
    for table, condition, limit in (
        ("orders", "1", keep.orders),
        ("receipts", "incident = ''", keep.loose_receipts),
    ):
        order = "number" if table == "orders" else "key"
        keys = connection.execute(
            f"SELECT key FROM {table} WHERE {condition} ORDER BY {order} DESC LIMIT ? OFFSET ?", (BATCH, limit)
        ).fetchall()
        store.delete_rows(table, [key for (key,) in keys], now)
        pruned += len(keys)
    first, last = connection.execute("SELECT min(seq), max(seq) FROM audit").fetchone()
    entries = last - first + 1 if first is not None else 0
    # Each record needs one entry that vouches for it: to fold below a few a record would be work for nothing.
    if entries > keep.audit and entries > 4 * sum(_count(connection, table) for table in RECORDS):
        store.fold_audit(first + entries // 2, now)
        pruned += 1
    return pruned


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
