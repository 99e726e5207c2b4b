"""From an operator's Kill call to severed and to frozen, idle and while other workloads flood the daemon with events."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import scene
from benchmarks.harness import Row, percentile
from killswitch.commands import Outcome, Step
from killswitch.control.client import Client
from tests.rig.build import program
from tests.rig.daemon import Daemon

TARGET_MS = 20.0


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds from just before the call: by the receipts' own clock (the same on one host), and to the reply."""

    severed: float
    frozen: float
    replied: float


@contextmanager
def crowd(cgroup: Path, count: int) -> Iterator[None]:
    """``count`` sleeping processes in the cgroup."""
    process = subprocess.Popen(
        [program("crowd"), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=scene.entering(cgroup),
    )
    assert process.stdin and process.stdout
    process.stdout.readline()
    try:
        yield
    finally:
        process.stdin.close()
        process.wait(30)


@contextmanager
def flood(daemon: Daemon) -> Iterator[None]:
    """Another watched workload that starts programs and connects as fast as it can."""
    cgroup = scene.make_workload(daemon, "flood")
    commands = (
        (str(program("spawn")), "100000000", str(program("nothing"))),
        (str(program("loopback")), "connect", "100000000"),
    )
    running = [subprocess.Popen(c, stdout=subprocess.DEVNULL, preexec_fn=scene.entering(cgroup)) for c in commands]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def kill_once(client: Client, name: str) -> Times:
    """One Kill, then a release. Raises RuntimeError unless both steps are done and proven."""
    started = time.monotonic_ns()
    result = client.kill(name, reason="benchmark", request_id=uuid.uuid4().hex)
    replied = time.monotonic_ns()
    at = {r.step: r for r in result.receipts}
    for step in (Step.SEVER, Step.FREEZE):
        if step not in at or at[step].outcome is not Outcome.DONE:
            raise RuntimeError(f"kill {name}: {step} was not done: {result.receipts}")
    client.release(name, reason="benchmark", stage="all")
    return Times(*((t - started) / 1e6 for t in (at[Step.SEVER].finished_ns, at[Step.FREEZE].finished_ns, replied)))


def rows(quick: bool) -> Iterator[Row]:
    tries = 20 if quick else 200
    with Daemon(scene.LABEL) as daemon:
        client = daemon.client
        for count in (1, 100, 500):
            name = f"crowd{count}"
            with crowd(scene.make_workload(daemon, name), count):
                yield from _measure(client, name, count, tries, "idle")
                with flood(daemon):
                    yield from _measure(client, name, count, tries, "under a flood")
            time.sleep(0.2)


def _measure(client: Client, name: str, count: int, tries: int, when: str) -> Iterator[Row]:
    times = [kill_once(client, name) for _ in range(tries)]
    for what in ("severed", "frozen", "replied"):
        values = [getattr(t, what) for t in times]
        p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
        promised = what != "replied" and count == 500
        plural = "process" if count == 1 else "processes"
        yield Row(
            "kill",
            f"Kill → {what}, {count} {plural}, {when}",
            f"p50 {p50:.2f} ms, p99 {p99:.2f} ms",
            f"p99 ≤ {TARGET_MS:.0f} ms" if promised else "",
            p99 <= TARGET_MS if promised else None,
            f"{tries} kills",
        )
