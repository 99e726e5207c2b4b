"""Signals that cannot hit the wrong process: a pidfd names one process for ever, a pid only while it lives."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterator

from killswitch.errors import Gone
from killswitch.kernel import procfs, syscalls


def open_process(pid: int, start_ticks: int) -> int:
    """A pidfd of the process that has this pid *and* started at ``start_ticks``. The caller closes it.

    Opened first and compared then: what is compared is what the descriptor holds, or it has ended since. Raises Gone.
    """
    try:
        fd = os.pidfd_open(pid)
    except OSError as e:
        raise syscalls.error(f"open process {pid}", e) from e
    if not procfs.same(pid, start_ticks) or exited(fd):
        os.close(fd)
        raise Gone(f"process {pid} started at tick {start_ticks}", errno.ESRCH, "it has ended")
    return fd


@contextlib.contextmanager
def process(pid: int, start_ticks: int) -> Iterator[int]:
    fd = open_process(pid, start_ticks)
    try:
        yield fd
    finally:
        os.close(fd)


def exited(fd: int) -> bool:
    """Whether the process has ended: all its threads, be it waited for or not."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def send(fd: int, number: signal.Signals) -> None:
    """Raises Gone when the process has ended and was waited for."""
    try:
        signal.pidfd_send_signal(fd, number)
    except OSError as e:
        raise syscalls.error(f"send {number.name} through a pidfd", e) from e


async def wait_exit(fd: int, timeout_s: float) -> bool:
    """Wait until the process has ended. False after ``timeout_s`` seconds."""
    if exited(fd):
        return True
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), timeout_s)
    except TimeoutError:
        return exited(fd)
    finally:
        loop.remove_reader(fd)
    return True
