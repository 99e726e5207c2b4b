"""Loads in cgroups of their own, sampled by the real data plane."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from killswitch.detect.hashing import Score, score
from killswitch.detect.samples import MAX_HOT, representative
from killswitch.errors import Gone
from killswitch.events import Cpu
from killswitch.kernel import cgroupfs, codereader
from killswitch.kernel.dataplane import DataPlane
from killswitch.kernel.mounts import ensure_bpffs
from killswitch.machinecode import Code

WARM_UP = 60  # samples of each process that are thrown away: while it starts up, a program is not yet what it is


@contextmanager
def opened_plane(name: str) -> Iterator[DataPlane]:
    """A data plane of this test's own; nothing of it stays."""
    pins = Path("/sys/fs/bpf") / f"ks-test-{os.getpid()}-{name}"
    ensure_bpffs(pins.parent)
    opened = DataPlane.open(pins, cgroup_mount=cgroupfs.find_mount())
    try:
        yield opened
    finally:
        opened.remove()


@dataclass
class Load:
    """A command in a cgroup of its own."""

    name: str
    cgroup: Path
    id: int
    child: subprocess.Popen[bytes]
    samples: Counter[tuple[int, int]] = field(default_factory=Counter)  # of each process
    warmed: Counter[tuple[int, int]] = field(default_factory=Counter)
    hot: dict[tuple[int, int], Counter[int]] = field(default_factory=dict)
    kernel: Counter[tuple[int, int]] = field(default_factory=Counter)
    first: dict[tuple[int, int], Code] = field(default_factory=dict)  # what it had read when it was first seen

    def note(self, event: Cpu) -> None:
        process = (event.pid, event.start_ticks)
        taken = round(event.cores * 99 * event.window_ns / 1e9)
        if process not in self.first:
            with suppress(Gone):
                self.first[process] = codereader.read_code(self.id, *process, ())
        self.warmed[process] += taken
        if self.warmed[process] < WARM_UP:
            return
        self.samples[process] += taken
        self.kernel[process] += round(taken * event.kernel_share)
        self.hot.setdefault(process, Counter()).update(dict(event.hot))

    @property
    def busiest(self) -> tuple[tuple[int, int], int]:
        return self.samples.most_common(1)[0] if self.samples else ((0, 0), 0)

    def judge(self) -> Score:
        process, samples = self.busiest
        code = codereader.read_code(self.id, *process, representative(self.hot[process], MAX_HOT))
        return score(code, self.first.get(process), kernel_share=self.kernel[process] / max(samples, 1))


def start(stack: ExitStack, plane: DataPlane, name: str, command: str, nice: int = -10) -> Load:
    """``nice``: a busy machine must not starve what is to be sampled."""
    cgroup = cgroupfs.find_mount() / f"ks-test-{os.getpid()}-{re.sub('[^a-z0-9]+', '-', name)}"
    cgroupfs.create(cgroup)
    stack.callback(cgroupfs.remove, cgroup)
    stack.callback(cgroupfs.kill, cgroup)
    id = cgroupfs.cgroup_id(cgroup)
    plane.watch(id, cgroup, 1)
    stack.callback(plane.unwatch, id)
    # The shell moves itself before it starts anything: nothing of it runs elsewhere, and cgroup.kill ends all of it.
    child = subprocess.Popen(
        ["nice", "-n", str(nice), "/bin/sh", "-c", f'echo $$ > "{cgroup}/cgroup.procs" && {command}'],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(child.wait)
    stack.callback(cgroupfs.kill, cgroup)
    return Load(name, cgroup, id, child)
