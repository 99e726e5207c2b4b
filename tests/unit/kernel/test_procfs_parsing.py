from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.kernel import procfs

TAIL = b" S 41 40 39 0 -1 4194304 1 2 3 4 50 25 0 0 20 0 7 0 123456 1 2"


@given(st.binary(max_size=16).filter(lambda b: b"\0" not in b))
def test_whatever_a_process_calls_itself_its_stat_is_read(name: bytes) -> None:
    stat = procfs.parse_stat(b"42 (" + name + b")" + TAIL)
    assert (stat.pid, stat.ppid, stat.session, stat.start_ticks, stat.threads) == (42, 41, 39, 123456, 7)
    assert stat.comm.encode("utf-8", "surrogateescape") == name
    assert stat.cpu_ns == 75 * (1_000_000_000 // procfs.TICKS)


def test_a_name_that_looks_like_the_rest_does_not_mislead() -> None:
    stat = procfs.parse_stat(b"42 (x) R 1 1 1 0) S 41 40 39 0 -1 0 1 2 3 4 5 6 0 0 20 0 1 0 99 1")
    assert (stat.comm, stat.state, stat.ppid, stat.start_ticks) == ("x) R 1 1 1 0", "S", 41, 99)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"9:name=systemd:/x\n0::/agents/a\n", "/agents/a"),
        (b"0::/\n", "/"),
        (b"0::/gone (deleted)\n", "/gone"),
        (b"4:memory:/x\n", ""),
        (b"0::/a:b::c\n", "/a:b::c"),
    ],
)
def test_the_cgroup_is_the_v2_line(raw: bytes, path: str) -> None:
    assert procfs.parse_cgroup(raw) == path


def test_environment_gives_names_and_no_values() -> None:
    raw = b"PATH=/bin\0TOKEN=s3cret=x\0PATH=/again\0no equals sign\0=hidden\0\0"
    assert procfs.environment_names(raw) == ("PATH", "TOKEN")


def test_a_process_that_wrote_over_its_environment_smuggles_no_value_out_as_a_name() -> None:
    assert procfs.environment_names(b"my password is s3cret = really\0" + b"A" * 4096 + b"=x\0\xff\xfe=1\0") == ()


def test_maps_are_read_with_names_that_hold_blanks() -> None:
    raw = (
        b"00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/a b (deleted)\n"
        b"7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n"
    )
    first, second = procfs.parse_maps(raw)
    assert (first.start, first.end, first.permissions, first.inode, first.name) == (
        0x400000,
        0x452000,
        "r-xp",
        173521,
        "/usr/bin/a b (deleted)",
    )
    assert (second.permissions, second.inode, second.name) == ("rwxp", 0, "")
