"""What still works under ``killswitch run`` with so much taken away, and how it fails when it cannot take it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.e2e.conftest import Daemon

AS_ROOT = r"""
set -e
d=$(mktemp -d /tmp/ks-test-XXXXXX); trap 'rm -r $d' EXIT
cd $d
echo '#include <stdio.h>
int main(void) { puts("built"); return 0; }' > a.c
gcc -o a a.c && ./a
install -o nobody -m 640 a.c owned && stat -c %U owned
setpriv --reuid=65534 --regid=65534 --clear-groups id -u
tar cf t.tar a && tar xf t.tar --same-owner
python3 -c 'import socket, subprocess, threading
socket.create_server(("127.0.0.1", 79)).close()
t = threading.Thread(target=print, args=("threads",)); t.start(); t.join()
subprocess.run(["sh", "-c", "sleep 0 & wait; echo children"])'
unshare -r sh -c 'echo user namespace $(id -u)'
pwd | grep -q ks-test && ls /proc | grep -c '^[0-9]' > /dev/null && echo proc
"""


def test_what_root_does_all_day(shared_daemon: Daemon) -> None:
    done = shared_daemon.cli("run", "--", "sh", "-c", AS_ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [
        "built", "nobody", "65534", "threads", "children", "user namespace 0", "proc",
    ]  # fmt: skip


def test_as_a_user(shared_daemon: Daemon) -> None:
    done = shared_daemon.cli(
        "run", "--user", "nobody", "--", "sh", "-c", "id -un; echo $USER; grep CapPrm /proc/self/status"
    )
    assert done.stdout.split() == ["nobody", "nobody", "CapPrm:", "0000000000000000"]


def test_a_user_keeps_a_capability_by_name(shared_daemon: Daemon) -> None:
    done = shared_daemon.cli(
        "run", "--user", "nobody", "--cap-add", "net_bind_service", "--", "grep", "CapEff", "/proc/self/status"
    )
    assert (int(done.stdout.split()[1], 16), done.stderr) == (1 << 10, "")


def test_what_defeats_containment_is_warned_about(shared_daemon: Daemon) -> None:
    done = shared_daemon.cli("run", "--cap-add", "sys_admin", "--", "true")
    assert done.returncode == 0
    assert done.stderr.startswith("killswitch: warning: CMD keeps CAP_SYS_ADMIN: mounts")


def test_unconfined_is_as_it_was(shared_daemon: Daemon) -> None:
    done = shared_daemon.cli(
        "run", "--unconfined", "--", "sh", "-c", "grep -E 'NoNew|Seccomp:' /proc/self/status; echo $$"
    )
    *_, privs, _, seccomp, pid = done.stdout.split()
    assert (privs, seccomp) == ("0", "0")
    assert int(pid) > 2


def test_where_it_cannot_be_taken_nothing_runs(shared_daemon: Daemon, tmp_path: Path) -> None:
    """As in a container: root, but without CAP_SYS_ADMIN."""
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-m", "killswitch", "run", "--", "touch", tmp_path / "ran"],
        env=shared_daemon.env, capture_output=True, text=True, check=False, timeout=60, cwd="/",
    )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr.startswith("killswitch: confine: it takes CAP_SYS_ADMIN")
    assert "--unconfined" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert not shared_daemon.client.workloads()


def test_run_is_killed_and_the_workload_lives_on(shared_daemon: Daemon, tmp_path: Path) -> None:
    """Its init holds the pid namespace until the last of its processes has ended, and then goes, too."""
    process = subprocess.Popen(
        [sys.executable, "-m", "killswitch", "run", "--name", "job", "--", "sh", "-c",
         f"until [ -e {tmp_path}/end ]; do sleep 0.05; done; touch {tmp_path}/done"],
        env=shared_daemon.env, cwd="/",
    )  # fmt: skip

    def inits() -> list[psutil.Process]:
        return [c for c in psutil.Process(process.pid).children() if c.name() == "killswitch-init"]

    shared_daemon.wait_for("it runs", lambda: any(w.processes for w in shared_daemon.client.workloads()))
    [init] = inits()
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    [w] = shared_daemon.client.workloads()
    assert w.processes >= 1
    (tmp_path / "end").touch()
    shared_daemon.wait_for("it ended by itself", (tmp_path / "done").exists)
    shared_daemon.wait_for("no init left", lambda: not init.is_running() or init.status() == psutil.STATUS_ZOMBIE)
