"""A storm of forks is frozen: a thousand processes that fork as fast as they can."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import scene
from benchmarks.proof.figures import Figure, count, spread
from killswitch.commands import Outcome, Step
from tests.rig.build import program
from tests.rig.daemon import Daemon

LIMIT_MS = 100.0
RAGE = 0.3  # seconds between a release and the next kill
LOOK = 0.1  # seconds over which nothing of it may run


@contextmanager
def storm(cgroup: Path, processes: int) -> Iterator[None]:
    """While entered, so many processes fork in the cgroup. It bounds itself: each has one child at a time."""
    process = subprocess.Popen(
        [program("storm"), str(processes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=scene.entering(cgroup),
    )
    assert process.stdin and process.stdout
    try:
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the storm of {processes} processes did not come up")
        yield
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def frozen(freezes: int, processes: int, *, label: str = scene.LABEL) -> Iterator[Figure]:
    """Killed by order and released again, so many times. Seen by the kernel's own files, not by the receipts alone."""
    times: list[float] = []
    severed: list[float] = []
    proven = 0
    least = processes * 2
    with Daemon(label) as daemon:
        cgroup = scene.make_workload(daemon, "storm")
        with storm(cgroup, processes), scheduling_class(os.SCHED_RR):
            for _ in range(freezes):
                time.sleep(RAGE)
                started = time.monotonic_ns()
                result = daemon.client.kill("storm", reason="proof", request_id=uuid.uuid4().hex)
                at = {r.step: r for r in result.receipts}
                whom, used = _processes(cgroup), _cpu_usec(cgroup)
                time.sleep(LOOK)
                least = min(least, len(whom))
                proven += (
                    at[Step.FREEZE].outcome is Outcome.DONE
                    and "fallback" not in at[Step.FREEZE].proof
                    and "frozen 1" in (cgroup / "cgroup.events").read_text()
                    and _cpu_usec(cgroup) == used
                    and _processes(cgroup) == whom
                )
                times.append((at[Step.FREEZE].finished_ns - started) / 1e6)
                severed.append((at[Step.SEVER].finished_ns - started) / 1e6)
                daemon.client.release("storm", reason="proof", stage="all")
    what = f"{processes:,} processes that fork as fast as they can"
    yield count("storms", f"{what}: frozen, and not one forked or ran", freezes, proven, freezes)
    yield Figure(
        "storms", f"{what}: fewest found frozen", freezes, f"{least:,}", f"≥ {processes:,}", least >= processes
    )
    yield spread("storms", f"{what}: from the order to severed", severed, None)
    yield spread("storms", f"{what}: from the order to frozen and proven so", times, LIMIT_MS)


@contextmanager
def scheduling_class(kind: int) -> Iterator[None]:
    """Who asks has to get a CPU, too, and that is not what is measured. Threads made while entered are of this class."""
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, kind, os.sched_param(os.sched_get_priority_min(kind)))
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


def _processes(cgroup: Path) -> set[str]:
    return set((cgroup / "cgroup.procs").read_text().split())


def _cpu_usec(cgroup: Path) -> int:
    return int((cgroup / "cpu.stat").read_text().split()[1])
