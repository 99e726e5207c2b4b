"""Miners and tunnel tools under other names, told by content, arguments and files; a client started by others.

No mining software: the stand-in is a program of our own that holds words and sleeps. socat and Dropbear's client are real.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.commands import Containment
from tests.rig.daemon import Daemon
from tests.rig.netns import FarSide

CUT_OFF = Containment(severed=True, frozen=True)
SLEEPS = (
    "#include <unistd.h>\nconst char *volatile words[] = {%s};\nint main(void) { sleep(30); return words[0] == 0; }\n"
)
CONFIG = '{"donate-level": 1, "pools": [{"url": "pool.example:3333", "user": "48x", "algo": null}]}'


def built(folder: Path, name: str, *words: str) -> Path:
    source, program = folder / f"{name}.c", folder / name
    source.write_text(SLEEPS % ", ".join(f'"{w}"' for w in words or ("nothing",)))
    subprocess.run(["gcc", "-s", "-O1", "-o", program, source], check=True)
    return program


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


def rules(daemon: Daemon, name: str) -> set[str]:
    cgroup = f"{daemon.cgroup_parent}/{name}"
    return {f.rule for i in daemon.client.incidents() if i.cgroup == cgroup for f in i.findings}


def runs(daemon: Daemon, name: str, *command: str) -> set[str]:
    """The rules that found it, once its workload is cut off."""
    daemon.watched(name)
    daemon.spawn(name, *command)
    daemon.wait_for("cut off", lambda: (w := daemon.workload(name)) and w.observed == CUT_OFF)
    return rules(daemon, name)


def test_a_miner_is_known_by_its_content(shared_daemon: Daemon, tmp_path: Path) -> None:
    words = ("donate-level", "rx/wow", "cpu-no-yield", "randomx-wrmsr", "stratum+tcp://", "huge-pages-jit", "rig-id")
    assert "miner-by-content" in runs(shared_daemon, "ks-test-content", str(built(tmp_path, "trainer", *words)))


@pytest.mark.parametrize("how", ["-c", "--config=", "beside"])
def test_a_miners_configuration_is_read(how: str, shared_daemon: Daemon, tmp_path: Path) -> None:
    program, file = built(tmp_path, "trainer"), tmp_path / ("config.json" if how == "beside" else "settings")
    file.write_text(CONFIG)
    arguments = {"-c": ["-c", str(file)], "--config=": [f"--config={file}"], "beside": []}[how]
    found = runs(shared_daemon, f"ks-test-miner{'-' if how == 'beside' else ''}{len(how)}", str(program), *arguments)
    assert "miner-config" in found


def test_a_relay_by_socat_under_another_name_is_stopped(
    shared_daemon: Daemon, tmp_path: Path, port: int, far: FarSide
) -> None:
    relay = shutil.copy("/usr/bin/socat", tmp_path / "relay")
    line = [str(relay), f"TCP:{far.far4}:9,retry=100,interval=0.2", f"TCP:127.0.0.1:{port}"]
    assert "connections-joined" in runs(shared_daemon, "ks-test-socat", *line)


def test_dropbears_client_under_another_name_is_stopped(shared_daemon: Daemon, tmp_path: Path, port: int) -> None:
    client = shutil.copy("/usr/bin/dbclient", tmp_path / "helper")
    line = [str(client), "-p", str(port), "-y", "-y", "-N", "-R", "9000:localhost:22", "127.0.0.1"]
    assert "reverse-tunnel-tool" in runs(shared_daemon, "ks-test-dropbear", *line)


BEHIND = [
    "env A=b", "nohup", "setsid -w", "timeout 20", "nice", "stdbuf -o0", "sh -c 'exec \"$@\"' sh", "bash -c '\"$@\"; :' bash",
    "bash -c 'exec -a x \"$@\"' bash", "busybox sh -c '\"$@\"' sh", "busybox timeout 20", "perl -e 'exec @ARGV'",
    "python3 -c 'import os,sys; os.execv(sys.argv[1],sys.argv[1:])'", "xargs -a /dev/null", "unshare -m",
    "find /etc/hostname -exec", "script -qec 'LINE' /dev/null", "flock /dev/null", "autossh -M 0",
]  # fmt: skip


@pytest.mark.parametrize("behind", BEHIND)
def test_whatever_runs_the_client_the_client_itself_is_judged(behind: str, shared_daemon: Daemon, port: int) -> None:
    name = f"ks-test-behind-{BEHIND.index(behind)}"
    client = f"/usr/bin/ssh -F none -p {port} -NR 9000:localhost:22 127.0.0.1"
    line = f"{behind} {client}"
    if "LINE" in behind:
        line = behind.replace("LINE", client)
    elif behind.startswith("find"):
        line += " ';'"
    elif behind.startswith("autossh"):
        line = client.replace("/usr/bin/ssh", behind)
    # autossh is cut off before it has started its client: a tunnel program's name, and a tunnel's arguments.
    assert {"reverse-ssh-tunnel", "tunnel-two-kinds"} & runs(shared_daemon, name, "/bin/bash", "-c", line)


def test_ordinary_tools_and_files_are_left_alone(shared_daemon: Daemon, tmp_path: Path, port: int) -> None:
    name = "ks-test-plain"
    few = built(tmp_path, "scanner", "stratum+tcp://", "mining.subscribe", "cryptonight", "donate-level")
    (tmp_path / "miner.json").write_text(CONFIG)
    (tmp_path / "app.json").write_text('{"url": "postgres://db", "user": "x", "pools": [1], "algo": "lru"}')
    shared_daemon.watched(name)
    lines = [
        [str(few), "-c", str(tmp_path / "app.json")],
        [
            "/usr/bin/socat",
            f"TCP-LISTEN:{port + 1 if port < 65535 else 2048},bind=127.0.0.1,fork",
            f"TCP:127.0.0.1:{port}",
        ],
        [
            "/bin/sh",
            "-c",
            f"cat {tmp_path}/miner.json; grep -c pools {tmp_path}/miner.json; cp {tmp_path}/miner.json {tmp_path}/b",
        ],
        [
            "/bin/sh",
            "-c",
            f"tar cf {tmp_path}/x.tar -C {tmp_path} miner.json; sha256sum {tmp_path}/miner.json; sleep 20",
        ],
    ]
    for line in lines:
        shared_daemon.spawn(name, *line)
    shared_daemon.wait_for("all ran", lambda: (tmp_path / "x.tar").exists() and (tmp_path / "b").exists())
    # One more thing that is found, after all of these: then they have been judged.
    shared_daemon.spawn(
        name, shutil.copy("/usr/bin/ssh", tmp_path / "other"), "-F", "none", "-p", str(port), "127.0.0.1"
    )
    shared_daemon.wait_for("the last was judged", lambda: "openssh-renamed" in rules(shared_daemon, name))
    w = shared_daemon.workload(name)
    assert w is not None and w.desired == Containment()
    assert rules(shared_daemon, name) <= {"openssh-renamed", "ssh-banner-other-program"}
