"""Who leads a conversation."""

from __future__ import annotations

from collections import deque

import pytest

from killswitch.detect.answered import answered
from killswitch.detect.traffic import Connection
from killswitch.events import Burst, Flow, Transport

MS = 1_000_000


def connection(script: str, *, every_ms: int = 2, complete: bool = True) -> Connection:
    """``script``: s = sent, r = received, _ = a pause of 200 ms; turns follow each other by ``every_ms``."""
    now, bursts = 1_000 * MS, []
    for letter in script:
        now += (200 if letter == "_" else every_ms) * MS
        if letter != "_":
            bursts.append(Burst(now, 0, 10, 1, letter == "s"))
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
