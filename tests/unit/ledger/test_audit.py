"""The chain finds what was changed behind the ledger's back, and says where; growth is bounded and it stays whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from killswitch.commands import FREE
from killswitch.ledger import Ledger, Retention
from tests.unit.ledger.make import desired, fill, finding, incident, opened, order, receipt

WAIT = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ledger = opened(tmp_path / "ledger.db")
    fill(ledger)
    assert ledger.close()
    return tmp_path / "ledger.db"


def edit(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def verify(path: Path) -> tuple[bool, str]:
    ledger = opened(path)
    try:
        return ledger.verify()
    finally:
        ledger.close()


def test_an_untouched_ledger_is_whole_and_its_head_is_told(path: Path) -> None:
    whole, text = verify(path)
    assert whole
    [(seq, head)] = sqlite3.connect(path).execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
    assert text.endswith(f"head {seq}:{head}") and text.startswith(f"{seq} audit entries")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE audit SET entry = replace(entry, 'it mines', 'all well') WHERE seq = 3", "audit row 3 does not fit"),
        ("UPDATE audit SET hash = hex(zeroblob(32)) WHERE seq = 4", "audit row 4 does not fit"),
        ("UPDATE audit SET entry = 'é' WHERE seq = 5", "audit row 5 does not fit"),
        ("DELETE FROM audit WHERE seq = 2", "audit row 2 is missing"),
        ("DELETE FROM audit WHERE seq = 1", "audit row 1 is missing"),
        (
            "UPDATE desired SET data = replace(data, '\"severed\":true', '\"severed\":false')",
            "desired row '/a/b' was changed",
        ),
        ("DELETE FROM desired", "desired row '/a/b' is missing"),
        ("UPDATE findings SET data = replace(data, 'xmrig', 'bash') WHERE key = 2", "findings row 2 was changed"),
        ("UPDATE findings SET data = data || 'é' WHERE key = 2", "findings row 2 was changed"),
        ("DELETE FROM findings WHERE key = 2", "findings row '2' is missing"),
        ("DELETE FROM receipts WHERE key = 1", "receipts row '1' is missing"),
        ("DELETE FROM incidents WHERE key = 'inc-3'", "incidents row 'inc-3' is missing"),
        ("INSERT INTO receipts SELECT 99, incident, data FROM receipts WHERE key = 1", "receipts row 99 was added"),
        (
            "UPDATE orders SET data = replace(data, 'admin', 'nobody') WHERE key = 'ord-1'",
            "orders row 'ord-1' was changed",
        ),
        ("UPDATE workloads SET data = '{}'", "workloads row '/a/b' was changed"),
    ],
)
def test_what_was_changed_is_found_and_named(path: Path, statement: str, says: str) -> None:
    edit(path, statement)
    # Read as a verifier of the file alone would: a daemon may refuse to start on some of these.
    from killswitch.ledger import reader

    whole, text = reader.verify(path)
    assert not whole
    assert says in text


def test_the_end_cut_off_is_found(path: Path) -> None:
    edit(path, "DELETE FROM audit WHERE seq >= (SELECT max(seq) FROM audit)")
    whole, text = verify(path)
    assert not whole and "was added behind the ledger's back" in text


def test_a_ledger_that_is_no_database_is_not_whole(tmp_path: Path) -> None:
    from killswitch.ledger import reader

    (tmp_path / "x").write_bytes(b"x" * 5000)
    whole, text = reader.verify(tmp_path / "x")
    assert not whole and "cannot be read" in text


# --- retention ------------------------------------------------------------------------------------------------------


def pruned(path: Path, keep: Retention, act: Callable[[Ledger], None] = lambda ledger: None) -> Ledger:
    """The ledger after as much pruning as it wants: pruning comes at the start, and goes on while there is more."""
    ledger = opened(path, keep)
    act(ledger)
    for n in range(40):
        ledger.note("tick", {"n": n})
        assert ledger.flush(WAIT)
    return ledger


def count(path: Path, table: str) -> int:
    return int(sqlite3.connect(path).execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_closed_incidents_go_oldest_first_with_all_that_is_theirs_and_open_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first = opened(path)
    fill(first, incidents=30, closed=4e9)  # closed long after today: none is too old
    first.put_incident(incident(31))
    first.put_finding("inc-31", finding(31))
    assert first.close()
    ledger = pruned(path, Retention(closed_incidents=10))
    left = [i.record.id for i in ledger.incidents(limit=0)]
    assert left == [f"inc-{n}" for n in (31, *range(30, 20, -1))]
    assert count(path, "findings") == 11 and count(path, "receipts") == 10
    assert ledger.desired() == {"/a/b": desired()}
    whole, text = ledger.verify()
    assert whole, text
    ledger.close()


def test_closed_incidents_go_by_age_and_no_number_is_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first = opened(path)
    fill(first, incidents=5, closed=1e9)  # 2001
    assert first.close()
    ledger = pruned(path, Retention())
    assert ledger.incidents() == [] and count(path, "findings") == count(path, "receipts") == 0
    assert ledger.next_incident() == 6
    ledger.close()
    again = opened(path)
    assert again.next_incident() == 6 and again.verify()[0]
    again.close()


def test_orders_and_loose_receipts_are_bounded(tmp_path: Path) -> None:
    def act(ledger: Ledger) -> None:
        for n in range(1, 31):
            ledger.put_order(order(n))
            ledger.put_receipt("", receipt(n))
        ledger.put_receipt("inc-1", receipt(99))

    ledger = pruned(tmp_path / "ledger.db", Retention(orders=7, loose_receipts=5), act)
    ledger.close()
    ledger = pruned(tmp_path / "ledger.db", Retention(orders=7, loose_receipts=5))
    assert count(ledger.path, "orders") == 7 and count(ledger.path, "receipts") == 5 + 1
    assert ledger.order("req-30") is not None and ledger.order("req-1") is None
    whole, text = ledger.verify()
    assert whole, text
    ledger.close()


def busy(path: Path) -> None:
    """A few records of which one is put again and again: many entries that vouch for nothing any more."""
    first = opened(path)
    fill(first, incidents=5)
    for n in range(300):
        first.put_desired(replace(desired(f"/{n % 3}"), time_unix=float(n)))
    first.put_desired(replace(desired("/2"), containment=FREE))
    first.put_incident(incident(2, closed=4e9))
    assert first.close()


def test_the_audit_is_folded_into_a_checkpoint_and_still_vouches_for_every_record(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    busy(path)
    before = count(path, "audit")
    ledger = pruned(path, Retention(audit=50))
    whole, text = ledger.verify()
    assert whole, text
    assert "folded into a checkpoint" in text
    ledger.close()
    assert before > 300 and count(path, "audit") < 160
    assert verify(path)[0]
    edit(path, "UPDATE findings SET data = replace(data, 'xmrig', 'bash') WHERE key = 1")  # whose entry was folded
    whole, text = verify(path)
    assert not whole and "findings row 1 was changed" in text


def test_what_was_removed_before_a_fold_is_still_found_after_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    busy(path)
    edit(path, "DELETE FROM findings WHERE key = 3")
    ledger = pruned(path, Retention(audit=50))
    whole, text = ledger.verify()
    assert not whole and "findings row '3' is missing" in text
    ledger.close()


def test_findings_in_all_are_bounded_by_letting_closed_incidents_go(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first = opened(path)
    fill(first, incidents=10, closed=4e9)
    first.put_incident(incident(11))
    for n in range(20):
        first.put_finding("inc-11", finding(n))
    assert first.close()
    ledger = pruned(path, Retention(findings=24))
    assert [i.record.id for i in ledger.incidents(limit=0)] == ["inc-11", "inc-10", "inc-9", "inc-8", "inc-7"]
    whole, text = ledger.verify()
    assert whole, text
    ledger.close()
