"""``killswitch run`` and the orders, as a user gives them, against the real daemon and the real kernel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.rig.daemon import Daemon


def run(daemon: Daemon, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "killswitch", "run", *arguments],
        env=daemon.env, text=True, cwd="/",
        **({"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
    )  # fmt: skip


def of(daemon: Daemon, *arguments: str) -> Any:
    """What a command answers in JSON."""
    done = daemon.cli(*arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def left(daemon: Daemon) -> list[str]:
    return sorted(p.name for p in daemon.cgroup_dir.iterdir() if p.is_dir())


@pytest.fixture
def frozen_sleep(daemon: Daemon) -> subprocess.Popen[str]:
    """``killswitch run --name job -- sleep`` that was killed (severed and frozen) by hand."""
    process = run(daemon, "--name", "job", "--", "sh", "-c", "exec sleep 600 >/dev/null 2>&1")
    daemon.wait_for("sleep runs", lambda: any(w["processes"] for w in of(daemon, "workloads")))
    assert daemon.cli("kill", "job", "--reason", "test").returncode == 0
    return process


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -TERM $$", 143)])
def test_run_gives_back_the_status_and_leaves_nothing(shared_daemon: Daemon, script: str, status: int) -> None:
    done = shared_daemon.cli("run", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert left(shared_daemon) == []
    assert of(shared_daemon, "workloads") == []


def test_the_command_is_in_its_cgroup_from_the_first_instruction(shared_daemon: Daemon) -> None:
    out = shared_daemon.cli("run", "--name", "job", "--", "cat", "/proc/self/cgroup").stdout
    [line] = [line for line in out.splitlines() if line.startswith("0::")]
    assert line.startswith(f"0::{shared_daemon.cgroup_parent}/job-")


def test_the_command_itself_is_judged(daemon: Daemon, tmp_path: Path) -> None:
    """The very first exec: a miner by name is killed before its first instruction, and the incident is named."""
    miner, trace = tmp_path / "xmrig", tmp_path / "ran"
    shutil.copy("/usr/bin/touch", miner)
    done = daemon.cli("run", "--name", "job", "--", str(miner), str(trace))
    assert done.returncode == 137
    assert not trace.exists()
    assert "workload job was contained: incident inc-1 (killswitch incidents inc-1)" in done.stderr
    [workload] = of(daemon, "workloads")
    assert workload["desired"] == workload["observed"] == "severed+frozen"
    incident = of(daemon, "incidents", "inc-1")
    assert incident["findings"][0]["event"]["executable"] == str(miner)
    assert incident["findings"][0]["event"]["args"] == [str(miner), str(trace)]
    assert "kill_process" in incident["findings"][0]["done_in_kernel"]


def test_leftover_processes_stay_watched(daemon: Daemon) -> None:
    done = daemon.cli("run", "--name", "job", "--", "sh", "-c", "sleep 600 >/dev/null 2>&1 </dev/null & exit 3")
    assert done.returncode == 3
    assert done.stderr == "killswitch: workload job has 1 process left, and stays watched (killswitch workloads)\n"
    assert [w["processes"] for w in of(daemon, "workloads")] == [1]
    assert daemon.cli("terminate", "job", "--reason", "test").returncode == 0


def test_told_to_end_while_frozen(daemon: Daemon, frozen_sleep: subprocess.Popen[str]) -> None:
    frozen_sleep.send_signal(signal.SIGINT)
    _, said = frozen_sleep.communicate(timeout=30)
    assert frozen_sleep.returncode == 5
    assert "job was frozen and cannot hear you" in said
    assert "left job as it is: frozen" in said
    [workload] = of(daemon, "workloads")
    assert (workload["observed"], workload["processes"]) == ("severed+frozen", 1)


def test_released_it_runs_on_to_its_own_end(daemon: Daemon, frozen_sleep: subprocess.Popen[str]) -> None:
    assert daemon.cli("release", "job", "--reason", "test").returncode == 0
    assert [w["observed"] for w in of(daemon, "workloads")] == ["free"]
    frozen_sleep.send_signal(signal.SIGTERM)  # handed on
    frozen_sleep.communicate(timeout=30)
    assert frozen_sleep.returncode == 128 + signal.SIGTERM
    assert left(daemon) == []


def test_terminated_while_it_runs(daemon: Daemon) -> None:
    process = run(daemon, "--name", "job", "--", "sleep", "600")
    daemon.wait_for("sleep runs", lambda: any(w["processes"] for w in of(daemon, "workloads")))
    assert daemon.cli("kill", "job", "--reason", "test", "--terminate").returncode == 0
    _, said = process.communicate(timeout=30)
    assert process.returncode == 137
    assert "workload job was contained: incident inc-1" in said


def test_a_name_is_taken_once(daemon: Daemon, frozen_sleep: subprocess.Popen[str]) -> None:
    second = daemon.cli("run", "--name", "job", "--", "true")
    assert second.returncode == 1
    assert "job" in second.stderr
    assert len(left(daemon)) == 1
    frozen_sleep.send_signal(signal.SIGINT)
    frozen_sleep.communicate(timeout=30)


def test_the_daemon_dies_while_the_command_runs(daemon: Daemon) -> None:
    process = run(daemon, "--name", "job", "--", "sh", "-c", "read line; exit 4", stdin=subprocess.PIPE)
    daemon.wait_for("it runs", lambda: any(w["processes"] for w in of(daemon, "workloads")))
    daemon.kill9()
    _, said = process.communicate("\n", timeout=30)
    assert process.returncode == 4
    assert "workload job could not be cleaned up" in said


def test_every_reading_command_and_every_format(daemon: Daemon, frozen_sleep: subprocess.Popen[str]) -> None:
    """On what the real daemon says, not on what a test made up."""
    for command in (["status"], ["workloads"], ["incidents"], ["incidents", "inc-1"], ["events"], ["evidence", "inc-1"],
                    ["doctor"], ["verify-log"], ["policy", "list"], ["policy", "explain", "--tier"]):  # fmt: skip
        for output in ("table", "json", "yaml"):
            done = daemon.cli(*command, "-o", output)
            assert done.returncode == 0, f"{command} {output}: {done.stderr}"
            assert done.stdout.strip(), f"{command} {output}"
            assert "\x1b" not in done.stdout
    frozen_sleep.send_signal(signal.SIGINT)
    frozen_sleep.communicate(timeout=30)


def test_followed_events_show_the_exec_of_a_run(shared_daemon: Daemon) -> None:
    follower = subprocess.Popen(
        [sys.executable, "-u", "-m", "killswitch", "events", "-f", "-k", "exec", "-o", "json"],
        env=shared_daemon.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
    )  # fmt: skip
    try:
        assert follower.stdout
        os.set_blocking(follower.stdout.fileno(), False)
        seen: list[str] = []

        def exec_seen() -> bool:
            shared_daemon.cli("run", "--name", "job", "--", "/bin/echo", "a\x1b[1mb", "c\nd")
            seen.extend(follower.stdout.readlines())  # type: ignore[union-attr]
            return any("echo" in line for line in seen)

        shared_daemon.wait_for("the exec of echo", exec_seen)
        [event, *_] = [json.loads(line)["event"] for line in seen if "echo" in line]
        assert event["args"] == ["/bin/echo", "a\x1b[1mb", "c\nd"]
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=30)
        assert follower.returncode == 130
    finally:
        if follower.poll() is None:
            follower.kill()
            follower.communicate()


def test_without_root_nothing_runs(shared_daemon: Daemon) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run(
        [*nobody, sys.executable, "-m", "killswitch", "run", "true"],
        env=shared_daemon.env, capture_output=True, text=True, check=False, timeout=60, cwd="/",
    )  # fmt: skip
    assert done.returncode in (3, 4)
    assert done.stderr.startswith("killswitch: ")
    assert "Traceback" not in done.stderr
