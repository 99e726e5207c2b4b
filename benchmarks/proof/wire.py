"""The wire: what may not leave, tried often, and the bytes of it that the far side heard."""

from __future__ import annotations

import resource
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import scene
from benchmarks.proof.figures import Figure, count
from killswitch.config import SHIPPED_POLICIES
from tests.rig import names
from tests.rig.daemon import Daemon
from tests.rig.netns import FarSide

PROGRAMS = Path(__file__).parents[2] / "tests" / "kernel" / "programs"
INNOCENT = b'{"jsonrpc":"2.0","id":1,"method":"initialize"}\n'
FLOWS = {
    "Stratum v1": b'{"id":1,"method":"mining.subscribe","params":["x/1.0"]}\n',
    "RandomX login": b'{"id":1,"method":"login","params":{"login":"4A","pass":"x","agent":"a/1"}}\n',
    "SSH banner of a program that is no ssh": b"SSH-2.0-paramiko_3.4.0\r\n",
    "TLS to a pool's name": names.client_hello(
        [names.extension(51, bytes(1200)), names.server_name("x.supportxmr.com")]
    ),
    "DNS over TCP for a tunnel service": names.over_tcp(names.query("serveo.net")),
}
DATAGRAMS = {"DNS question for a pool": names.query("pool.supportxmr.com")}


class _Ear:
    """Over there: counts the connections and the bytes of each kind of socket."""

    def __init__(self, far: FarSide) -> None:
        self.stream, self.datagram = far.listen(), far.listen(kind=socket.SOCK_DGRAM)
        self.connections = self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with (
            selectors.DefaultSelector() as selector
        ):  # a connection that was denied is never closed, as far as it knows
            for one in (self.stream, self.datagram):
                selector.register(one, selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in selector.select(0.02):
                    self._hear(selector, key.fileobj)
            for key in [k for k in selector.get_map().values() if k.fileobj not in (self.stream, self.datagram)]:
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()

    def _hear(self, selector: selectors.BaseSelector, ready: object) -> None:
        assert isinstance(ready, socket.socket)
        if ready is self.stream:
            selector.register(ready.accept()[0], selectors.EVENT_READ)
            self.connections += 1
            return
        try:
            data = ready.recv(65536)
        except OSError:
            data = b""
        self.bytes += len(data)
        if not data and ready is not self.datagram:
            selector.unregister(ready)
            ready.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for one in (self.stream, self.datagram):
            one.close()


def _policies() -> dict[str, str]:
    """The shipped ones, denying alone: so that each try is judged by itself, and not cut off by the one before."""
    severing = "    response: [deny, sever, freeze, capture]\n"
    return {f.name: f.read_text().replace(severing, "    response: [deny]\n") for f in SHIPPED_POLICIES.glob("*.yaml")}


def nothing_of_it_leaves(tries: int) -> Iterator[Figure]:
    """Handshakes, banners and names; each on a connection, or a socket, of its own."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # what was denied stays open over there
    with Daemon(scene.LABEL, policies=_policies()) as daemon, FarSide(scene.LABEL) as far:
        cgroup = scene.make_workload(daemon, "wire")
        ear = _Ear(far)
        try:
            host, port = ear.stream.getsockname()[:2]
            for name, payload in {"control: a language server's line": INNOCENT, **FLOWS}.items():
                number = 100 if payload is INNOCENT else tries
                yield _told(ear, cgroup, name, payload, number, "talker.py", f"{host} {port} {payload.hex()} 0.001\n")
            host, port = ear.datagram.getsockname()[:2]
            for name, payload in DATAGRAMS.items():
                yield _told(
                    ear, cgroup, name, payload, tries, "datagrams.py", f"sendto {host} {port} {payload.hex()}\n"
                )
        finally:
            ear.close()


def _told(ear: _Ear, cgroup: Path, name: str, payload: bytes, tries: int, program: str, line: str) -> Figure:
    ear.bytes = ear.connections = 0
    done = subprocess.run(
        [sys.executable, "-I", "-S", PROGRAMS / program],
        input=line * tries,
        text=True,
        capture_output=True,
        preexec_fn=scene.entering(cgroup),
        check=True,
    )
    answers = done.stdout.split()[1:]
    threading.Event().wait(0.2)  # what is on its way
    made = ear.connections if program == "talker.py" else answers.count("EPERM")
    what = "connections made" if program == "talker.py" else "refused to the sender"
    wanted = tries * len(payload) if payload is INNOCENT else 0
    found = count("wire", f"{name}: bytes at the far side", tries, ear.bytes, wanted, f"{made:,} {what}")
    return found if made == tries else replace(found, held=False)
