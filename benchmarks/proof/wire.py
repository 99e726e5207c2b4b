"""The wire: what may not leave, tried often, and the bytes of it that the far side heard."""

from __future__ import annotations

import resource
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
from tests.rig.farside import Sink
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


def _policies() -> dict[str, str]:
    """The shipped ones, denying alone: so that each try is judged by itself, and not cut off by the one before."""
    severing = "    response: [deny, sever, freeze, capture]\n"
    return {f.name: f.read_text().replace(severing, "    response: [deny]\n") for f in SHIPPED_POLICIES.glob("*.yaml")}


def nothing_of_it_leaves(tries: int) -> Iterator[Figure]:
    """Handshakes, banners and names; each on a connection, or a socket, of its own."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # what was denied stays open over there
    with (
        Daemon(scene.LABEL, policies=_policies()) as daemon,
        FarSide(scene.LABEL) as far,
        Sink(far) as stream,
        Sink(far, kind=socket.SOCK_DGRAM) as datagram,
    ):
        cgroup = scene.make_workload(daemon, "wire")
        host, port = stream.address
        for name, payload in {"control: a language server's line": INNOCENT, **FLOWS}.items():
            number = 100 if payload is INNOCENT else tries
            yield _told(stream, cgroup, name, payload, number, "talker.py", f"{host} {port} {payload.hex()} 0.001\n")
        host, port = datagram.address
        for name, payload in DATAGRAMS.items():
            line = f"sendto {host} {port} {payload.hex()}\n"
            yield _told(datagram, cgroup, name, payload, tries, "datagrams.py", line)


def _told(ear: Sink, cgroup: Path, name: str, payload: bytes, tries: int, program: str, line: str) -> Figure:
    ear.received = ear.accepted = 0
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
    made = ear.accepted if program == "talker.py" else answers.count("EPERM")
    what = "connections made" if program == "talker.py" else "refused to the sender"
    wanted = tries * len(payload) if payload is INNOCENT else 0
    found = count("wire", f"{name}: bytes at the far side", tries, ear.received, wanted, f"{made:,} {what}")
    return found if made == tries else replace(found, held=False)
