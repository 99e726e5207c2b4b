"""Network namespaces of our own: a far side at the end of a veth pair, with sockets that live over there."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*args: str) -> None:
    """Run iproute2. Raises RuntimeError with what it said."""
    done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(args)}: {done.stderr.strip() or done.returncode}")


def inside(namespace: str, function: Callable[[], T]) -> T:
    """Call ``function`` in a thread that has entered the namespace; what it makes (a socket) stays in it."""
    result: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with Path("/run/netns", namespace).open() as handle:
                if _libc.setns(handle.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns {namespace}")
            result.append(function())
        except BaseException as error:
            failed.append(error)

    # A thread of its own, because setns moves only the calling thread and there is no safe way back for a shared one.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result[0]


class FarSide:
    """A namespace joined to this one by a veth pair: IPv4 and IPv6 addresses at both ends, up when entered.

    ``label`` starts the names of what it makes (``ks-test``, ``ks-demo``, ``ks-bench``). The addresses are of the ranges for
    benchmarks (198.18.0.0/15) and unique local ones, so that they can meet nothing real.
    """

    _made = 0

    def __init__(self, label: str = "ks-test") -> None:
        FarSide._made += 1
        pid, serial = os.getpid(), FarSide._made
        self.name = f"{label}-{pid}-far{serial}"
        subnet = (pid * 7 + serial) % 512
        self.near_device, self.far_device = f"ksn{pid}-{serial}"[:15], f"ksf{pid}-{serial}"[:15]
        net4 = f"198.{18 + subnet // 256}.{subnet % 256}"
        net6 = f"fd6b:73{subnet % 256:02x}:{pid & 0xFFFF:x}:{serial:x}:"
        self.near4, self.far4 = f"{net4}.1", f"{net4}.2"
        self.near6, self.far6 = f"{net6}:1", f"{net6}:2"

    def __enter__(self) -> FarSide:
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _build(self) -> None:
        ip("netns", "add", self.name)
        ip("link", "add", self.near_device, "type", "veth", "peer", "name", self.far_device, "netns", self.name)
        far = ("-n", self.name)
        for where, device, address4, address6 in (
            ((), self.near_device, self.near4, self.near6),
            (far, self.far_device, self.far4, self.far6),
        ):
            ip(*where, "address", "add", f"{address4}/24", "dev", device)
            # nodad: an address that is still being checked for duplicates cannot be used for a second or two.
            ip(*where, "address", "add", f"{address6}/64", "dev", device, "nodad")
            ip(*where, "link", "set", device, "up")
        ip(*far, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Remove the namespace and the devices; harmless when they are gone."""
        for args in (("netns", "delete", self.name), ("link", "delete", self.near_device)):
            subprocess.run(["ip", *args], capture_output=True, check=False)

    def open_socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, proto: int = 0
    ) -> socket.socket:
        """A socket of the far side, usable from here."""
        return inside(self.name, lambda: socket.socket(family, kind, proto))

    def listen(self, port: int = 0, *, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A bound (and, for TCP, listening) socket over there; port 0 takes a free one."""
        made = self.open_socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((self.far4 if family == socket.AF_INET else self.far6, port))
        if kind == socket.SOCK_STREAM:
            made.listen(128)
        return made

    def run(self, *command: str, **options: object) -> subprocess.Popen[bytes]:
        """Start a program over there. The caller ends it."""
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], **options)  # type: ignore[call-overload,no-any-return]
