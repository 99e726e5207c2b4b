"""The canary of the self-test: a program of its own that sends, listens and burns a little CPU, to be cut off for proof.

Started as ``python3 -I -S canary.py PROCS TCP UDP UDP6``: joins the cgroup of ``PROCS`` and is executed anew inside of it,
so that it is a program that begins there; gives up every privilege that it can, then speaks to these ports on loopback
every few milliseconds (UDP6 0: not over IPv6). It is asked over stdin and answers on stdout, a line of JSON each: cut off
the network, it can still tell. Ends with its stdin, or after ``LIFE`` seconds.

Standard library only, and nothing of ours: it must not be able to do more than any workload.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import NoReturn

LIFE = 60.0
BEAT = 0.004  # seconds between two rounds
PATIENCE = 0.1  # seconds that a connection may take: the retry of a dropped SYN would come a second later
NOBODY = 65534
INSIDE = "inside"
_SET_NO_NEW_PRIVS = 38


def give_up() -> dict[str, int]:
    """Every privilege that it can; what is left, as the kernel tells it."""
    with contextlib.suppress(OSError):  # the daemon's own service may not change users
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    libc = ctypes.CDLL(None)
    libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
    with open("/proc/self/status") as file:  # noqa: PTH123 - pathlib costs a third of its start
        status = dict(line.rstrip("\n").split(":", 1) for line in file)
    return {
        "uid": os.geteuid(),
        "capabilities": int(status["CapEff"], 16),
        "no_new_privs": int(status.get("NoNewPrivs", "0")),
    }


class Canary:
    """Its sockets are made when they are needed, and again when they were destroyed; to make one may be denied."""

    def __init__(self, tcp: int, udp: int, udp6: int) -> None:
        self.tcp, self.born = tcp, time.monotonic()
        self.tries = 0
        self.opened = 0.0  # when the flow was opened, or last took a byte
        self.came: dict[str, int] = {}  # datagrams that reached it, by their first byte
        self.sockets: dict[str, socket.socket] = {}
        self.far: dict[str, tuple[socket.AddressFamily, tuple[str, int]]] = {
            "udp": (socket.AF_INET, ("127.0.0.1", udp)),
            **({"udp6": (socket.AF_INET6, ("::1", udp6))} if udp6 else {}),
        }

    def beat(self) -> None:
        """One round: a datagram each way out, a byte on the flow, and whatever came in."""
        self.tries += 1
        for name, (_, to) in self.far.items():
            self.use(name, tweet(to))
        self.use("flow", self.sing)
        self.use("door", lambda s: s.accept()[0].close())
        self.use("box", self.receive)

    def use(self, name: str, act: Callable[[socket.socket], object]) -> None:
        """Do it until there is nothing more to be done; a socket that fails in another way is made anew next time."""
        try:
            if name not in self.sockets:
                self.sockets[name] = self.make(name)
            act(self.sockets[name])
        except BlockingIOError:
            pass
        except PermissionError:  # severed: this socket may be all right
            pass
        except OSError:
            if name in self.sockets:
                self.sockets.pop(name).close()

    def make(self, name: str) -> socket.socket:
        if name == "door":
            made = socket.create_server(("127.0.0.1", 0))
        elif name in ("flow", "box"):
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if name == "flow" else socket.SOCK_DGRAM)
        else:
            made = socket.socket(self.far[name][0], socket.SOCK_DGRAM)
        made.setblocking(False)
        if name == "box":
            made.bind(("127.0.0.1", 0))
        elif name == "flow":
            self.opened = time.monotonic()
            made.connect_ex(("127.0.0.1", self.tcp))
        return made

    def sing(self, flow: socket.socket) -> None:
        """A byte on the flow. One on which none goes out is given up: it is not even open, or nobody acknowledges."""
        try:
            flow.send(b"t")
            self.opened = time.monotonic()
        except BlockingIOError:
            if time.monotonic() - self.opened > PATIENCE:
                raise ConnectionAbortedError from None

    def receive(self, box: socket.socket) -> None:
        while True:
            kind = box.recv(16)[:1].decode("latin-1")
            if not kind:
                raise ConnectionAbortedError  # it was shut
            self.came[kind] = self.came.get(kind, 0) + 1

    def port(self, name: str) -> int:
        """0: there is none just now."""
        try:
            return int(self.sockets[name].getsockname()[1])
        except (KeyError, OSError):
            return 0

    def answer(self, order: str) -> dict[str, object]:
        word, _, value = order.partition(" ")
        if word == "report":
            tries, self.tries = self.tries, 0
            return {"tries": tries, "came": self.came, "tcp": self.port("door"), "udp": self.port("box")}
        if word == "exec":
            return execute(value)
        return self.say(value.encode())

    def say(self, opening: bytes) -> dict[str, object]:
        """Open a flow with these first bytes. What the far side has got of it, the far side knows."""
        try:
            with socket.create_connection(("127.0.0.1", self.tcp), timeout=0.5) as s:
                # Closed, it is gone: what is denied would wait to be sent, with nobody to destroy it on older kernels.
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.sendall(opening + b"\n")
        except OSError as e:
            return {"errno": e.errno or 0}
        return {"errno": 0}


def execute(token: str) -> dict[str, object]:
    """Execute a shell that would write one word, with ``token`` as an argument: how it ended, and what it wrote."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writer, 1)
            os.execv("/bin/sh", ["sh", "-c", "echo ran", token])
        finally:
            os._exit(127)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        output = pipe.read()
    code = os.waitstatus_to_exitcode(status)
    return {"exited": code, "killed": int(code == -signal.SIGKILL), "output": output.decode("latin-1").strip()}


def tweet(to: tuple[str, int]) -> Callable[[socket.socket], object]:
    return lambda s: s.sendto(b"tweet", to)


def join(procs: str) -> NoReturn:
    with open(procs, "w") as file:  # noqa: PTH123 - pathlib costs a third of its start
        file.write("0")
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, INSIDE, *sys.argv[2:]])


def main() -> None:
    if sys.argv[1] != INSIDE:
        join(sys.argv[1])
    left = give_up()
    canary = Canary(*map(int, sys.argv[2:5]))
    os.set_blocking(0, False)
    print(json.dumps(left), flush=True)
    waiting = b""
    while time.monotonic() - canary.born < LIFE:
        canary.beat()
        with contextlib.suppress(BlockingIOError):
            got = os.read(0, 4096)
            if not got:
                return
            *orders, waiting = (waiting + got).split(b"\n")
            for order in orders:
                print(json.dumps(canary.answer(order.decode())), flush=True)
        time.sleep(BEAT)


if __name__ == "__main__":
    main()
