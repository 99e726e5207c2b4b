"""What CMD keeps: the table, the options, the filter as the kernel would run it."""

from __future__ import annotations

import struct
from pathlib import Path

import click
import pytest

from killswitch.cli import syscallfilter
from killswitch.cli.capabilities import KEPT, TABLE, canonical
from killswitch.cli.child import CannotRun
from killswitch.cli.confine import UNCONFINED, find_user
from killswitch.cli.privileges import Privileges, privilege_options

MUST_GO = {
    "CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO", "CAP_SYS_BOOT", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_MKNOD",
}  # fmt: skip


def test_the_table_has_every_capability_once_with_its_reason() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert {c.bit for c in TABLE.values()} >= set(range(last + 1))
    assert len({c.bit for c in TABLE.values()}) == len(TABLE)
    assert all(c.why for c in TABLE.values())
    assert {TABLE[name].bit for name in MUST_GO}.isdisjoint(KEPT)


@pytest.mark.parametrize("name", ["net_raw", "CAP_NET_RAW", "Cap_Net_Raw", "NET_RAW"])
def test_a_capability_by_any_spelling(name: str) -> None:
    assert canonical(name) == "CAP_NET_RAW"


def test_a_misspelt_capability_is_an_error_that_helps() -> None:
    with pytest.raises(ValueError, match="did you mean CAP_SYS_ADMIN"):
        canonical("sys_admim")


def test_a_user_by_name_and_number() -> None:
    by_name = find_user("nobody")
    assert by_name == find_user(str(by_name.uid))
    assert ("USER", "nobody") in by_name.environment
    assert (find_user("12345:678").uid, find_user("12345:678").gid) == (12345, 678)
    assert find_user("nobody:7").groups == ()
    for wrong in ("ks-test-nobody-at-all", "54321", "nobody:x", ""):
        with pytest.raises(ValueError, match=r"no user|no group"):
            find_user(wrong)


def test_unconfined_is_all_or_nothing() -> None:
    assert Privileges(unconfined=True).confinement(Path("/x/admin.sock")) is UNCONFINED
    with pytest.raises(CannotRun, match="leave out the other options"):
        Privileges(unconfined=True, allow_new_privs=True).confinement(Path("/x/admin.sock"))


def test_options_become_one_value() -> None:
    seen: list[Privileges] = []
    command = click.command()(privilege_options(lambda privileges: seen.append(privileges)))
    command.main(["--cap-add", "net_raw,bpf", "--cap-add", "NET_RAW", "--host-pids"], standalone_mode=False)
    assert seen == [Privileges(cap_add=("CAP_NET_RAW", "CAP_BPF"), host_pids=True)]


def _answer(arch: int, number: int, *arguments: int) -> int:
    """The filter, run as the kernel runs classic BPF."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    code = list(struct.iter_unpack("=HBBI", syscallfilter.program()))
    at = accumulator = 0
    while True:
        operation, true, false, value = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation in (0x15, 0x45):
            hit = accumulator == value if operation == 0x15 else accumulator & value
            at += true if hit else false
        else:
            assert operation == 0x06
            return value


ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x50001, 0x50026
NEWCGROUP, NEWUSER = 0x02000000, 0x10000000


@pytest.mark.parametrize(
    ("arch", "clone", "unshare", "ioctl", "request_key"),
    [
        (0xC000003E, 56, 272, 16, 249),
        (0x40000003, 120, 310, 54, 287),
        (0xC00000B7, 220, 97, 29, 218),
        (0x40000028, 120, 337, 54, 310),
    ],
)
def test_the_filter_on_every_machine(arch: int, clone: int, unshare: int, ioctl: int, request_key: int) -> None:
    assert _answer(arch, request_key) == EPERM
    for number in (clone, unshare):
        assert _answer(arch, number, NEWUSER | NEWCGROUP) == EPERM
        assert _answer(arch, number, NEWUSER) == ALLOW
        assert _answer(arch, number, 0, NEWCGROUP) == ALLOW  # another argument
    assert _answer(arch, ioctl, 0, 0x5412) == _answer(arch, ioctl, 0, 0x541C) == EPERM
    assert _answer(arch, ioctl, 0, 0xFFFFFFFF_00005412) == EPERM  # the kernel looks at the low half only
    assert _answer(arch, ioctl, 0x5412, 0x5413) == ALLOW
    assert _answer(arch, 435) == ENOSYS
    assert _answer(arch, 1, 0x5412, 0x5412) == ALLOW


def test_the_filter_on_x32_and_on_machines_it_does_not_know() -> None:
    assert _answer(0xC000003E, 0x40000000 | 272, NEWCGROUP) == EPERM
    assert _answer(0xC00000F3, 97, NEWCGROUP) == ALLOW
