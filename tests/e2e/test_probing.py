"""Scans by ordinary tools, and what is none, against the shipped policies. The far side has every address of its network."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from killswitch.commands import FREE, Containment, Finding
from tests.rig.daemon import Daemon
from tests.rig.netns import FarSide, ip

CUT_OFF = Containment(severed=True, frozen=True)


@pytest.fixture
def network(far: FarSide) -> str:
    """The first three numbers of a network whose every address is the far side's: what is closed is refused."""
    net = far.far4.rpartition(".")[0]
    for part in ("4/30", "8/29", "16/28", "32/27", "64/26", "128/25"):  # all but the near side's own
        ip("-n", far.name, "route", "add", "local", f"{net}.{part}", "dev", "lo")
    return net


def findings(daemon: Daemon, workload: str) -> list[Finding]:
    incidents = [i for i in daemon.client.incidents() if i.workload_name == workload]
    return [f for i in incidents for f in daemon.client.incident(i.id).findings]


def run(daemon: Daemon, name: str, *command: str) -> subprocess.Popen[bytes]:
    return daemon.spawn(name, *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


DEV_TCP = "for p in $(seq 1 400); do (: > /dev/tcp/{net}.9/$p) 2>/dev/null; done; sleep 100"
THREADS = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def knock(n):
    c = socket.socket(); c.settimeout(1); c.connect_ex((f"{sys.argv[1]}.{n % 200 + 3}", 1000 + n)); c.close()
with ThreadPoolExecutor(16) as pool: list(pool.map(knock, range(600)))
__import__("time").sleep(100)
"""
LOOPBACK = """
import socket
for port in range(20000, 21000):
    socket.socket().connect_ex(("127.0.0.1", port))
__import__("time").sleep(100)
"""
UDP = """
import socket, sys
c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(3, 253): c.sendto(b"x", (f"{sys.argv[1]}.{n}", 161))
__import__("time").sleep(100)
"""
SCANS: dict[str, tuple[str, ...]] = {
    "nmap over hosts": ("nmap", "-sT", "-Pn", "-n", "-p22", "--min-rate", "200", "{net}.0/24"),
    "nmap over ports": ("nmap", "-sT", "-Pn", "-n", "-p1-1000", "{net}.7"),
    "fping": ("fping", "-q", "-i", "5", "-g", "{net}.0/24"),
    "nc -z": ("nc", "-z", "-w1", "{net}.8", "1-1000"),
    "a shell's /dev/tcp": ("/bin/bash", "-c", DEV_TCP),
    "hosts times ports": (sys.executable, "-c", THREADS, "{net}"),
    "loopback": (sys.executable, "-c", LOOPBACK),
    "datagrams": (sys.executable, "-c", UDP, "{net}"),
}


@pytest.mark.parametrize("how", SCANS)
def test_scans_are_cut_off(shared_daemon: Daemon, network: str, how: str) -> None:
    command = [part.format(net=network) if "{net}" in part else part for part in SCANS[how]]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    name = f"scan-{list(SCANS).index(how)}"
    shared_daemon.cgroup(name)
    shared_daemon.watched(name)
    run(shared_daemon, name, *command)
    shared_daemon.wait_for(f"{how} is cut off", lambda: (w := shared_daemon.workload(name)) and w.observed == CUT_OFF)
    rules = {f.rule for f in findings(shared_daemon, name) if f.responses and f.act == "probing"}
    assert rules & {"internal-scan", "internal-scan-silent", "internal-scan-unanswered"}


LOAD = """
import socket, sys
for n in range(2000):
    socket.create_connection((sys.argv[1], int(sys.argv[2]))).close()
"""
SCRAPE = """
import socket, sys
for again in range(3):
    for n in range(50):
        with socket.create_connection((f"{sys.argv[1]}.{n + 10}", int(sys.argv[2]))) as c: c.sendall(b"GET /metrics")
"""
WAIT = """
import socket, sys, time
for n in range(300):
    socket.socket().connect_ex((sys.argv[1], 1))
socket.create_connection((sys.argv[1], int(sys.argv[2]))).close()
"""
SERVERS = """
import socket
for n in range(1000):
    with socket.create_server(("127.0.0.1", 0)) as a: socket.create_connection(a.getsockname()).close()
"""
INNOCENT: dict[str, tuple[str, ...]] = {
    "a load test": (LOAD, "{net}.9", "{port}"),
    "a scraper of fifty hosts": (SCRAPE, "{net}", "{port}"),
    "a client that waits for its server": (WAIT, "{net}.9", "{port}"),
    "a test suite's servers": (SERVERS,),
}


def test_what_is_no_scan_goes_on(shared_daemon: Daemon, far: FarSide, network: str) -> None:
    listener = far.open_socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", 0))
    listener.listen(4096)
    port = str(listener.getsockname()[1])
    stop = drain(listener)
    try:
        for number, (what, (code, *arguments)) in enumerate(INNOCENT.items()):
            name = f"work{number}"
            shared_daemon.cgroup(name)
            shared_daemon.watched(name)
            given = [a.format(net=network, port=port) for a in arguments]
            assert run(shared_daemon, name, sys.executable, "-c", code, *given).wait(120) == 0, what
            workload = shared_daemon.workload(name)
            assert workload and workload.desired == FREE, what
            told = {f.rule for f in findings(shared_daemon, name) if str(f.level) not in ("low", "informational")}
            assert told == set(), what
    finally:
        stop()
        listener.close()


def drain(listener: socket.socket) -> Callable[[], None]:
    """Accept and close, in a thread, until told to stop."""
    import threading

    ended = threading.Event()
    listener.settimeout(0.1)

    def serve() -> None:
        while not ended.is_set():
            try:
                listener.accept()[0].close()
            except TimeoutError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()

    def stop() -> None:
        ended.set()
        thread.join()

    return stop
