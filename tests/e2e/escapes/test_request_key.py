"""request_key(2) has the kernel start a program, as root and outside, with words of the workload's choice (a name for DNS)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside
from tests.e2e.escapes.loose import Loose, judge

SCRIPT = """
def ask():
    call("syscall", 249, b"user", b"ks-test-no-such-key", b"told", -3)
attempt("ask", ask)
attempt("32 bits", lambda: call("syscall", 0x40000000 + 249, b"user", b"ks-test-no-such-key", b"told", -3))
"""
GONE_UNHEARD = ("ENOKEY", "ENOENT", "EACCES")  # /sbin/request-key was started, or would have been, were it there


def test_run_refuses_it(inside: Callable[..., Inside], user: str) -> None:
    assert set(inside(SCRIPT, user=user).results().values()) <= {"EPERM", "ENOSYS"}


def test_only_watched(loose: Callable[..., Loose], user: str, shared_daemon: Daemon) -> None:
    script = loose(SCRIPT.replace("attempt(", "go()\nattempt(", 1), user=user)
    script.ready()
    script.sever()
    script.go()
    outcome = script.results()["ask"]
    if outcome == "ENOSYS":
        pytest.skip("this kernel has no keys")
    judge(shared_daemon, "no_kernel_helpers", outcome in GONE_UNHEARD and outcome)
