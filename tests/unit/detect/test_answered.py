"""Who leads a conversation."""

from __future__ import annotations

from collections import deque

import pytest

from killswitch.detect.answered import Runs, answered, obeyed
from killswitch.detect.processes import ProcessTable
from killswitch.detect.traffic import Connection
from killswitch.events import Burst, Flow, Fork, Transport
from tests.unit.detect.scenes import ex

MS = 1_000_000
SIZES = {"s": 10, "S": 200, "H": 517, "r": 10, "R": 2400}


def connection(script: str, *, every_ms: int = 2, complete: bool = True) -> Connection:
    """``script``: s = sent, S = sent, a long request, r = received, R = received, much, H = sent, a hello
    of TLS, _ = a pause of 200 ms, . = none; turns follow each other by ``every_ms``."""
    now, bursts = 1_000 * MS, []
    for letter in script:
        now += (200 if letter == "_" else every_ms) * MS
        if letter in SIZES:
            bursts.append(Burst(now, 0, SIZES[letter], 1, letter in "sSH"))
    flow = Flow(
        now, 1, 10, 1, 0, b"bash", 1, Transport.TCP, "192.0.2.9", 40000, "198.51.100.7", 443, 1_000 * MS, now, 1, 1, False, 0,
        tuple(bursts),
    )  # fmt: skip
    return Connection(flow, 1_000 * MS if complete else 1_001 * MS, deque(bursts))


@pytest.mark.parametrize(
    ("script", "count"),
    [
        ("", 0),
        ("srsrsrsr", 0),  # it asks
        ("s_rs_rs_r", 0),  # and is answered slowly
        ("rsrsrsrs", 4),  # commands, one as soon as the other is answered
        ("_rs_rs_rs", 3),  # as somebody types them
        ("r", 0),  # a banner, and nothing said to it
        ("_rrr_rr", 0),  # pushed, never answered
        ("rrrss", 1),
    ],
)
def test_turns_of_the_far_side_that_are_answered(script: str, count: int) -> None:
    assert answered(connection(script)) == count


def test_who_spoke_first_is_not_guessed() -> None:
    assert answered(connection("rsrsrs", complete=False)) == 0


# --- and obeyed -------------------------------------------------------------------------------------------------------


def played(script: str) -> tuple[Connection, Runs]:
    """As above; x = a child of the process that connected runs a program, y = a child of that one's, z = a stranger."""
    now, runs, table = 1_000 * MS, Runs(), ProcessTable()
    table.exec(ex("/usr/bin/python3", pid=10))
    table.fork(Fork(0, 1, 1, 20, 1, 10, 1))
    for letter in script:
        now += 2 * MS
        if letter in "xyz":
            pid, parent = {"x": (30, 10), "y": (31, 20), "z": (32, 99)}[letter]
            event = ex("/usr/bin/id", pid=pid, ppid=parent)
            runs.note(now, table.exec(event), table)
    return connection("".join(c if c in SIZES else "." for c in script)), runs


@pytest.mark.parametrize(
    ("script", "count", "first", "share"),
    [
        ("rxsrxsrxs", 3, 1, 1),
        ("rysrysrys", 3, 1, 1),  # by a shell that it has started
        ("rxssrrxxsrxs", 3, 1, 1),
        ("rsrsrsrs", 0, 0, 0),  # a conversation
        ("rsrxsrs", 1, 2, 1 / 3),
        ("rsrxsrxsrxs", 3, 2, 3 / 4),  # a greeting that asks who is there
        ("rsrsrsrxsrsrxsrsrxsrs", 3, 4, 1 / 3),  # who logs in, runs a program for each mail, and deletes it
        ("rsrsrsrxsrxsrxs", 3, 4, 1 / 2),  # a query, and a program for each of its answers
        ("xxxrsrsrs", 0, 0, 0),  # programs first, then a mail about them
        ("rzsrzsrzs", 0, 0, 0),  # others' programs
        ("SrxSrxSrxS", 0, 0, 0),  # it asks: a model, which tool is to be run
        ("Srxsrxsrxs", 0, 0, 0),
        ("rsxrsxrsx", 0, 0, 0),  # it answers first
        ("", 0, 0, 0),
        ("srxsrxsrxs", 3, 1, 1),  # it greets, and is told
        ("ssrxsrxsrxs", 3, 1, 1),
        ("sssssrxsrxsrxs", 0, 0, 0),  # it says more than a greeting
        ("srxsrsrxsrsrxsrs", 0, 0, 0),  # it asks for each job, and says how it went
        ("srxsrxsrxsrs", 0, 0, 0),
        ("srxsrxsrxsrxsrs", 4, 1, 4 / 5),
        ("HRsrxsrxsrxsrxs", 4, 1, 1),  # in TLS, told what to do
        ("HRsrrxsrxsrxsrxSrxs", 5, 1, 1),  # the server's tickets first
        ("HRsrxsrxsrxs", 0, 0, 0),  # too few to tell
        ("HRSrxSrxSrxSrxS", 0, 0, 0),  # an agent that asks along with its last word of the handshake
        ("HRsSrxSrxSrxSrxS", 0, 0, 0),
        ("HRsrSrxSrxSrxSrxS", 0, 0, 0),  # asks when the tickets have come
        ("HRsrxsrsrxsrsrxsrsrxs", 0, 0, 0),  # half of the turns
        ("Hrsrxsrxsrxsrxs", 0, 0, 0),  # no certificate: some other protocol
        ("srxSrsrsrs", 0, 0, 0),
    ],
)
def test_turns_upon_which_programs_were_run(script: str, count: int, first: int, share: float) -> None:
    assert obeyed(*played(script)) == (count, first, pytest.approx(share))


def test_programs_that_are_remembered_are_bounded() -> None:
    _, runs = played("x" * 5000)
    assert len(runs.below(10)) == 1024
