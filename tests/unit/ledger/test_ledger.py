"""What is put is there after a restart; what is wrong with the file is told, and nothing is lost by it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from killswitch.commands import FREE, Containment
from killswitch.errors import LedgerError
from killswitch.ledger import Ledger, Retention, schema
from tests.unit.ledger.make import desired, fill, finding, incident, opened, order, receipt, workload

WAIT = 20.0  # seconds: the bound for a broken build alone


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_what_was_put_is_there_after_a_restart(path: Path) -> None:
    ledger = opened(path)
    assert ledger.opened.new and not ledger.opened.problem and ledger.next_incident() == 1
    fill(ledger)
    ledger.put_order(order(1, "complete"))
    assert ledger.close()

    again = opened(path)
    try:
        assert not again.opened.new and not again.opened.problem
        assert again.desired() == {"/a/b": desired()}
        assert again.workloads() == {"/a/b": workload()}
        assert again.next_incident() == 4
        assert [i.record.id for i in again.incidents()] == ["inc-3", "inc-2", "inc-1"]
        assert [i.record.id for i in again.incidents(limit=1)] == ["inc-3"]
        found = again.incident("inc-2")
        assert found is not None
        assert (found.record, found.findings, found.receipts) == (incident(2), (finding(2),), (receipt(2),))
        assert again.incident("inc-9") is None
        assert again.order("req-1") == order(1, "complete")
        assert again.order("req-9") is None
        assert again.verify()[0]
    finally:
        again.close()


def test_free_forgets_the_cgroup_and_the_audit_keeps_who_asked(path: Path) -> None:
    ledger = opened(path)
    ledger.put_desired(desired())
    ledger.put_desired(desired("/a/\udcff\x00b"))
    ledger.put_desired(desired(containment=FREE))
    assert set(ledger.desired()) == {"/a/\udcff\x00b"}
    assert ledger.close()
    again = opened(path)
    assert set(again.desired()) == {"/a/\udcff\x00b"}
    again.close()
    entries = [e for (e,) in sqlite3.connect(path).execute("SELECT entry FROM audit ORDER BY seq")]
    assert sum("desired//a/b" in e and '"act":"delete"' in e and "it mines" in e for e in entries) == 1


def test_open_only_and_closed(path: Path) -> None:
    ledger = opened(path)
    ledger.put_incident(incident(1))
    ledger.put_incident(incident(2))
    ledger.put_incident(incident(1, closed=1.8e9))
    assert ledger.flush(WAIT)
    assert [i.record.id for i in ledger.incidents(open_only=True)] == ["inc-2"]
    closed = ledger.incident("inc-1")
    assert closed is not None and closed.record.closed_unix == 1.8e9
    ledger.close()


# --- bad files ------------------------------------------------------------------------------------------------------


def damage(path: Path, how: str) -> bytes:
    content = path.read_bytes()
    match how:
        case "not a database":
            content = b"hello, this is my diary\n" * 100
        case "overwritten":
            content = content[:100] + os.urandom(len(content) - 100)
        case "cut off":
            content = content[: len(content) // 2]
        case "foreign":
            path.unlink()
            with sqlite3.connect(path) as other:
                other.execute("CREATE TABLE songs(name)")
                other.execute("PRAGMA application_id = 7")
            return path.read_bytes()
    path.write_bytes(content)
    return content


@pytest.mark.parametrize("how", ["not a database", "overwritten", "cut off", "foreign"])
def test_a_file_that_cannot_be_used_is_moved_aside_whole_and_a_new_one_is_begun(path: Path, how: str) -> None:
    first = opened(path)
    fill(first, incidents=200)
    assert first.close()
    content = damage(path, how)

    ledger = opened(path)
    moved = ledger.opened.moved_to
    assert moved is not None and moved.name.startswith("ledger.db.corrupt-")
    assert moved.read_bytes() == content
    assert str(moved) in ledger.opened.problem and ledger.opened.new
    assert set(ledger.desired()) == {"/a/b"}  # what cannot be read of it is told by the witness
    ledger.put_desired(desired("/new"))
    assert ledger.close()
    again = opened(path)
    assert set(again.desired()) == {"/new", "/a/b"} and not again.opened.problem and again.verify()[0]
    again.close()


def test_containment_is_saved_from_a_ledger_that_is_broken_elsewhere(path: Path) -> None:
    first = opened(path)
    fill(first, incidents=200)
    assert first.close()
    with sqlite3.connect(path) as db:
        [(root,)] = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'incidents'")
        [(size,)] = db.execute("PRAGMA page_size")
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(os.urandom(size))
    ledger = opened(path)
    assert ledger.opened.moved_to is not None and "with the 1 contained and 1 watched" in ledger.opened.problem
    assert ledger.close()
    again = opened(path)
    assert again.desired() == {"/a/b": desired()} and again.workloads() == {"/a/b": workload()}
    assert again.verify()[0]
    again.close()


def test_a_cgroup_whose_row_cannot_be_read_is_contained_to_be_safe(path: Path) -> None:
    first = opened(path)
    first.put_desired(desired("/fine", Containment(True)))
    first.put_desired(desired("/\udcff", Containment(True)))
    assert first.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE desired SET data = '{}' WHERE key <> '/fine'")
    ledger = opened(path)
    assert ledger.desired()["/fine"] == desired("/fine", Containment(True))
    assert ledger.desired()["/\udcff"].containment == Containment(True, True)
    assert "could not be read" in ledger.desired()["/\udcff"].reason
    whole, text = ledger.verify()
    assert not whole and "was changed behind the ledger's back" in text
    ledger.close()


def test_a_second_corrupt_file_does_not_replace_the_first(path: Path) -> None:
    kept = set()
    for n in range(3):
        path.write_bytes(b"x" * 2000 + bytes([n]))
        ledger = opened(path)
        assert ledger.opened.moved_to is not None
        kept.add(ledger.opened.moved_to)
        ledger.close()
    assert sorted(p.read_bytes()[-1] for p in kept) == [0, 1, 2]


def test_an_empty_file_is_a_new_ledger(path: Path) -> None:
    path.touch()
    ledger = opened(path)
    assert ledger.opened.new and not ledger.opened.problem
    ledger.close()


def test_a_ledger_of_a_newer_release_is_not_touched(path: Path) -> None:
    opened(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"newer killswitch.*or move the file away"):
        opened(path)
    assert path.read_bytes() == before
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION}")
    opened(path).close()  # and the lock was let go of


def test_an_older_schema_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(path)
    first.put_desired(desired())
    assert first.close()
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    monkeypatch.setitem(schema.MIGRATIONS, schema.VERSION - 1, "ALTER TABLE findings ADD COLUMN note TEXT;")
    ledger = opened(path)
    assert ledger.opened.migrated_from == schema.VERSION - 1
    assert ledger.desired() == {"/a/b": desired()} and ledger.verify()[0]
    ledger.close()
    with sqlite3.connect(path) as db:
        assert "note" in [row[1] for row in db.execute("PRAGMA table_info(findings)")]
        assert db.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION


def test_a_place_that_cannot_be_a_ledger_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "ledger.db"):
        with pytest.raises(LedgerError, match="cannot be a ledger"):
            opened(path)


# --- other processes ------------------------------------------------------------------------------------------------

CHILD = """
import sys, itertools
from pathlib import Path
from tests.unit.ledger.make import desired, finding, opened
ledger = opened(Path(sys.argv[1]))
for n in itertools.count():
    ledger.put_desired(desired(f"/n/{n}"))
    ledger.put_finding("inc-1", finding(n))
    if n % 50 == 0:
        assert ledger.flush(60)
        print(n, flush=True)
"""


def child(path: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(root)},
    )


def test_killed_while_writing_it_has_what_had_been_flushed_and_is_whole(path: Path) -> None:
    with child(path) as process:
        assert process.stdout is not None
        flushed = -1
        try:
            while flushed < 200:
                flushed = int(process.stdout.readline())
            with pytest.raises(LedgerError, match=f"process {process.pid} has it open"):
                Ledger.open(path)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        flushed = max([flushed, *(int(line) for line in process.stdout.read().split())])
    ledger = opened(path)
    try:
        assert not ledger.opened.problem
        assert {f"/n/{n}" for n in range(flushed + 1)} <= set(ledger.desired())
        whole, text = ledger.verify()
        assert whole, text
    finally:
        ledger.close()


def test_two_ledgers_of_one_file_in_one_process_are_refused_too(path: Path) -> None:
    ledger = opened(path)
    with pytest.raises(LedgerError, match=f"process {os.getpid()} has it open"):
        opened(path)
    ledger.close()
    opened(path).close()


def test_retention_is_a_setting(path: Path) -> None:
    keep = Retention(findings_per_incident=2)
    ledger = opened(path, keep)
    ledger.put_incident(incident())
    for n in range(5):
        ledger.put_finding("inc-1", finding(n))
    assert ledger.flush(WAIT)
    found = ledger.incident("inc-1")
    assert found is not None and [f.time_ns for f in found.findings] == [0, 1]
    assert ledger.health().dropped == {"finding": 3}
    assert "lost 3 of kind finding" in ledger.health().detail
    ledger.close()
    again = opened(path, keep)  # counted from the file
    again.put_finding("inc-1", finding(9))
    assert again.health().dropped == {"finding": 1}
    again.close()


def test_containment_words_survive(path: Path) -> None:
    words = [Containment(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)][1:]
    ledger = opened(path)
    for n, word in enumerate(words):
        ledger.put_desired(desired(f"/{n}", word))
    assert ledger.close()
    again = opened(path)
    assert [again.desired()[f"/{n}"].containment for n in range(len(words))] == words
    again.close()


def test_the_last_order_of_a_kind_is_found_by_what_it_came_to(path: Path) -> None:
    ledger = opened(path)
    try:
        for number, verb, outcome in (
            (1, "selftest", "complete"), (2, "selftest", "failed"), (3, "kill", "complete"), (4, "selftest", "accepted"),
        ):  # fmt: skip
            ledger.put_order(replace(order(number, outcome), verb=verb))
        assert ledger.flush(10)
        last = ledger.last_order("selftest", ("complete", "partial", "failed"))
        assert last
        assert (last.request_id, last.outcome) == ("req-2", "failed")
        good = ledger.last_order("selftest", ("complete",))
        assert good
        assert good.request_id == "req-1"
        assert ledger.last_order("freeze", ("complete",)) is None
    finally:
        ledger.close()
