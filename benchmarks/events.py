"""How many events a second the daemon can take in: ring → decode → judge, by its own pump and reactor, on one thread.

Two figures. The first empties rings that were filled while nobody read them, so that the producers cost nothing: what the
reader can do. It is the daemon, armed as it arms itself, in this process, but for the control plane. The second counts
what a daemon of its own took in, and lost, while two programs made events as fast as they could.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from benchmarks import scene
from benchmarks.harness import Row
from benchmarks.kill import flood
from killswitch.config import SHIPPED_POLICIES, Config
from killswitch.daemon import app, process
from killswitch.kernel import scheduling
from tests.rig import clean_host
from tests.rig.build import program
from tests.rig.daemon import WATCHED, Daemon

TARGET = 100_000
PRODUCERS = (("spawn", "2500", str(program("nothing"))), ("loopback", "connect", "4000"))  # what the rings can hold


def rows(quick: bool) -> Iterator[Row]:
    process.prepare()
    try:
        yield asyncio.run(_backlog(3 if quick else 10))
    finally:
        scheduling.ordinary(0)
    yield from _live(5 if quick else 15)


async def _backlog(rounds: int) -> Row:
    root = clean_host.cgroup_root()
    assert root is not None
    name = f"{scene.LABEL}-{os.getpid()}-events"
    cgroup = root / name / "one"
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    for file in SHIPPED_POLICIES.glob("*.yaml"):
        (directory / file.name).write_text(file.read_text().replace(WATCHED, f"/{name}/**"))
    config = Config(
        runtime_dir=directory / "run",
        state_dir=directory / "state",
        pin_dir=Path("/sys/fs/bpf", name),
        policy_dirs=(directory,),
        cgroup_parent=f"/{name}",
    )
    cgroup.mkdir(parents=True)
    try:
        async with AsyncExitStack() as stack:
            app.prepare_places(config, stack)
            running = await app.arm(config, stack, time.time())
            process.armed()
            return await _empty(running, cgroup, rounds)
    finally:
        shutil.rmtree(config.pin_dir, ignore_errors=True)  # what is pinned nowhere is gone
        clean_host.remove_cgroup(cgroup.parent)
        shutil.rmtree(directory)


def _enter(cgroup: Path) -> None:
    scheduling.ordinary(0)
    (cgroup / "cgroup.procs").write_text("0")  # 0 = the writer


async def _empty(running: app.Running, cgroup: Path, rounds: int) -> Row:
    pump, plane = running.pump, running.core.plane
    assert cgroup.stat().st_ino in plane.workloads(), "the shipped policy does not watch it"
    events, seconds, cpu = 0, 0.0, 0.0
    for _ in range(rounds):
        pump.stop()
        for command, *arguments in PRODUCERS:
            subprocess.run(
                [program(command), *arguments],
                preexec_fn=partial(_enter, cgroup),
                stdout=subprocess.DEVNULL,
                check=True,
            )
        before, started, used = pump.events, time.perf_counter(), time.thread_time()
        pump.start()
        assert await pump.catch_up(60), "the rings do not become empty"
        seconds += time.perf_counter() - started
        cpu += time.thread_time() - used
        events += pump.events - before
    lost = sum(loss.count for loss in plane.losses()) + pump.failures
    rate = events / seconds
    return Row(
        "events",
        "ring → decode → judge, the daemon's own loop",
        f"{rate:,.0f}/s",
        f"≥ {TARGET:,}/s",
        rate >= TARGET and not lost,
        f"{events:,} exec, fork, exit and connect, {lost} lost; {cpu / events * 1e6:.1f} µs of CPU each",
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
