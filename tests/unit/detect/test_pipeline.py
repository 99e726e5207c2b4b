"""Who is fed by a connection through pipes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from killswitch.detect.pipeline import LONGEST_NS, SETTING_UP_NS, Looks, fed, turns
from killswitch.detect.traffic import Connection
from killswitch.events import Burst, Flow, Transport
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
    found = list(fed((NC, 1), (), made(described)))
    assert [p.pid for p, _ in found] == expected
    assert all(comes_back for _, comes_back in found)


def test_two_connections_to_one_host_make_a_loop_too() -> None:
    processes = made("10:>b 20:b>c 40:c>")
    assert [(p.pid, comes_back) for p, comes_back in fed((NC, 1), {OTHER}, processes)] == [(SH, False)]
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


S = 1_000_000_000


def moved(described: str) -> list[PipeEnds]:
    """As ``made``, but of 10 and 40 what they have open is not among their standard files."""
    return [
        replace(p, reads=(), writes=(), kept_reads=p.reads, kept_writes=p.writes) if p.pid in (NC, OTHER) else p
        for p in made(described)
    ]


@pytest.mark.parametrize(
    ("described", "takers", "expected"),
    [
        ("10:a>b 20:b>a", (), [(SH, True)]),
        ("10:>b 20:b>c 40:c>", (OTHER,), [(SH, False)]),
        ("10:>b 20:b>c 40:c>", (), []),
        ("10:a>b 30:b>c 20:c>a", (), [(SH, True), (CHILD, True)]),
    ],
)
def test_standard_files_that_were_moved(
    described: str, takers: tuple[int, ...], expected: list[tuple[int, bool]]
) -> None:
    """By OpenSSH: they count where the shell was started beside it, and not by it, as an agent's tools are."""
    found = list(fed((NC, 1), takers, moved(described), lambda pid, of: of in (NC, OTHER)))
    assert [(p.pid, comes_back) for p, comes_back in found] == expected
    assert not list(fed((NC, 1), takers, moved(described), lambda *_: False))


def connection(said: str, *, began: int = 0) -> Connection:
    """``"0<40 1>9"``: at second 0 (after it began) 40 bytes came in, at second 1 there went 9 out."""
    known = Connection(replace(FLOW, began_ns=began), 0)
    for one in said.split():
        out = ">" in one
        at, _, size = one.partition(">" if out else "<")
        known.bursts.append(Burst(began + int(float(at) * S), 0, int(size), 1, out))
    return known


SSH = "0<40 0>40 0.1<1500 0.1>1500 0.3<900 0.4>300 "  # a handshake, a login, a command


@pytest.mark.parametrize(
    ("heard", "said", "expected"),
    [
        ("1<9 3<9 5<9 7<9", "2>50 4>50 6>50 8>50", 3),  # commands on the one, answers on the other
        (SSH + "1<60 3<60 5<60 7<60", SSH + "2>90 4>90 6>90 8>90", 3),  # the same by ssh
        (SSH + "1<60 3<60 5<60", SSH + "2>90 2.5>90 4>90 6>90", 2),
        (SSH + "1<800", SSH + "1.2>90 1.5>90 1.8>90 2>90", 0),  # a script, and its log
        (SSH + "1<800 1.1<100", SSH + "1.05>90 1.5>90 1.8>90", 1),  # …and how it ended
        (SSH + "1<800 2>60", SSH + "1.5>90 1.8>90 3>90", 0),
        ("0>200 1<9 2<800", "3>50 4>50", 0),  # curl | sh | curl
        ("1<9 2<9 3<9", "", 0),
        ("", "1>50", 0),
        # Whoever answers the far side's heartbeats later on is still in a conversation.
        (SSH + "4<60 5>40 6<60 7>40 8<60 9>40 10<60", SSH + "5>90 7>90 9>90", 3),
    ],
)
def test_turns_of_two_connections(heard: str, said: str, expected: int) -> None:
    assert turns(connection(heard), [connection(said)]) == expected


def test_the_handshake_is_counted_from_when_the_connection_began() -> None:
    late = 40 * S
    assert turns(connection("0<9 2<9 4<9", began=late), [connection("41>5 43>5")]) == 2
    assert late > SETTING_UP_NS
