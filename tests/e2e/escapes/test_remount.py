"""Undoing what is mounted over things takes CAP_SYS_ADMIN."""

from __future__ import annotations

from collections.abc import Callable

from killswitch.kernel import cgroupfs
from tests.e2e.escapes.conftest import Inside

SCRIPT = """
cgroups = sys.argv[1].encode()
attempt("remount", lambda: call("mount", None, cgroups, None, REMOUNT, None))
attempt("remount bind", lambda: call("mount", None, cgroups, None, REMOUNT | BIND, None))
attempt("mount again", lambda: call("mount", b"none", b"/mnt", b"cgroup2", 0, None))
attempt("bind elsewhere", lambda: call("mount", cgroups, b"/mnt", None, BIND, None))
attempt("unmount", lambda: call("umount2", cgroups, 2))
attempt("uncover bpffs", lambda: call("umount2", b"/sys/fs/bpf", 2))
attempt("bpffs again", lambda: call("mount", b"none", b"/mnt", b"bpf", 0, None))
attempt("proc again", lambda: call("mount", b"none", b"/mnt", b"proc", 0, None))
attempt("pivot", lambda: call("syscall", 155, b"/mnt", b"/mnt"))
"""


def test_remount(inside: Callable[..., Inside], user: str) -> None:
    assert set(inside(SCRIPT, cgroupfs.find_mount(), user=user).results().values()) == {"EPERM"}
