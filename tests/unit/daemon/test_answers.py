"""What earlier daemons answered, kept in a real ledger."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from killswitch.control.remembered import Given
from killswitch.control.service import Order
from killswitch.daemon.answers import Answers
from killswitch.daemon.records import Records
from tests.unit.ledger.make import opened

GIVEN = Given("digest", b"\x00answer\xff")


def order(request_id: str) -> Order:
    return Order(request_id, "job", "test", "admin")


def carried_out(file: Path, request_id: str, outcome: str, *, answered: bool = True) -> None:
    """A daemon's life with one order in it; ``outcome`` "" leaves it as it was accepted."""

    async def life() -> None:
        records = Records(opened(file))
        records.order("ord-1", "kill", order(request_id), None, "")
        if outcome:
            records.order_done("ord-1", outcome)
        if answered:
            await Answers(records).keep(request_id, GIVEN)
        await records.close()

    asyncio.run(life())


def recalled(file: Path, request_id: str) -> Given | None:
    """By the next daemon."""

    async def life() -> Given | None:
        records = Records(opened(file))
        try:
            return await Answers(records).recall(request_id)
        finally:
            await records.close()

    return asyncio.run(life())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.mark.parametrize("outcome", ["complete", "partial", "failed"])
def test_an_answer_comes_back_as_it_was(file: Path, outcome: str) -> None:
    carried_out(file, 'an id "\\', outcome)
    assert recalled(file, 'an id "\\') == GIVEN
    assert recalled(file, "another") is None


@pytest.mark.parametrize("outcome", ["", "complete"])
def test_an_order_without_an_answer(file: Path, outcome: str) -> None:
    carried_out(file, "id", outcome, answered=False)
    assert recalled(file, "id") == Given("", None)


def test_an_order_that_failed_is_as_if_it_had_not_been(file: Path) -> None:
    carried_out(file, "id", "failed", answered=False)
    assert recalled(file, "id") is None


def test_an_answer_that_cannot_be_read_is_as_none(file: Path) -> None:
    carried_out(file, "id", "complete")
    with sqlite3.connect(file) as connection:
        connection.execute('UPDATE orders SET data = replace(data, \'"answer":"\', \'"answer":"?\')')
    connection.close()
    assert recalled(file, "id") == Given("", None)


def test_the_answer_is_on_disk_when_it_is_given(file: Path) -> None:
    async def life() -> str:
        records = Records(opened(file))
        records.order("ord-1", "kill", order("id"), None, "")
        records.order_done("ord-1", "complete")
        await Answers(records).keep("id", GIVEN)
        with sqlite3.connect(file) as connection:  # not by the ledger's own connection
            [(data,)] = connection.execute("SELECT data FROM orders")
        connection.close()
        await records.close()
        return str(data)

    assert '"content":"digest"' in asyncio.run(life())


def test_the_audit_does_not_carry_answers(file: Path) -> None:
    carried_out(file, "id", "complete")
    with sqlite3.connect(file) as connection:
        entries = [entry for (entry,) in connection.execute("SELECT entry FROM audit")]
    connection.close()
    assert any('"request_id":"id"' in entry for entry in entries)
    assert not any("answer" in entry for entry in entries)


def test_orders_that_are_never_answered_do_not_pile_up(file: Path) -> None:
    async def life() -> int:
        records = Records(opened(file))
        for number in range(2000):
            records.order(f"ord-{number}", "kill", order(f"id-{number}"), None, "")
            records.order_done(f"ord-{number}", "complete")
        kept = len(records._done)
        await records.close()
        return kept

    assert asyncio.run(life()) <= 256
