"""The ledger on a disk that is really full: a small tmpfs of its own."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from killswitch.ledger import Ledger
from tests.unit.ledger.make import QUICK, desired, fill, receipt

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs")
WAIT = 30.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "ks-test-disk"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "ks-test", where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", where], check=True)


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < until, "never came true"
        threading.Event().wait(0.005)


def fill_up(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4096)
    return ballast


def test_a_disk_that_fills_up_while_the_ledger_is_open(disk: Path) -> None:
    ledger = Ledger.open(disk / "ledger.db", backoff=QUICK)
    fill(ledger)
    assert ledger.flush(WAIT)
    ballast = fill_up(disk)
    for n in range(500):
        ledger.put_desired(desired(f"/n/{n % 50}"))
        ledger.put_receipt("inc-1", receipt(n))
    eventually(lambda: not ledger.health().ok)
    assert not ledger.flush(0.01) and ledger.alive(WAIT)
    assert ledger.health().dropped == {}
    ballast.unlink()
    assert ledger.flush(WAIT)
    assert ledger.close()
    again = Ledger.open(disk / "ledger.db")
    assert set(again.desired()) == {"/a/b", *(f"/n/{n}" for n in range(50))}
    whole, text = again.verify()
    assert whole, text
    again.close()


def test_a_disk_that_is_full_from_the_start(disk: Path) -> None:
    ballast = fill_up(disk)
    ledger = Ledger.open(disk / "ledger.db", backoff=QUICK)
    assert "cannot be opened for writing" in ledger.opened.problem
    ledger.put_desired(desired())
    eventually(lambda: not ledger.health().ok)
    assert set(ledger.desired()) == {"/a/b"}
    ballast.unlink()
    assert ledger.flush(WAIT)
    assert ledger.close()
    again = Ledger.open(disk / "ledger.db")
    assert again.desired() == {"/a/b": desired()} and again.verify()[0]
    again.close()


def test_a_disk_that_is_read_only_still_says_what_is_to_be_contained(disk: Path) -> None:
    first = Ledger.open(disk / "ledger.db")
    first.put_desired(desired())
    assert first.close()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    ledger = Ledger.open(disk / "ledger.db", backoff=QUICK)
    assert ledger.desired() == {"/a/b": desired()}
    ledger.put_desired(desired("/later"))
    eventually(lambda: not ledger.health().ok)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert ledger.flush(WAIT)
    assert ledger.close()
    again = Ledger.open(disk / "ledger.db")
    assert set(again.desired()) == {"/a/b", "/later"}
    again.close()
