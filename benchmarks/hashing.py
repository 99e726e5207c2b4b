"""What it costs to see hashing, in CPU time: the sampler, for each CPU; taking a window; reading and judging one process."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import scene
from benchmarks.harness import Row
from killswitch.detect import constants
from killswitch.detect.hashing import score
from killswitch.detect.mix import disassembler, measure
from killswitch.detect.samples import Samples
from killswitch.events import Cpu
from killswitch.kernel import attach, bpfcall, cgroupfs, codereader
from killswitch.kernel.cpu import HERTZ
from killswitch.kernel.dataplane import DataPlane
from killswitch.kernel.mounts import ensure_bpffs
from tests.rig import clean_host
from tests.rig.build import program

# One thread; a crowd of threads, whose reading is added up; one that waits for memory.
LOADS = (("hashes", "sha256d", "1"), ("hashes", "blake2b", "24"), ("memoryhard", "cryptonight", "1"))


def rows(quick: bool) -> Iterator[Row]:
    name = f"{scene.LABEL}-{os.getpid()}-hashing"
    root = clean_host.cgroup_root()
    assert root is not None
    cgroup = root / name
    pins = Path("/sys/fs/bpf", name)
    ensure_bpffs(pins.parent)
    plane = DataPlane.open(pins, cgroup_mount=root)
    children: list[subprocess.Popen[bytes]] = []
    try:
        cgroup.mkdir()
        plane.watch(cgroupfs.cgroup_id(cgroup), cgroup, 1)
        seconds = 6 if quick else 20
        for binary, *arguments in LOADS:
            command = [program(binary), arguments[0], str(4 * seconds), arguments[1]]
            children.append(subprocess.Popen(command, preexec_fn=scene.entering(cgroup)))
        (sampler,) = pins.glob(f"*/**/{attach.SAMPLER}")
        yield from _measure(plane, sampler, seconds)
    finally:
        cgroupfs.kill(cgroup)
        for child in children:
            child.wait()
        plane.remove()
        clean_host.remove_cgroup(cgroup)


def _measure(plane: DataPlane, programs: Path, seconds: int) -> Iterator[Row]:
    windows, readings, judgements = [], [], []
    collected: dict[tuple[int, int], Samples] = {}
    plane.cpu_window()
    with attach.opened(programs) as sampler, bpfcall.statistics():
        ran, runs = bpfcall.run_time(sampler)
        for _ in range(seconds):
            time.sleep(1)
            began = time.thread_time()
            events = plane.cpu_window()
            windows.append(time.thread_time() - began)
            for event in events:
                collected.setdefault((event.pid, event.start_ticks), Samples()).add(event, _samples(event))
        after, more = bpfcall.run_time(sampler)
    disassembler(platform.machine())  # is loaded when it is first needed: 36 ms, once
    constants.known()
    for (pid, start), samples in collected.items():
        for _ in range(5):
            hot, code = samples.chosen()
            began = time.thread_time()
            mix = measure(platform.machine(), samples.blocks())
            read = codereader.read_code(1, pid, start, hot, code, mix.references if mix else ())
            readings.append(time.thread_time() - began)
            began = time.thread_time()
            score(read)
            judgements.append(time.thread_time() - began)
    a_sample = (after - ran) / max(more - runs, 1)
    share = a_sample * HERTZ / 1e9
    yield Row(
        "hashing", "sampling a CPU that a workload keeps busy", f"{share:.3%} of it", "≤ 0.2 %", share <= 0.002,
        f"{a_sample / 1e3:.1f} µs a sample, {more - runs} samples",
    )  # fmt: skip
    for what, values, target in (
        ("taking a window out of the kernel", windows, ""),
        ("looking at a busy process: its code, and reading it", readings, ""),
        ("judging what was read", judgements, ""),
        ("classification of a process, all of it", [sum(p) for p in zip(readings, judgements, strict=True)], "≤ 20 ms"),
    ):
        worst = max(values) * 1e3
        figure = f"{statistics.median(values) * 1e3:.1f} ms ({worst:.1f})"
        yield Row("hashing", what, figure, target, worst <= 20 if target else None, f"worst of {len(values)}")


def _samples(event: Cpu) -> float:
    return event.cores * HERTZ * event.window_ns / 1e9
