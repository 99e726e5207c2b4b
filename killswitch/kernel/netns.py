"""Sockets of ours in other network namespaces.

A thread's namespace is its own: so a thread that lives for one call enters the other namespace, makes the socket there
and ends. The socket stays where it was made; nothing else of the daemon ever leaves its namespace.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from killswitch.errors import KernelError
from killswitch.kernel import procfs, syscalls

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_SIOCGSKNS = 0x894C  # sockios.h: a descriptor of the network namespace that a socket lives in


def own() -> int:
    """The inode of the daemon's own network namespace."""
    return procfs.namespace(os.getpid(), "net")


def open_of_process(pid: int) -> int:
    """A descriptor of the process's network namespace. The caller closes it. Raises Gone."""
    try:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise syscalls.error(f"network namespace of process {pid}", e) from e


def open_at(path: Path) -> int:
    """A descriptor of the network namespace at this path (``/run/netns/NAME``, ``/proc/PID/ns/net``). Raises KernelError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise syscalls.error(f"network namespace {path}", e) from e


def devices(fd: int | None) -> list[tuple[int, str]]:
    """(index, name) of every device of the namespace (None: our own)."""
    return socket.if_nameindex() if fd is None else within(fd, socket.if_nameindex)


def open_of_socket(fd: int) -> int:
    """A descriptor of the network namespace that a socket of ours lives in. Needs CAP_NET_ADMIN there."""
    try:
        return int(fcntl.ioctl(fd, _SIOCGSKNS))
    except OSError as e:
        raise syscalls.error("network namespace of a socket", e) from e


def namespaces_of(pids: Iterable[int]) -> dict[int, int]:
    """Inode of a network namespace → one process in it; processes that vanish are left out."""
    found: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(KernelError):
            found.setdefault(procfs.namespace(pid, "net"), pid)
    return found


def socket_in(namespace_fd: int, family: int, kind: int, protocol: int) -> socket.socket:
    """A socket that lives in the namespace. Raises KernelError."""
    return within(namespace_fd, lambda: socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))


def within(namespace_fd: int, function: Callable[[], T]) -> T:
    """``function()``, called in the namespace, by a thread that does nothing else. Raises KernelError, also for its OSError."""
    made: list[T] = []
    failed: list[Exception] = []

    def work() -> None:
        try:
            syscalls.setns(namespace_fd, _CLONE_NEWNET)
            made.append(function())
        except OSError as e:
            failed.append(syscalls.error("work in another network namespace", e))
        except Exception as e:
            failed.append(e)

    thread = threading.Thread(target=work, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
