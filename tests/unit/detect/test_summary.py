"""One line for people, whatever a workload wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.detect.summary import MAX_TEXT, command_line, printable, summarise
from killswitch.events import text
from tests.unit.detect.scenes import connect, ex, move


def test_an_exec_tells_who_ran_what() -> None:
    told = summarise(ex("/usr/bin/ssh", "ssh", "-R", "9000:localhost:22", "h", pid=13), None)
    assert told == "ssh(13) ran ssh -R 9000:localhost:22 h [/usr/bin/ssh]"


def test_a_disguised_name_does_not_hide_the_executable() -> None:
    assert "[/tmp/xmrig]" in summarise(ex("/tmp/xmrig", "[kworker/0:1]"), None)


def test_connections_and_moves() -> None:
    assert summarise(connect("10.1.2.3", 22, pid=5), None) == "curl(5) connected to 10.1.2.3:22 (tcp)"
    assert (
        summarise(connect("fe80::1", 22, pid=5, denied=True), None) == "curl(5) tried: connected to [fe80::1]:22 (tcp)"
    )
    assert summarise(move(5, 0), None).endswith("left the workload's cgroup for /elsewhere, which is not watched")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"a\x1b[31mb", r"a\x1b[31mb"),
        (b"one\ntwo", r"one\x0atwo"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("a\u202eb".encode(), r"a\u202eb"),
        ("für".encode(), "für"),
    ],
)
def test_nothing_breaks_the_line_or_the_terminal(raw: bytes, told: str) -> None:
    assert printable(raw) == told


def test_arguments_are_quoted_where_they_would_mislead() -> None:
    assert command_line(("sh", "-c", "a b", "")) == "sh -c 'a b' ''"


@given(st.binary(max_size=3000))
def test_printable_is_printable_and_short(raw: bytes) -> None:
    told = printable(raw)
    assert told.isprintable()
    assert len(told) <= MAX_TEXT + 3
    assert command_line([text(raw)]).isprintable()


def test_the_end_of_a_long_line_is_kept() -> None:
    told = printable("a" * 5000 + " -R 1:h:2")
    assert told.startswith("aaa") and told.endswith("-R 1:h:2") and "…" in told
