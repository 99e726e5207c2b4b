"""Real programs under other names, and real configuration files: what they are and say is found out after they began.

The SSH client talks to a socket on loopback that accepts and says nothing: it waits for a banner that never comes.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.commands import Containment
from tests.rig.daemon import Daemon

CUT_OFF = Containment(severed=True, frozen=True)
SSH = "/usr/bin/ssh"
BACK = "9000:localhost:22"
IN_MEMORY = """
import os, sys
fd = os.memfd_create("", 0)
os.write(fd, open("/usr/bin/ssh", "rb").read())
os.execve(fd, sys.argv[1:], os.environ)
"""


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


def client(port: int, *options: str, config: str = "none") -> list[str]:
    return ["-F", config, "-p", str(port), *options, "-N", "127.0.0.1"]


def rules(daemon: Daemon, name: str) -> set[str]:
    cgroup = f"{daemon.cgroup_parent}/{name}"
    return {f.rule for i in daemon.client.incidents() if i.cgroup == cgroup for f in i.findings}


def is_cut_off(daemon: Daemon, name: str) -> bool:
    daemon.wait_for("cut off", lambda: (w := daemon.workload(name)) and w.observed == CUT_OFF)
    return "reverse-ssh-tunnel" in rules(daemon, name)


@pytest.mark.parametrize("how", ["copied", "linked", "deleted", "in memory", "loader", "argv0"])
def test_the_client_is_known_whatever_it_is_called(how: str, shared_daemon: Daemon, tmp_path: Path, port: int) -> None:
    other = tmp_path / "trainer"
    name = f"ks-test-{how.replace(' ', '-')}"
    line = ["trainer", *client(port, "-R", BACK)]
    command = [str(other), *line[1:]]
    if how != "in memory":
        shutil.copy(SSH, other)
    if how == "linked":
        os.link(other, tmp_path / "second")
        command[0] = str(tmp_path / "second")
    elif how == "deleted":
        script = 'f=$1; shift; exec 3<"$f"; rm "$f"; exec /proc/self/fd/3 "$@"'
        command = ["/bin/sh", "-c", script, "sh", *command]
    elif how == "in memory":
        command = [sys.executable, "-c", IN_MEMORY, *line]
    elif how == "loader":
        command = ["/lib64/ld-linux-x86-64.so.2", "--argv0", "x", *command]
    elif how == "argv0":
        command = ["/bin/bash", "-c", 'exec -a "[x]" "$@"', "bash", *command]
    shared_daemon.watched(name)
    shared_daemon.spawn(name, *command)
    assert is_cut_off(shared_daemon, name)


@pytest.mark.parametrize("where", ["named", "included", "relative", "system", "home"])
def test_a_tunnel_in_a_configuration_file_is_seen(where: str, shared_daemon: Daemon, tmp_path: Path, port: int) -> None:
    config = tmp_path / "x"
    config.write_text(f"Host 127.*\n  RemoteForward {BACK.replace(':', ' ', 1)}\n")
    name = f"ks-test-config-{where}"
    command = [SSH, *client(port, config=str(config))]
    if where == "included":
        outer = tmp_path / "outer"
        outer.write_text(f"Host *\n  Include {tmp_path}/[w-y]\n")
        command = [SSH, *client(port, config=str(outer))]
    elif where == "relative":
        command = ["/usr/bin/env", "-C", str(tmp_path), SSH, *client(port, config="x")]
    elif where == "system":  # in a mount namespace of its own: what lies there is not what lies here
        mount = f"mount --bind {config} /etc/ssh/ssh_config && exec {SSH} -p {port} -N 127.0.0.1"
        command = ["/usr/bin/unshare", "-m", "/bin/sh", "-c", mount]
    elif where == "home":  # the password file's home, whatever $HOME says
        (tmp_path / ".ssh").mkdir()
        config.rename(tmp_path / ".ssh/config")
        (tmp_path / "passwd").write_text(f"root:x:0:0:root:{tmp_path}:/bin/sh\n")
        mount = f"mount --bind {tmp_path}/passwd /etc/passwd && HOME=/nowhere exec {SSH} -p {port} -N 127.0.0.1"
        command = ["/usr/bin/unshare", "-m", "/bin/sh", "-c", mount]
    shared_daemon.watched(name)
    shared_daemon.spawn(name, *command)
    assert is_cut_off(shared_daemon, name)


def test_a_configuration_that_cannot_be_read_is_told_of_and_not_disturbed(
    shared_daemon: Daemon, tmp_path: Path, port: int
) -> None:
    shared_daemon.watched("ks-test-pipe")
    script = f"cat {tmp_path}/config | {SSH} -F /dev/stdin -p {port} -N 127.0.0.1"
    (tmp_path / "config").write_text("User nobody\n")
    shared_daemon.spawn("ks-test-pipe", "/bin/sh", "-c", script)
    shared_daemon.wait_for("told", lambda: "ssh-config-unread" in rules(shared_daemon, "ks-test-pipe"))


def test_ordinary_clients_go_on(shared_daemon: Daemon, tmp_path: Path, port: int) -> None:
    """Local and dynamic forwarding, a remote command with -R, a configuration whose tunnel is for another host, scp."""
    config = tmp_path / "config"
    config.write_text(
        f"Host elsewhere\n  RemoteForward {BACK.replace(':', ' ', 1)}\nHost *\n  LocalForward 18000 x:1\n"
    )
    everywhere = tmp_path / "everywhere"
    everywhere.write_text(f"RemoteForward {BACK.replace(':', ' ', 1)}\n")
    other = tmp_path / "my-client"
    shutil.copy(SSH, other)
    shared_daemon.watched("ks-test-ordinary")
    commands = [
        [SSH, *client(port, config=str(config))],
        [SSH, "-F", "none", "-p", str(port), "-D", "1080", "127.0.0.1", "ls", "-R", "/a:b:c"],
        [str(other), "-F", "none", "-p", str(port), "-L", "18001:localhost:1", "127.0.0.1", "ls", "-R", "/"],
        ["/usr/bin/scp", "-F", str(everywhere), "-P", str(port), "-r", str(tmp_path / "config"), "127.0.0.1:/tmp/x"],
    ]
    running = [shared_daemon.spawn("ks-test-ordinary", *command) for command in commands]
    shared_daemon.wait_for("renamed", lambda: "openssh-renamed" in rules(shared_daemon, "ks-test-ordinary"))
    w = shared_daemon.workload("ks-test-ordinary")
    assert w is not None and w.desired == Containment()
    # Of the renamed one the wire's rule thinks its own: it is no program that is known to speak SSH.
    assert rules(shared_daemon, "ks-test-ordinary") <= {"openssh-renamed", "ssh-banner-other-program"}
    del running[2]
    assert [p.poll() for p in running] == [None] * len(running)


def test_the_commands_of_a_configuration_are_judged_as_programs_of_their_own(
    shared_daemon: Daemon, tmp_path: Path, port: int
) -> None:
    """ProxyCommand: what the configuration has run is an exec like any other."""
    config = tmp_path / "config"
    config.write_text(f"ProxyCommand {SSH} -F none -p {port} -R {BACK} -W [%h]:%p 127.0.0.1\n")
    shared_daemon.watched("ks-test-proxy")
    shared_daemon.spawn("ks-test-proxy", SSH, *client(port, config=str(config)))
    assert is_cut_off(shared_daemon, "ks-test-proxy")


def test_nothing_of_a_configuration_is_run_by_looking_at_it(shared_daemon: Daemon, tmp_path: Path, port: int) -> None:
    ran, config = tmp_path / "ran", tmp_path / "config"
    config.write_text(f'Match exec "echo x >> {ran}"\n  User nobody\n')
    shared_daemon.watched("ks-test-exec")
    process = shared_daemon.spawn("ks-test-exec", SSH, *client(port, config=str(config)), stderr=subprocess.DEVNULL)
    shared_daemon.wait_for("ssh has asked it itself", lambda: ran.exists() and ran.read_text())
    assert process.poll() is None
    assert ran.read_text() == "x\n"
