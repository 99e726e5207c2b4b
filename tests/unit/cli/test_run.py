"""``killswitch run`` as a process, on a directory that stands for a cgroup: its file is joined as a real one is."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from killswitch.commands import FREE
from killswitch.errors import Denied
from tests.unit.cli.house import SEVERED_FROZEN, House, Served, workload

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def cgroup(tmp_path: Path, house: House) -> Path:
    (tmp_path / "cgroup.procs").touch()
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    house.watching = workload("job", path=str(tmp_path), processes=0)
    house.watched = [house.watching]
    return tmp_path


@pytest.fixture
def run(served: Served, cgroup: Path) -> Iterator[Run]:
    started: list[subprocess.Popen[str]] = []

    def start(*command: str, by: tuple[str, ...] = (), **options: object) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "KILLSWITCH_RUNTIME_DIR": str(served.runtime),
            "KILLSWITCH_CGROUP_PARENT": "/ks-test",
        }
        process = subprocess.Popen(
            [*by, sys.executable, "-m", "killswitch", "run", "--name", "job", *command],
            env=environment, text=True, cwd=Path(__file__).parents[3],
            **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options),  # type: ignore[call-overload]
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "not seen in 20 s"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("kill -INT $$", 130)],
)
def test_the_exit_status_is_the_commands(run: Run, house: House, script: str, status: int) -> None:
    process = run("--", "sh", "-c", script)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == status
    (watch, order, more), (unwatch, last, removed) = house.told
    assert (watch, more) == ("watch", {"name": "job", "create": True})
    assert order.target.startswith("/ks-test/job-")
    assert (unwatch, last.target, removed) == ("unwatch", "4711", {"remove": True})


def test_it_joins_before_it_becomes_the_command(run: Run, cgroup: Path) -> None:
    process = run("--", "cat", str(cgroup / "cgroup.procs"))
    assert process.communicate(timeout=30)[0] == "0"


def test_the_command_has_our_input_and_ordinary_signals(run: Run) -> None:
    process = run("--", "sh", "-c", "cat; grep -E 'Sig(Blk|Ign)' /proc/self/status", stdin=subprocess.PIPE)
    out, _ = process.communicate("hello\n", timeout=30)
    said, *masks = out.splitlines()
    assert said == "hello"
    assert [int(line.split()[1], 16) for line in masks] == [0, 0]


def test_no_descriptor_leaks_into_the_command(run: Run) -> None:
    out, _ = run("--", "ls", "/proc/self/fd").communicate(timeout=30)
    assert out.split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads


def test_no_such_command(run: Run, house: House, tmp_path: Path) -> None:
    process = run("--", "ks-test-no-such-command")
    assert process.communicate(timeout=30)[1] == "killswitch: ks-test-no-such-command: no such command in PATH\n"
    assert process.returncode == 127
    (tmp_path / "data").touch()
    process = run("--", str(tmp_path / "data"))
    assert "is not executable" in process.communicate(timeout=30)[1]
    assert process.returncode == 126
    assert house.told == []  # neither made a workload


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        ("#!/nonexistent/interpreter\n", 127, "interpreter"),
        ("\x00\x01 no program", 126, "neither a program nor a script"),
    ],
)
def test_what_exec_refuses_leaves_no_workload(
    run: Run, house: House, tmp_path: Path, content: str, status: int, said: str
) -> None:
    program = tmp_path / "program"
    program.write_text(content)
    program.chmod(0o755)
    process = run("--", str(program))
    assert said in process.communicate(timeout=30)[1]
    assert process.returncode == status
    assert [kind for kind, _, _ in house.told] == ["watch", "unwatch"]


def test_a_cgroup_that_cannot_be_joined(run: Run, house: House, cgroup: Path) -> None:
    (cgroup / "cgroup.procs").unlink()
    process = run("--", "touch", str(cgroup / "ran"))
    assert "cannot be joined: No such file or directory" in process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert not (cgroup / "ran").exists()
    assert house.told[-1][0] == "unwatch"


def test_without_the_daemons_word_nothing_runs(run: Run, house: House, cgroup: Path) -> None:
    house.error = Denied("role view may not watch")
    process = run("--", "touch", str(cgroup / "ran"))
    assert process.communicate(timeout=30)[1] == "killswitch: role view may not watch\n"
    assert process.returncode == 4
    assert not (cgroup / "ran").exists()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_sent_to_us_is_handed_on(run: Run, cgroup: Path, sent: signal.Signals) -> None:
    name = sent.name.removeprefix("SIG")
    process = run("--", "sh", "-c", f"trap 'exit 33' {name}; touch {cgroup}/ready; while :; do sleep 0.02; done")
    until((cgroup / "ready").exists)
    process.send_signal(sent)
    process.communicate(timeout=30)
    assert process.returncode == 33


def test_told_to_end_while_frozen_it_says_so_and_leaves(run: Run, house: House, cgroup: Path) -> None:
    process = run("--", "sh", "-c", f"trap '' INT; touch {cgroup}/ready; exec sleep 60 >/dev/null 2>&1")
    until((cgroup / "ready").exists)
    [child] = [c.pid for c in psutil.Process(process.pid).children() if c.name() != "killswitch-init"]
    try:
        (cgroup / "cgroup.events").write_text("populated 1\nfrozen 1\n")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 5
        assert said.startswith("killswitch: job was frozen and cannot hear you")
        assert "left job as it is: frozen" in said
        assert "killswitch release job --reason TEXT" in said
        assert [kind for kind, _, _ in house.told] == ["watch"]  # it stays
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_contained_workload_is_kept_and_named(run: Run, house: House, cgroup: Path) -> None:
    house.watched = [
        workload(
            "job", path=str(cgroup), desired=SEVERED_FROZEN, observed=SEVERED_FROZEN, incident="inc-3", processes=0
        )
    ]
    process = run("--", "true")
    said = process.communicate(timeout=30)[1]
    assert said == "killswitch: workload job was contained: incident inc-3 (killswitch incidents inc-3)\n"
    assert process.returncode == 0
    assert [kind for kind, _, _ in house.told] == ["watch", "unwatch"]  # the daemon has the last word: it was refused


def test_what_a_monitoring_rule_found_is_named_though_its_workload_goes(run: Run, house: House, cgroup: Path) -> None:
    house.watched = [workload("job", path=str(cgroup), incident="inc-3", processes=0)]
    said = run("--", "true").communicate(timeout=30)[1]
    assert said == "killswitch: workload job was reported: incident inc-3 (killswitch incidents inc-3)\n"
    assert [kind for kind, _, _ in house.told] == ["watch", "unwatch"]


def test_leftover_processes_keep_it_watched(run: Run, house: House, cgroup: Path) -> None:
    house.watched = [workload("job", path=str(cgroup), processes=2)]
    said = run("--", "true").communicate(timeout=30)[1]
    assert said == "killswitch: workload job has 2 processes left, and stays watched (killswitch workloads)\n"
    assert [kind for kind, _, _ in house.told] == ["watch", "unwatch"]


def test_a_workload_that_no_policy_watches_is_warned_about(run: Run, house: House, cgroup: Path) -> None:
    house.watching = workload("job", path=str(cgroup), policies=(), desired=FREE)
    said = run("--", "true").communicate(timeout=30)[1]
    assert said.startswith("killswitch: warning: no policy watches /killswitch/job")


def test_an_interactive_shell_has_job_control(run: Run) -> None:
    """On a terminal of its own: Ctrl-Z stops the shell's job, fg goes on, Ctrl-C ends it, exit leaves."""
    ours, theirs = pty.openpty()
    process = run(
        "--", "bash", "--norc", "--noprofile", "-i", by=("setsid", "-c"), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""

    def read_until(wanted: bytes) -> None:
        nonlocal seen
        end = time.monotonic() + 20
        while wanted not in seen:
            assert time.monotonic() < end, seen
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 4096)
        seen = seen.partition(wanted)[2]

    try:
        os.write(ours, b"PS1='rea''dy> '\n")
        read_until(b"ready> ")
        shell = os.tcgetpgrp(ours)
        job = b"sh -c 'echo run''ning; exec sleep 100'\n"
        os.write(ours, job)
        read_until(b"running")
        os.write(ours, b"\x1a")
        read_until(b"Stopped")
        read_until(b"ready> ")
        os.write(ours, b"fg\n")
        read_until(b"sleep 100")
        until(lambda: os.tcgetpgrp(ours) != shell)
        os.write(ours, b"\x03")
        read_until(b"ready> ")
        os.write(ours, b"echo status=$?\n")
        read_until(b"status=130")
        read_until(b"ready> ")
        os.write(ours, b"exit 9\n")
        assert process.wait(30) == 9
    finally:
        os.close(ours)


def test_after_an_interactive_shell_the_terminal_is_ours_again(run: Run) -> None:
    """A script that goes on to read from it would otherwise be refused, as a background process."""
    ours, theirs = pty.openpty()
    script = '"$@"; read line; echo "got:$line"; exit 5'
    process = run(
        "--", "bash", "--norc", "--noprofile", "-i",
        by=("setsid", "-c", "sh", "-c", script, "sh"), stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        os.write(ours, b"PS1='rea''dy> '\n")
        for wanted, answer in ((b"ready> ", b"exit\n"), (b"exit", b""), (b"\n", b"word\n"), (b"got:word", b"")):
            end = time.monotonic() + 20
            while wanted not in seen:
                assert time.monotonic() < end, seen
                if select.select([ours], [], [], 0.2)[0]:
                    seen += os.read(ours, 4096)
            seen = seen.partition(wanted)[2]
            os.write(ours, answer)
        assert process.wait(30) == 5
    finally:
        os.close(ours)
