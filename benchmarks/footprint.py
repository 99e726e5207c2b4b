"""What the daemon itself costs: from its start to armed, resident memory, and CPU while nothing happens."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import scene
from benchmarks.harness import Row
from tests.rig.daemon import Daemon


def rows(quick: bool) -> Iterator[Row]:
    fresh, adopted = [], []
    for _ in range(3 if quick else 7):
        with Daemon(scene.LABEL) as daemon:
            fresh.append(daemon.ready_seconds)
            scene.make_workload(daemon, "one")
            daemon.kill9()
            daemon.start()
            adopted.append(daemon.ready_seconds)
    for what, values in (("a first start", fresh), ("a restart that adopts", adopted)):
        worst = max(values)
        note = f"worst of {len(values)}"
        yield Row(
            "daemon",
            f"{what}, to armed",
            f"{statistics.median(values):.2f} s ({worst:.2f})",
            "≤ 1.5 s",
            worst <= 1.5,
            note,
        )

    with Daemon(scene.LABEL) as daemon:
        for number in range(5):
            scene.make_workload(daemon, f"idle{number}")
        assert daemon.process is not None
        pid = daemon.process.pid
        time.sleep(3)
        seconds = 10 if quick else 60
        before = _cpu_seconds(pid)
        time.sleep(seconds)
        share = (_cpu_seconds(pid) - before) / seconds
        memory = _resident_bytes(pid) / 2**20
    yield Row("daemon", "resident memory", f"{memory:.1f} MiB", "≤ 80 MiB", memory <= 80, "5 watched workloads")
    yield Row("daemon", "CPU while idle", f"{share:.2%} of a core", "≤ 0.5 %", share <= 0.005, f"over {seconds} s")


def _resident_bytes(pid: int) -> int:
    return int(Path("/proc", str(pid), "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu_seconds(pid: int) -> float:
    """All threads, to the nanosecond: utime and stime come in steps of 10 ms, too coarse for half a percent."""
    tasks = Path("/proc", str(pid), "task")
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks.iterdir()) / 1e9
