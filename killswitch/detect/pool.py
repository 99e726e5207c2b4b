"""All that a workload runs, together: many small or short-lived processes that hash a little each are one big one.

What has no score of its own (too small, too short, not yet its turn) is collected by program, the inode of the executable,
and judged by the code that was seen when it ran, once there is enough of it. Programs that by themselves never come to
enough (a new copy for every batch) are judged together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from killswitch.detect.hashing import Score, score
from killswitch.detect.samples import Samples
from killswitch.detect.tally import Tally
from killswitch.events import Cpu
from killswitch.machinecode import Code

HERTZ = 99  # samples for each second of CPU time
ENOUGH = 40  # samples: 0.4 s of CPU time
EVERY_NS = 4_000_000_000
PATIENCE_NS = 8_000_000_000  # a program that has not come to enough in this time goes with the others
LOOKS = 2  # programs that are judged at one time
MAX_PROGRAMS = 128
SCORES = 3
OTHERS = -1


@dataclass(slots=True)
class Group:
    """The processes of one program."""

    began_ns: int
    samples: Samples = field(default_factory=Samples)
    moved: int = 0  # bytes that they read
    machine: str = ""
    judged_ns: int = -EVERY_NS
    scores: list[Score] = field(default_factory=list)

    @property
    def value(self) -> float:
        return sum(s.value for s in self.scores) / len(self.scores) if self.scores else 0.0


class Pool:
    def __init__(self) -> None:
        self.tally = Tally()
        self._groups: dict[int, Group] = {}
        self._others = Group(0)
        self._cpu_ns = self._kernel_ns = 0.0  # of the window that is running
        self._window_ns = 0
        self._last_ns = 0
        self.cores = self.kernel_share = 0.0  # of the last window
        self._told = ""
        self._fields: dict[str, object] = {}
        self._fields_ns = -1

    def add(self, event: Cpu, samples: float, own: float | None, moved: int) -> None:
        """One process in one window. ``own``: the score that it has by itself; ``moved``: bytes that it read in it."""
        cpu = samples / HERTZ * 1e9
        self._cpu_ns += cpu
        self._kernel_ns += cpu * event.kernel_share
        self._window_ns = max(self._window_ns, event.window_ns)
        if own is not None:
            self.tally.add(event.time_ns, cpu, own)
            return
        group = self._groups.get(event.program)
        if group is None:
            if len(self._groups) >= MAX_PROGRAMS:
                self._give_up(next(iter(self._groups)))
            group = self._groups[event.program] = Group(event.time_ns)
        group.samples.add(event, samples)
        group.moved += moved
        group.machine = event.machine

    def close_window(self, now: int) -> int:
        """The window is over: judge what there is enough of. Its length in nanoseconds; 0 = there is nothing to tell."""
        window, self._window_ns = self._window_ns, 0
        last, self._last_ns = self._last_ns, now
        if not window:  # it pauses: what it did in the last minutes still stands
            self.cores = self.kernel_share = 0.0
            return max(0, now - last) if last and self.tally.seconds(now) else 0
        self.cores = self._cpu_ns / window
        self.kernel_share = self._kernel_ns / self._cpu_ns if self._cpu_ns else 0.0
        self._cpu_ns = self._kernel_ns = 0.0
        looks = LOOKS
        for program, group in sorted(self._groups.items(), key=lambda g: g[1].judged_ns):
            due = group.samples.total >= ENOUGH and now - group.judged_ns >= EVERY_NS
            if due and looks:
                looks -= 1
                self._judge(group, now)
            elif not due and now - max(group.began_ns, group.judged_ns) >= PATIENCE_NS and group.samples.total < ENOUGH:
                self._give_up(program)
        if self._others.samples.total >= ENOUGH and now - self._others.judged_ns >= EVERY_NS:
            self._judge(self._others, now)
        return window

    def _give_up(self, program: int) -> None:
        group = self._groups.pop(program)
        self._others.samples.merge(group.samples)
        self._others.moved += group.moved
        self._others.machine = group.machine or self._others.machine

    def _judge(self, group: Group, now: int) -> None:
        cpu_ns = int(group.samples.total / HERTZ * 1e9)
        code = Code(now, 0, 0, 0, group.machine, group.samples.blocks(), group.moved, 0, cpu_ns)
        verdict = score(code, kernel_share=group.samples.kernel_share)
        group.scores = [*group.scores[1 - SCORES :], verdict]
        self.tally.add(now, cpu_ns, group.value)
        if group.value >= 0.5:
            self._told = verdict.told
        group.samples.clear()
        group.moved, group.judged_ns = 0, now

    def fields(self, now: int) -> dict[str, object]:
        """What rules may ask of the workload. Asked for with each of its processes, and the same for all of a window."""
        if now != self._fields_ns:
            self._fields_ns, self._fields = now, self._make_fields(now)
        return self._fields

    def _make_fields(self, now: int) -> dict[str, object]:
        found: dict[str, object] = {
            "workload.cpu.cores": self.cores,
            "workload.cpu.hashing_seconds": self.tally.seconds(now),
        }
        hashing = self.tally.score(now)
        if hashing is not None:
            found["workload.cpu.hashing"] = hashing
        return found

    def reasons(self, now: int) -> str:
        told = f"{self.tally.seconds(now):.0f} CPU-seconds of hashing in ten minutes"
        return f"{told}, {self._told}" if self._told else told
