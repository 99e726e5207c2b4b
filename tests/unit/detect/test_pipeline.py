"""Who is fed by a connection through pipes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from killswitch.detect.pipeline import LONGEST_NS, Looks, fed
from killswitch.events import Flow, Transport
from killswitch.facts import Pipe, PipeEnds

NC, SH, CHILD, OTHER, LAST = 10, 20, 30, 40, 50
FLOW = Flow(0, 1, NC, 1, 0, b"nc", 7, Transport.TCP, "192.0.2.9", 4, "198.51.100.7", 5, 0, 0, 1, 1, False, 0, ())


def made(described: str) -> list[PipeEnds]:
    """``"10:a>b 20:b>ac"``: process 10 reads pipe a and writes to b, process 20 reads b and writes to a and to c."""

    def pipes(names: str) -> tuple[Pipe, ...]:
        return tuple((13, ord(name)) for name in names)

    found = []
    for one in described.split():
        pid, _, files = one.partition(":")
        reads, _, writes = files.partition(">")
        found.append(PipeEnds(int(pid), 1, pipes(reads), pipes(writes)))
    return found


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ("10:a>b 20:b>a", [SH]),  # nc < a | sh > a
        ("10:a>b 20:b>a 30:b>a", [SH, CHILD]),  # what the shell starts has its files
        ("10:a>b 20:b>xa", [SH]),  # only its errors go back
        ("10:a>b 40:b>c 20:c>a", [SH, OTHER]),  # a filter on the way in
        ("10:a>b 20:b>c 40:c>a", [SH, OTHER]),  # …and out
        ("10:a>b 20:b>c 40:c>d 50:d>", []),  # into a file
        ("10:>b 20:b>", []),  # curl | sh
        ("10:>b 20:b>c 40:c>", []),  # curl | sh | tee log
        ("10:a> 20:>a", []),  # sh | nc
        ("10:a>b 20:>a 40:b>", []),  # make | nc | tee: no loop
        ("10:a>a", []),  # it talks to itself
        ("10:a>b 20:b>b 40:b>c 50:c>c", []),
        ("10:a>b 20:ba>a", [SH]),  # it has the same FIFO for reading, too
        ("20:b>a", []),  # the one that is asked about is gone
        ("10:a>b 20:b>c 30:b>c 40:a>d 50:d>e", []),
    ],
)
def test_a_loop_through_the_feeder(described: str, expected: list[int]) -> None:
    assert [p.pid for p in fed((NC, 1), (), made(described))] == expected


def test_two_connections_to_one_host_make_a_loop_too() -> None:
    processes = made("10:>b 20:b>c 40:c>")
    assert [p.pid for p in fed((NC, 1), {OTHER}, processes)] == [SH]
    assert not list(fed((NC, 1), {LAST}, processes))


def test_another_process_of_the_same_number_is_another() -> None:
    assert not list(fed((NC, 2), (), made("10:a>b 20:b>a")))


def test_a_long_chain_ends() -> None:
    letters = [chr(0x4E00 + i) for i in range(1500)]
    chain = [f"{100 + i}:{a}>{b}" for i, (a, b) in enumerate(itertools.pairwise(letters))]
    processes = made(" ".join(chain) + f" 10:{letters[-1]}>{letters[0]}")
    assert len(list(fed((NC, 1), (), processes))) == 1499


def test_looks_become_rarer() -> None:
    looks = Looks()
    seen = [t for t in range(200) if looks.due(replace(FLOW, time_ns=t * 10**9))]
    assert seen[:5] == [0, 1, 3, 7, 15]
    assert max(b - a for a, b in itertools.pairwise(seen)) * 10**9 <= LONGEST_NS


def test_nothing_came_in_nothing_to_look_at() -> None:
    looks = Looks()
    assert not looks.due(replace(FLOW, received_bytes=0))
    assert not looks.due(replace(FLOW, closed=True))
    assert looks.due(FLOW)


def test_many_connections_are_bounded() -> None:
    looks = Looks()
    assert all(looks.due(replace(FLOW, cookie=n)) for n in range(5000))
    assert len(looks._of) <= 512
