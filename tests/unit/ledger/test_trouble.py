"""The disk is full, the file is gone, locked or read-only: nothing blocks, nothing is lost in silence, all is written later."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from killswitch.ledger import Ledger, Retention, schema
from killswitch.ledger.backlog import Backlog, Entry
from tests.unit.ledger.make import desired, fill, finding, incident, opened, order, receipt, workload

WAIT = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """SQLite's own limit on the size of a database: past it, it raises SQLITE_FULL as on a full disk."""
    pages = {"max": 1 << 30}
    connect = schema.connect

    def limited(path: Path, **options: Any) -> sqlite3.Connection:
        connection = connect(path, **options)
        connection.execute(f"PRAGMA max_page_count = {pages['max']}")
        return connection

    monkeypatch.setattr(schema, "connect", limited)
    yield pages


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < until, "never came true"
        threading.Event().wait(0.002)


def test_a_full_disk_is_told_blocks_nobody_and_all_is_written_when_there_is_room(
    path: Path, limit: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(path).close()
    limit["max"] = 1  # of less than there are: not a page more
    ledger = opened(path)
    for n in range(2_000):
        ledger.put_desired(desired(f"/n/{n}"))
        ledger.put_receipt("inc-1", receipt(n))
    eventually(lambda: "database or disk is full" in ledger.health().detail)
    health = ledger.health()
    assert not health.ok and health.backlog > 0 and health.dropped == {}
    assert not ledger.flush(0.01)
    assert ledger.alive(WAIT)  # the thread is well; it is the disk that is not
    assert len(ledger.desired()) == 2_000  # and what is wanted is known

    monkeypatch.undo()  # room again
    ledger._writer._connection.execute("PRAGMA max_page_count = 1000000")  # type: ignore[union-attr]
    assert ledger.flush(WAIT)
    eventually(lambda: ledger.health().ok)
    assert ledger.health().last_success > health.last_success
    assert ledger.close()
    again = opened(path)
    assert len(again.desired()) == 2_000 and again.verify()[0]
    again.close()


def test_closing_on_a_full_disk_comes_back_and_says_so(path: Path, limit: dict[str, int]) -> None:
    opened(path).close()
    limit["max"] = 1
    ledger = opened(path)
    for n in range(2_000):
        ledger.put_receipt("", receipt(n))
    assert not ledger.close(timeout=WAIT)


def test_a_file_that_is_removed_while_in_use_is_begun_anew_with_what_holds_now(path: Path) -> None:
    ledger = opened(path)
    fill(ledger)
    ledger.put_incident(incident(1, closed=1.8e9))
    assert ledger.flush(WAIT)
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (path.parent / name).unlink(missing_ok=True)
    ledger.put_order(order(9))
    assert ledger.flush(WAIT)
    assert ledger.close()
    again = opened(path)
    assert again.desired() == {"/a/b": desired()} and again.workloads() == {"/a/b": workload()}
    assert [i.record.id for i in again.incidents()] == ["inc-3", "inc-2"] and again.next_incident() == 4
    assert again.order("req-9") == order(9) and again.verify()[0]
    again.close()
    assert "removed while in use" in "".join(e for (e,) in sqlite3.connect(path).execute("SELECT entry FROM audit"))


def test_a_file_that_breaks_while_in_use_is_moved_aside_and_begun_anew(path: Path) -> None:
    ledger = opened(path)
    fill(ledger, incidents=300)
    assert ledger.close()
    ledger = opened(path)
    with path.open("r+b") as file:  # every page but the first few
        size = path.stat().st_size
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for n in range(400, 800):
        ledger.put_incident(incident(n))
        ledger.put_receipt(f"inc-{n}", receipt(n))
    assert ledger.flush(WAIT)
    assert ledger.close()
    assert [p for p in path.parent.iterdir() if ".corrupt-" in p.name and p.name.startswith("ledger.db.c")]
    again = opened(path)
    assert again.desired() == {"/a/b": desired()}
    assert {f"inc-{n}" for n in range(400, 800)} <= {i.record.id for i in again.incidents(limit=0)}
    assert again.verify()[0]
    again.close()


def test_another_process_that_holds_the_database_is_waited_for(path: Path) -> None:
    ledger = opened(path)
    assert ledger.flush(WAIT)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger.put_desired(desired())
    eventually(lambda: "locked" in ledger.health().detail)
    assert not ledger.health().ok
    other.execute("ROLLBACK")
    other.close()
    assert ledger.flush(WAIT)
    eventually(lambda: ledger.health().ok)
    ledger.close()


def test_a_record_that_cannot_be_kept_does_not_hold_up_the_others(path: Path) -> None:
    ledger = opened(path)
    ledger.put_desired(desired("/before"))
    ledger.put_receipt("inc-1", object())  # type: ignore[arg-type]
    ledger.put_desired(desired("/after"))
    assert ledger.flush(WAIT)
    assert ledger.health().dropped == {"receipt": 1}
    assert not ledger.health().ok and "lost 1 of kind receipt" in ledger.health().detail
    ledger.close()
    again = opened(path)
    assert set(again.desired()) == {"/before", "/after"} and again.verify()[0]
    again.close()


# --- the backlog ----------------------------------------------------------------------------------------------------


def entry(kind: str, key: str = "", record: object = None) -> Entry:
    return Entry(kind, key, record, 0.0)


def taken(backlog: Backlog) -> list[tuple[str, str, object]]:
    with backlog.changed:
        return [(e.kind, e.key, e.record) for e in backlog.take(1_000_000)]


def test_findings_have_a_limit_of_their_own_and_never_push_out_what_matters() -> None:
    backlog = Backlog(ordinary=2, important=2)
    for n in range(5):
        backlog.put(entry("finding", record=n))
    backlog.put(entry("receipt", record="r"))
    assert taken(backlog) == [("finding", "", 0), ("finding", "", 1), ("receipt", "", "r")]
    assert backlog.dropped == {"finding": 3}


def test_a_full_backlog_keeps_the_newest_of_each_record_and_desired_always() -> None:
    backlog = Backlog(important=3)
    for n, kind in enumerate(["order", "incident", "desired", "order", "incident", "desired", "receipt"]):
        backlog.put(entry(kind, "" if kind == "receipt" else "k", n))
    backlog.put(entry("desired", "other", 7))
    assert taken(backlog) == [("order", "k", 3), ("incident", "k", 4), ("desired", "k", 5), ("desired", "other", 7)]
    assert backlog.dropped == {"receipt": 1}


def test_what_is_being_written_is_not_changed() -> None:
    backlog = Backlog(important=1)
    backlog.put(entry("desired", "k", 1))
    with backlog.changed:
        batch = backlog.take(10)
    backlog.put(entry("desired", "k", 2))
    assert [e.record for e in batch] == [1]
    backlog.done()
    assert taken(backlog) == [("desired", "k", 2)]


def test_putting_from_many_threads_loses_nothing(path: Path) -> None:
    ledger = opened(path, Retention(findings_per_incident=10_000))
    ledger.put_incident(incident())

    def put(thread: int) -> None:
        for n in range(100):
            ledger.put_finding("inc-1", finding(thread * 1000 + n))

    threads = [threading.Thread(target=put, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.flush(WAIT)
    found = ledger.incident("inc-1")
    assert found is not None
    times = [f.time_ns for f in found.findings]
    assert sorted(times) == sorted(t * 1000 + n for t in range(8) for n in range(100))
    for thread in range(8):  # and each thread's in its order
        own = [t for t in times if t // 1000 == thread]
        assert own == sorted(own)
    ledger.close()


def test_a_ledger_that_cannot_be_written_at_the_start_still_says_what_is_to_be_contained(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(path)
    first.put_desired(desired())
    assert first.close()

    def refuses(_: Path) -> Any:
        raise sqlite3.OperationalError("attempt to write a readonly database")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "open_database", refuses)
        ledger: Ledger = opened(path)
        assert "readonly" in ledger.opened.problem and ledger.opened.moved_to is None
        assert ledger.desired() == {"/a/b": desired()}
        ledger.put_desired(desired("/later"))
        eventually(lambda: not ledger.health().ok)
    assert ledger.flush(WAIT)
    assert ledger.close()
    again = opened(path)
    assert set(again.desired()) == {"/a/b", "/later"}
    again.close()
