"""Damage to the ledger's files, whatever it is: what is to be contained is known all the same, and the loss is told."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from killswitch.commands import Containment
from killswitch.ledger import Ledger, witness
from tests.unit.ledger.make import desired, fill, incident, opened

CONTAINED = {"/a/b", *(f"/n/{n}" for n in range(8))}
WAIT = 20.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files of a ledger that is in use: most of it is in the write-ahead log."""
    path = tmp_path_factory.mktemp("running") / "ledger.db"
    ledger = opened(path)
    fill(ledger)
    for n in range(8):
        ledger.put_desired(desired(f"/n/{n}"))
    assert ledger.flush(WAIT)
    copy = tmp_path_factory.mktemp("copy") / "files"
    shutil.copytree(path.parent, copy)
    yield copy
    assert ledger.close()


@pytest.fixture(scope="module")
def closed(running: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after an orderly end: all of it is in the database."""
    copy = tmp_path_factory.mktemp("closed") / "files"
    shutil.copytree(running, copy)
    assert opened(copy / "ledger.db").close()
    return copy


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 4, 50))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def zero(data: bytearray, rng: random.Random) -> None:
    at, size = rng.randrange(len(data)), rng.choice((16, 512, 4096))
    data[at : at + size] = bytes(len(data[at : at + size]))


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def garbage(data: bytearray, rng: random.Random) -> None:
    data[:] = rng.randbytes(len(data))


@pytest.mark.parametrize("how", [flip, zero, cut, garbage])
@pytest.mark.parametrize("state", ["running", "closed"])
def test_no_damage_loses_containment(
    request: pytest.FixtureRequest, tmp_path: Path, state: str, how: Callable[[bytearray, random.Random], None]
) -> None:
    files: Path = request.getfixturevalue(state)
    rng = random.Random(f"{state} {how.__name__}")
    for number in range(6):
        here = tmp_path / str(number)
        shutil.copytree(files, here)
        victim = rng.choice([f for f in sorted(here.iterdir()) if f.suffix != ".lock" and f.stat().st_size])
        data = bytearray(victim.read_bytes())
        how(data, rng)
        victim.write_bytes(data)
        ledger = opened(here / "ledger.db")
        assert set(ledger.desired()) >= CONTAINED, (victim.name, number)
        ledger.put_desired(desired("/later"))
        ledger.flush(WAIT)
        ledger.close()
        again = opened(here / "ledger.db")
        assert set(again.desired()) >= {*CONTAINED, "/later"}, (victim.name, number)
        again.close()


def test_a_lost_write_ahead_log_is_told_and_the_present_is_written_again(running: Path, tmp_path: Path) -> None:
    """SQLite itself takes it for a database that nothing was ever written to."""
    here = tmp_path / "files"
    shutil.copytree(running, here)
    (here / "ledger.db-wal").unlink()
    (here / "ledger.db-shm").unlink()
    ledger = opened(here / "ledger.db")
    assert set(ledger.desired()) == CONTAINED
    assert ledger.opened.lost
    assert "entries of its audit, or more, are lost" in ledger.health().detail
    assert ledger.next_incident() == 4  # nor is a number given out twice
    assert ledger.flush(WAIT) and ledger.verify()[0]
    ledger.close()
    again = opened(here / "ledger.db")
    assert set(again.desired()) == CONTAINED and not again.opened.problem
    again.close()


def test_the_audits_end_is_known_elsewhere(running: Path, tmp_path: Path) -> None:
    here = tmp_path / "files"
    shutil.copytree(running, here)
    told, problem = witness.read(here / "ledger.db")
    assert told is not None and not problem
    witness.write(here / "ledger.db", witness.Witness(told.seq, "f" * 64, told.last_incident, told.desired))
    ledger = opened(here / "ledger.db")
    assert "it is not the same ledger" in ledger.opened.problem
    ledger.close()


def test_of_two_records_the_stricter_wins(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = opened(path)
    ledger.put_desired(desired("/both", Containment(severed=True)))
    assert ledger.flush(WAIT)
    told, _ = witness.read(path)
    assert told is not None and told.desired["/both"].containment == Containment(severed=True)
    ledger.close()
    frozen = desired("/both", Containment(frozen=True))
    witness.write(path, witness.Witness(told.seq, told.head, 0, {"/both": frozen}))
    again = opened(path)
    assert again.desired()["/both"].containment == Containment(severed=True, frozen=True)
    again.close()


def test_what_was_released_is_released_in_both(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = opened(path)
    ledger.put_desired(desired("/gone"))
    ledger.put_incident(incident(7))
    ledger.put_desired(desired("/gone", Containment()))
    assert ledger.flush(WAIT)
    told, _ = witness.read(path)
    assert told is not None and dict(told.desired) == {} and told.last_incident == 7
    ledger.close()
    again = opened(path)
    assert again.desired() == {} and not again.opened.problem
    again.close()


def test_a_witness_that_cannot_be_written_is_told_and_written_when_it_can(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    in_the_way = tmp_path / "contained.json"
    in_the_way.mkdir()
    ledger: Ledger = opened(path)
    ledger.put_desired(desired())
    assert ledger.flush(WAIT)  # the ledger has it
    health = ledger.health()
    assert not health.ok and "contained.json: cannot be written" in health.detail
    in_the_way.rmdir()
    ledger.put_desired(desired("/more"))
    assert ledger.flush(WAIT)
    assert ledger.health().ok
    assert len(json.loads(in_the_way.read_text())["desired"]) == 2
    ledger.close()


def test_a_power_cut_in_the_middle_of_writing(running: Path, tmp_path: Path) -> None:
    """Of the write-ahead log any first part may have reached the disk, and of the witness the one before the last."""
    whole = (running / "ledger.db-wal").read_bytes()
    before = {"format": 1, "seq": 0, "head": "0" * 64, "last_incident": 0, "desired": []}
    counts = []
    for part in range(13):
        here = tmp_path / str(part)
        here.mkdir()
        shutil.copy(running / "ledger.db", here)
        (here / "ledger.db-wal").write_bytes(whole[: len(whole) * part // 12])
        (here / "contained.json").write_text(json.dumps({**before, "sha256": witness._digest(before)}))
        ledger = opened(here / "ledger.db")
        assert not ledger.opened.moved_to
        assert ledger.flush(WAIT) and ledger.verify()[0]
        counts.append(len(ledger.desired()))
        ledger.close()
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == len(CONTAINED)
