"""The far end of reverse tunnels, and a service inside for them to lead to."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.rig.netns import FarSide, inside
from tests.rig.programs import framing

PROGRAMS = Path(__file__).with_name("programs")


class Service:
    """On loopback, or where ``listener`` listens: takes what it is told to take, and answers as much as it is asked for.
    Several at a time."""

    def __init__(self, listener: socket.socket | None = None) -> None:
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                made, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(made,), daemon=True).start()

    def _serve(self, made: socket.socket) -> None:
        with made, contextlib.suppress(OSError):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                n, answer = framing.HEADER.unpack(framing.read_exactly(made, framing.HEADER.size))
                framing.read_exactly(made, n)
                made.sendall(bytes(answer))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def self_signed(key: Path, cert: Path, *options: str) -> None:
    """``options``: of ``openssl req``."""
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*make, *options, "-keyout", key, "-out", cert], check=True, capture_output=True)


def certificate(directory: Path) -> ssl.SSLContext:
    """A server's context with a certificate made for the occasion."""
    key, cert = directory / "key.pem", directory / "cert.pem"
    if not cert.exists():
        self_signed(key, cert, "-subj", "/CN=test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


class Hub:
    """Where tunnels arrive. ``exchange`` speaks to the service through one, as an intruder would."""

    def __init__(self, far: FarSide, kind: str = "plain", tls: ssl.SSLContext | None = None) -> None:
        self._listener, self._tls = far.listen(), tls
        self.kind = kind
        self.host, self.port = self._listener.getsockname()[:2]
        self._codec = framing.KINDS["plain" if kind == "work" else kind]()
        self._waiting: dict[int, bytes] = {}
        self._made: list[socket.socket] = []

    def accept(self, seconds: float = 10) -> socket.socket:
        self._listener.settimeout(seconds)
        made, _ = self._listener.accept()
        made.settimeout(seconds)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made = self._tls.wrap_socket(made, server_side=True) if self._tls else made
        self._made.append(made)
        return made

    def exchange(self, outer: socket.socket, n: int, answer: int, stream: int = 0) -> None:
        """Ask the service at the other end, and take its answer. Raises OSError when the tunnel is cut."""
        if self.kind == "work":  # ``outer`` is where such a connection is asked for
            outer.sendall(b"!")
            made = self.accept(3)
            made.sendall(framing.HEADER.pack(n, answer) + bytes(n))
            framing.read_exactly(made, answer)
            made.close()
            return
        self.ask(outer, n, answer, stream)
        self.take(outer, answer, stream)

    def ask(self, outer: socket.socket, n: int, answer: int, stream: int = 0) -> None:
        outer.sendall(self._codec.wrap(stream, framing.HEADER.pack(n, answer) + bytes(n)))

    def take(self, outer: socket.socket, n: int, stream: int = 0) -> None:
        while n:
            data = self._waiting.pop(stream, b"")
            n -= len(data)
            if data:
                continue
            got = outer.recv(65536)
            if not got:
                raise ConnectionError("the tunnel is closed")
            for number, body in self._codec.unwrap(got):
                self._waiting[number] = self._waiting.get(number, b"") + body

    def close(self) -> None:
        for made in (*self._made, self._listener):
            made.close()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sizes(count: int, seed: int = 7) -> Iterator[tuple[int, int]]:
    """What is asked and answered: from ten bytes to some thousands, each magnitude as likely as the next."""
    chance = random.Random(seed)
    for _ in range(count):
        yield int(10 ** chance.uniform(1, 3.3)), int(10 ** chance.uniform(1.3, 4.2))


def drive(hub: Hub, outer: socket.socket, count: int, pause: float = 0.02, streams: int = 1) -> int:
    """Go on until the tunnel is cut, or so many exchanges are done; how many were."""
    done = 0
    with contextlib.suppress(OSError):
        for n, answer in sizes(count):
            hub.exchange(outer, n, answer, done % streams)
            done += 1
            time.sleep(pause)
    return done


def talk(far: FarSide, address: tuple[str, int], count: int, pause: float = 0.02) -> int:
    """From over there to the service behind ``address``: so many exchanges, or fewer when it is cut off; how many."""
    done = 0
    with contextlib.suppress(OSError), inside(far.name, lambda: socket.create_connection(address, 10)) as made:
        made.settimeout(10)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n, answer in sizes(count):
            made.sendall(framing.HEADER.pack(n, answer) + bytes(n))
            framing.read_exactly(made, answer)
            done += 1
            time.sleep(pause)
    return done
