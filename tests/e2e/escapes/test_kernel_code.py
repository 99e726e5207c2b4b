"""Code in the kernel, another kernel, a reboot, the clock, priority over the daemon."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.escapes.conftest import Inside

SCRIPT = """
# Arguments that are wrong in themselves: where the capability were there, they would fail with another error.
attempt("module", lambda: call("syscall", 175, b"not a module", 12, b""))
attempt("module from a file", lambda: call("syscall", 313, os.open("/dev/null", os.O_RDONLY), b"", 0))
attempt("remove a module", lambda: call("syscall", 176, b"ks_test_no_such_module", 0x800))
attempt("another kernel", lambda: call("syscall", 246, 0, 17, 0, 0))
attempt("reboot", lambda: call("syscall", 169, 0, 0, 0, 0))
attempt("clock", lambda: call("clock_settime", 0, struct.pack("=qq", -1, -1)))
attempt("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99)))
attempt("priority", lambda: os.nice(-5))
attempt("host name", lambda: call("sethostname", b"", -1))
attempt("tracing", lambda: call("syscall", 298, struct.pack("=II", 1, 128) + bytes(120), -1, 0, -1, 0))
"""


def test_kernel_code(inside: Callable[..., Inside], user: str) -> None:
    tried = inside(SCRIPT, user=user).results()
    assert {"EPERM", "EACCES", "ENOSYS", "EINVAL"} >= set(tried.values()), tried
    for name in ("reboot", "real time", "host name", "tracing"):
        assert tried[name] in ("EPERM", "EACCES"), tried
