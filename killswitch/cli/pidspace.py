"""A pid namespace for CMD: it sees, and can signal, its own processes only.

The first process of a pid namespace is its init: orphans come to it, and when it ends the kernel ends them all. CMD must
not be that (an init is deaf to SIGTERM unless it handles it), so a process of ours is, outside the workload's cgroup: it
is never frozen, counted or judged with it. It stays until the namespace is empty. It keeps all our capabilities and is
not dumpable, so that nothing inside may trace it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import NoReturn

from killswitch.cli import syscalls

_LOOK_AGAIN = 0.05  # seconds


class PidSpace:
    """Made before CMD's process is forked. ``close`` when CMD has ended: what it left behind lives on."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._ours = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.unshare(syscalls.CLONE_NEWPID)
        until, self._hold = os.pipe()
        self._init = os.fork()
        if self._init == 0:
            _be_init(until)
        os.close(until)

    @contextlib.contextmanager
    def children(self) -> Iterator[None]:
        """What is forked in here is born inside; afterwards threads can be made again (the kernel forbids them)."""
        try:
            yield
        finally:
            syscalls.setns(self._ours, syscalls.CLONE_NEWPID)
            os.close(self._ours)

    def close(self) -> None:
        os.close(self._hold)


def _be_init(until: int) -> NoReturn:
    try:
        os.setsid()  # away from the terminal
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):  # whoever reads what CMD writes is not to wait for us
            os.dup2(null, fd)
        keep = os.dup2(until, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans are reaped by the kernel
        syscalls.set_name("killswitch-init")
        syscalls.undumpable()
        os.read(keep, 1)  # until nobody holds the other end: CMD has ended, or `killswitch run` has
        while True:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)  # with SIGCHLD ignored: returns when the last child has ended
            try:
                os.kill(-1, 0)  # everybody else in the namespace
            except ProcessLookupError:
                break
            time.sleep(_LOOK_AGAIN)
    finally:
        os._exit(0)
