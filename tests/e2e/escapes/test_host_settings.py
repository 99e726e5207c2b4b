"""Files of root's through which the host runs things or stops: opened for writing only, never written."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside
from tests.e2e.escapes.loose import Loose, judge

SCRIPT = """
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper",
             "/sys/power/state", "/proc/sys/net/ipv4/ip_forward", "/sys/module/kernel/parameters/consoleblank"):
    attempt(path, lambda: os.close(os.open(path, os.O_WRONLY)))
"""


def test_host_settings(inside: Callable[..., Inside], user: str) -> None:
    tried = inside(SCRIPT, user=user).results()
    assert {"EROFS", "EACCES", "ENOENT"} >= set(tried.values()), tried
    assert tried["/proc/sys/kernel/core_pattern"] != "ENOENT"


def test_only_watched(loose: Callable[..., Loose], user: str, shared_daemon: Daemon) -> None:
    """Who may write there has the kernel start a program of his choice, outside: at the next core dump, say."""
    script = loose(SCRIPT.replace("for path", "go()\nfor path", 1), user=user)
    script.ready()
    script.sever()
    script.go()
    open_ = [path for path, outcome in script.results().items() if outcome == "done"]
    if user == "root":
        judge(shared_daemon, "no_kernel_helpers", open_)
    else:
        assert not open_
