"""Files of root's through which the host runs things or stops: opened for writing only, never written."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.escapes.conftest import Inside

SCRIPT = """
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper",
             "/sys/power/state", "/proc/sys/net/ipv4/ip_forward", "/sys/module/kernel/parameters/consoleblank"):
    attempt(path, lambda: os.close(os.open(path, os.O_WRONLY)))
"""


def test_host_settings(inside: Callable[..., Inside], user: str) -> None:
    tried = inside(SCRIPT, user=user).results()
    assert {"EROFS", "EACCES", "ENOENT"} >= set(tried.values()), tried
    assert tried["/proc/sys/kernel/core_pattern"] != "ENOENT"
