"""How many events a second the daemon can take: ring → decode → judge, in the daemon's own process shape (one thread).

Two figures. The first empties rings that were filled while nobody read them, so that the producers cost nothing: what the
reader can do. The second counts what a real daemon took in, and lost, while two programs made events as fast as they could.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import scene
from benchmarks.harness import Row
from benchmarks.kill import flood
from killswitch.config import SHIPPED_POLICIES
from killswitch.engine import Engine
from killswitch.events import WorkloadAdded
from killswitch.kernel.dataplane import DataPlane
from killswitch.policy.compile import compile_policies
from killswitch.policy.load import load_text
from tests.rig import clean_host
from tests.rig.build import program
from tests.rig.daemon import WATCHED, Daemon

BATCH = 256  # as the daemon drains
TARGET = 100_000


def rows(quick: bool) -> Iterator[Row]:
    root = clean_host.cgroup_root()
    assert root is not None
    name = f"{scene.LABEL}-{os.getpid()}-events"
    cgroup, pins = root / name, Path("/sys/fs/bpf", name)
    cgroup.mkdir()
    plane = DataPlane.open(pins, cgroup_mount=root)
    try:
        policies = [
            load_text(f.read_text().replace(WATCHED, f"/{name}"), f.name)
            for f in sorted(SHIPPED_POLICIES.glob("*.yaml"))
        ]
        compiled = compile_policies(policies)
        yield from _backlog(plane, cgroup, compiled, 3 if quick else 10)
    finally:
        plane.remove()
        clean_host.remove_cgroup(cgroup)
    yield from _live(5 if quick else 15)


def _backlog(plane: DataPlane, cgroup: Path, compiled: object, rounds: int) -> Iterator[Row]:
    from dataclasses import replace

    compiled = replace(compiled, generation=1)  # type: ignore[type-var]
    plane.load_policy(compiled.tables, 1)
    identity = cgroup.stat().st_ino
    plane.watch(identity, cgroup, 1)
    engine = Engine(compiled)
    engine.handle(WorkloadAdded(0, identity, "events", f"/{cgroup.name}", (0,)))
    events, seconds = 0, 0.0
    for _ in range(rounds):
        for command in (["spawn", "2500", str(program("nothing"))], ["loopback", "connect", "4000"]):
            enter = lambda: (cgroup / "cgroup.procs").write_text("0") and None  # noqa: E731
            subprocess.run([program(command[0]), *command[1:]], preexec_fn=enter, stdout=subprocess.DEVNULL, check=True)
        started = time.perf_counter()
        while batch := plane.drain(BATCH):
            for event in batch:
                engine.handle(event)
            events += len(batch)
        seconds += time.perf_counter() - started
    lost = sum(loss.count for loss in plane.losses())
    rate = events / seconds
    note = f"{events:,} events, {lost} lost; exec, fork, exit, connect"
    yield Row(
        "events",
        "ring → decode → judge, one thread",
        f"{rate:,.0f}/s",
        f"≥ {TARGET:,}/s",
        rate >= TARGET and not lost,
        note,
    )


def _live(seconds: float) -> Iterator[Row]:
    with Daemon(scene.LABEL) as daemon, flood(daemon):
        before = daemon.client.status()
        time.sleep(seconds)
        after = daemon.client.status()
    taken = (after.events - before.events) / seconds
    lost = sum(after.lost.values()) - sum(before.lost.values())
    yield Row(
        "events",
        "a flood by two programs, as the daemon took it in",
        f"{taken:,.0f}/s",
        "0 lost",
        lost == 0,
        f"{lost} lost",
    )
