"""Judging: how soon after its exec a program is judged, and what that costs the daemon, by what there is to be read."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import scene
from benchmarks.harness import Row
from tests.rig.build import program
from tests.rig.daemon import Daemon

USUAL = "/bin/true"
PAUSE = 0.003  # seconds between two programs: the daemon sleeps in between, as it does on most hosts
NEW = ("/bin/ls", "/usr/bin/git")  # a small and a large executable, copied so that nobody has read them
P50_MS, P99_MS = 1.0, 10.0


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process, to the nanosecond: its clock's number is made as clock_getcpuclockid(3) does."""
    return time.clock_gettime_ns(~pid << 3 | 2)


def with_pauses(cgroup: Path, count: int) -> int:
    enter = scene.entering(cgroup)
    script = f"i=0; while [ $i -lt {count} ]; do {USUAL}; sleep {PAUSE}; i=$((i+1)); done"
    subprocess.run(["/bin/sh", "-c", script], preexec_fn=enter, check=True)
    return 2 * count  # sleep is a program as well


def at_a_stretch(cgroup: Path, count: int) -> int:
    enter = scene.entering(cgroup)
    spawn = [program("spawn"), str(count), USUAL]
    subprocess.run(spawn, preexec_fn=enter, check=True, stdout=subprocess.DEVNULL)
    return count


def never_seen(source: str) -> Callable[[Path, int], int]:
    def run(cgroup: Path, count: int) -> int:
        enter = scene.entering(cgroup)
        with tempfile.TemporaryDirectory(prefix=scene.LABEL) as directory:
            for number in range(count):
                copy = shutil.copy(source, Path(directory, f"new{number}"))
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                subprocess.run([copy, "--version"], preexec_fn=enter, check=True, **quiet)
                Path(copy).unlink()
        return count

    return run


def rows(quick: bool) -> Iterator[Row]:
    many, few = (300, 30) if quick else (2000, 200)
    usual: list[tuple[str, Callable[[Path, int], int]]] = [
        (f"{USUAL}, with pauses", with_pauses),
        (f"{USUAL}, at a stretch", at_a_stretch),
    ]
    for what, run in usual:
        with Daemon(scene.LABEL) as daemon:
            cgroup = scene.make_workload(daemon, "measured")
            at_a_stretch(cgroup, 20)  # read for the first time
            assert daemon.process is not None
            time.sleep(1)
            began, cpu = time.monotonic(), cpu_ns(daemon.process.pid)
            time.sleep(1)
            idle = (cpu_ns(daemon.process.pid) - cpu) / (time.monotonic() - began)  # a second
            began, cpu = time.monotonic(), cpu_ns(daemon.process.pid)
            count = run(cgroup, many)
            time.sleep(0.5)  # forks and ends are told later
            spent = cpu_ns(daemon.process.pid) - cpu - idle * (time.monotonic() - began)
            told = daemon.client.status().holding
        for name, found, promised in (("p50", told.p50_ms, P50_MS), ("p99", told.p99_ms, P99_MS)):
            yield Row(
                "judging", f"exec to judged, {what}, {name}", f"{found:.2f} ms", f"≤ {promised:g} ms", found <= promised
            )
        yield Row(
            "judging",
            f"CPU of the daemon an exec, {what}",
            f"{spent / count / 1e6:.2f} ms",
            note="its fork and end with it",
        )
    for source in NEW:
        if not Path(source).exists():
            continue
        with Daemon(scene.LABEL) as daemon:
            never_seen(source)(scene.make_workload(daemon, "measured"), few)
            time.sleep(0.5)
            told = daemon.client.status().holding
        size = Path(source).stat().st_size
        yield Row(
            "judging", f"by its files, a copy of {source} that nobody has read, p50", f"{told.late_p50_ms:.1f} ms",
            note=f"p99 {told.late_p99_ms:.1f} ms; {size / 1e6:.1f} MB",
        )  # fmt: skip
