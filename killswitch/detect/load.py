"""Which processes are busy, whose code is to be looked at, and what was found: what stands between ``Cpu`` and ``Code``.

Not how busy a process is decides, but how much it has run: once it has used 0.4 s of CPU time since it was last looked at,
however long that took. So a low priority, pauses and a crowded host only delay it. The code that was seen when it ran is
judged first; only where that looks like hashing, or could not be seen, is the process itself read (its memory, its
mappings, what it takes in). Both are rationed: two a window, each process at most every four seconds; when there are
more than that allows, the pause is stretched so that every one has its turn.

What the processes that have no score of their own run is judged together: see ``pool``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from killswitch.detect.hashing import NOTHING, SUSPECT, Score, best, score
from killswitch.detect.mix import measure
from killswitch.detect.pool import HERTZ, Pool
from killswitch.detect.samples import Samples
from killswitch.detect.tally import Tally
from killswitch.detect.traffic import OUTSIDE
from killswitch.events import Cpu
from killswitch.machinecode import Code
from killswitch.policy.compiled import CompiledRule

HASHING = frozenset(
    {
        "cpu.hashing", "cpu.hashing_seconds", "cpu.mixing", "cpu.algorithm", "workload.cpu.hashing",
        "workload.cpu.hashing_seconds",
    }
)  # fmt: skip
OF_CODE = frozenset(
    {
        "cpu.jit", "process.memory.huge_pages", "process.memory.executable_anonymous", "process.open_msr",
        "process.threads", "process.nice",
    }
)  # fmt: skip
LOOKED_AT = HASHING | OF_CODE  # fields for which code has to be looked at
WHOLE = frozenset({"workload.cpu.cores", "workload.cpu.hashing", "workload.cpu.hashing_seconds"})
ENOUGH = 40  # samples: 0.4 s of CPU time
READ_EVERY_NS = 4_000_000_000
READS_A_WINDOW = 2
VALID_NS = 15_000_000_000  # a score is believed this long …
RARELY_NS = 120_000_000_000  # … or, of a process that has not yet run enough to be looked at again, this long
MAX_LOADS = 1024
SCORES = 3  # the score is the mean of this many readings: one odd sample decides nothing
SEEN = 0.9  # of the samples whose code must be known, to judge by it alone


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be read of a process: as in ``commands.ReadCode``."""

    hot: tuple[tuple[int, int], ...]
    code: tuple[bytes, ...]
    data: tuple[int, ...]


@dataclass(slots=True)
class Load:
    """One process."""

    workload: int = 0
    seen_ns: int = 0
    samples: Samples = field(default_factory=Samples)  # since it was last looked at
    kernel_share: float = 0.0
    read_bytes: int = 0
    asked_hot: tuple[tuple[int, int], ...] = ()
    asked_ns: int | None = None
    code: Code | None = None
    scores: list[Score] = field(default_factory=list)
    scored_ns: int = 0
    renewed: bool = False  # runs another program since the last reading
    unjudged_ns: float = 0.0  # CPU time while it had no score
    tally: Tally = field(default_factory=Tally)

    def note(self, verdict: Score, now: int) -> None:
        if self.renewed:
            self.scores.clear()
            self.renewed = False
        self.scores = [*self.scores[1 - SCORES :], verdict]
        self.scored_ns = now


class LoadTable:
    """All processes of all workloads, by (pid, start_ticks), and each workload's pool."""

    def __init__(self) -> None:
        self._loads: dict[tuple[int, int], Load] = {}
        self._pools: dict[int, Pool] = {}
        self._window_ns = 0  # when the present window began, for the ration
        self._reads = 0
        self._due_now = 0
        self._due_before = 0

    def __len__(self) -> int:
        return len(self._loads)

    def cpu(self, event: Cpu, *, wanted: bool) -> Request | None:
        """Note one window. What is to be read of the process now; None when it is not its turn, or nothing need be."""
        key = event.pid, event.start_ticks
        load = self._loads.pop(key, None)
        if load is None:
            if len(self._loads) >= MAX_LOADS:
                del self._loads[next(iter(self._loads))]  # who has not run for longest
            load = Load(event.workload)
        self._loads[key] = load
        samples = event.cores * HERTZ * event.window_ns / 1e9
        load.seen_ns, load.kernel_share = event.time_ns, event.kernel_share
        if wanted:
            load.samples.add(event, samples)
            self._share(load, event, samples)
        load.read_bytes = event.read_bytes
        if event.time_ns - self._window_ns > event.window_ns // 2 or event.time_ns < self._window_ns:
            self._window_ns, self._reads = event.time_ns, 0
            self._due_before, self._due_now = self._due_now, 0
        if not wanted or load.samples.total < ENOUGH or not load.samples:
            return None
        self._due_now += 1
        if self._reads >= READS_A_WINDOW:
            return None
        if load.asked_ns is not None and 0 <= event.time_ns - load.asked_ns < self._pause(event.window_ns):
            return None
        self._reads += 1
        load.asked_ns = event.time_ns
        request = self._look(load, event)
        load.samples.clear()
        return request

    def _look(self, load: Load, event: Cpu) -> Request | None:
        """Judge by what was seen when it ran, if that is enough to say that it does not hash."""
        hot, code = load.samples.chosen()
        load.asked_hot = hot
        load.kernel_share = load.samples.kernel_share
        blocks = load.samples.blocks()
        met = sum(n for _, n in hot)
        mix = measure(event.machine, blocks) if sum(b.samples for b in blocks) >= SEEN * met else None
        if mix is None:
            return Request(hot, code, ())
        if load.samples.waits:  # what lies around these few addresses has to be read
            return Request(hot, code, mix.references)
        # Which code is anonymous is not known yet: the shape that asks for it is tried as if all were.
        if max(best(mix)[1], best(mix.if_anonymous())[1]) >= SUSPECT:
            return Request(hot, code, mix.references)
        load.note(NOTHING, event.time_ns)
        return None

    def _share(self, load: Load, event: Cpu, samples: float) -> None:
        """The workload's account: by the process's own score, when it has one, else with all others."""
        pool = self._pools.get(event.workload)
        if pool is None:
            pool = self._pools[event.workload] = Pool()
        own, cpu_ns = self.hashing(event), samples / HERTZ * 1e9
        if own is None:
            load.unjudged_ns += cpu_ns
        else:  # what it ran until its first reading was no other program
            load.tally.add(event.time_ns, cpu_ns + load.unjudged_ns, own)
            load.unjudged_ns = 0.0
        pool.add(event, samples, own, max(event.read_bytes - load.read_bytes, 0))

    def _pause(self, window_ns: int) -> int:
        return max(READ_EVERY_NS, self._due_before * window_ns // READS_A_WINDOW)

    def code(self, event: Code) -> Score | None:
        """Judge what was read. None when the process is not known (any more)."""
        load = self._loads.get((event.pid, event.start_ticks))
        if load is None:
            return None
        if load.renewed:
            load.code = None
        verdict = score(event, load.code, kernel_share=load.kernel_share)
        load.code = event
        load.note(verdict, event.time_ns)
        return verdict

    def hashing(self, event: Cpu) -> float | None:
        """``cpu.hashing`` for this window; None when there is no reading that is still to be believed."""
        load = self._loads.get((event.pid, event.start_ticks))
        if load is None or not load.scores:
            return None
        age = event.time_ns - load.scored_ns
        if age > max(VALID_NS, 3 * self._pause(event.window_ns)) and (
            age > RARELY_NS or load.samples.total > 2 * ENOUGH
        ):
            return None
        return sum(s.value for s in load.scores) / len(load.scores)

    def fields(self, event: Cpu) -> dict[str, object]:
        """What rules on ``cpu`` may ask of this process beside what the event itself says."""
        found: dict[str, object] = {}
        load = self._loads.get((event.pid, event.start_ticks))
        if load is not None:
            hashing = self.hashing(event)
            if hashing is not None:
                found["cpu.hashing"] = hashing
                found["cpu.mixing"] = sum(s.mixing for s in load.scores) / len(load.scores)
            found["cpu.hashing_seconds"] = load.tally.seconds(event.time_ns)
            if load.scores and load.code is not None:
                found |= evidence(load.code, load.scores[-1])
        pool = self._pools.get(event.workload)
        return found | pool.fields(event.time_ns) if pool is not None else found

    def reasons(self, workload: int, pid: int, start_ticks: int, now: int) -> str:
        """For people. ``pid`` 0: of the workload as a whole."""
        if not pid:
            pool = self._pools.get(workload)
            return pool.reasons(now) if pool is not None else ""
        load = self._loads.get((pid, start_ticks))
        return load.scores[-1].told if load is not None and load.scores else ""

    def hot(self, pid: int, start_ticks: int) -> tuple[tuple[int, int, int], ...]:
        """(pid, address, samples) of the code that was judged last."""
        load = self._loads.get((pid, start_ticks))
        return tuple((pid, address, samples) for address, samples in load.asked_hot) if load is not None else ()

    def pools(self) -> dict[int, Pool]:
        return self._pools

    def exec(self, pid: int, start_ticks: int) -> None:
        """Another program: to be read afresh at once. Until then the old score stands, so that a program which runs
        itself anew every few seconds cannot shake it off."""
        load = self._loads.get((pid, start_ticks))
        if load is not None:
            load.samples.clear()
            load.asked_ns, load.renewed, load.unjudged_ns = None, True, 0.0

    def forget(self, pid: int, start_ticks: int) -> None:
        self._loads.pop((pid, start_ticks), None)

    def forget_workload(self, workload: int) -> None:
        for key in [key for key, load in self._loads.items() if load.workload == workload]:
            del self._loads[key]
        self._pools.pop(workload, None)

    def prune(self, now: int) -> None:
        """Drop who has not run for long: an exit may have been lost."""
        for key in [k for k, load in self._loads.items() if now - load.seen_ns > RARELY_NS]:
            del self._loads[key]


def asks_of_whole(rule: CompiledRule) -> bool:
    """The rule asks only about the workload as a whole: it is judged once a window, and not for each process."""
    return bool(rule.fields) and rule.fields <= {*WHOLE, *OUTSIDE, "cgroup.path"} and not rule.fields.isdisjoint(WHOLE)


def evidence(code: Code, verdict: Score) -> dict[str, object]:
    """What goes with mining and is no proof of it, of a process that was read."""
    around = code.surroundings
    total = sum(b.samples for b in code.blocks)
    made = sum(b.samples for b in code.blocks if b.anonymous)
    return {
        "cpu.jit": made / total if total else 0.0,
        "cpu.algorithm": verdict.algorithms,
        "process.memory.huge_pages": around.huge_bytes,
        "process.memory.executable_anonymous": around.executable_anonymous_bytes,
        "process.open_msr": around.open_msr,
        "process.threads": around.threads,
        "process.nice": around.nice,
    }
