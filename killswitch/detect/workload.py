"""What the engine knows of one workload."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from killswitch.commands import FREE, Containment
from killswitch.detect.answered import Runs
from killswitch.detect.correlate import Shown
from killswitch.detect.datagrams import Datagrams
from killswitch.detect.folding import Folder
from killswitch.detect.pipeline import Looks
from killswitch.detect.processes import ProcessTable
from killswitch.detect.reach import Reach
from killswitch.detect.sustained import Sustained
from killswitch.detect.traffic import Traffic

MAX_WATCHED = 1024  # processes of one workload for which a ``for:`` is running

RuleKey = tuple[str, str]  # (policy name, rule id)


class Workload:
    def __init__(self, id: int, name: str, cgroup: str, policies: int) -> None:
        self.id = id
        self.name = name
        self.cgroup = cgroup
        self.policies = policies  # bit set of indices into the compiled policies
        self.incident = ""  # the open one
        self.containment: Containment = FREE  # asked for so far
        self.captured = False  # evidence was asked for in this incident
        self.processes = ProcessTable()
        self.folder = Folder()
        self.reach = Reach()
        self.datagrams = Datagrams()
        self.traffic = Traffic()
        self.pipe_looks = Looks()
        self.runs = Runs()
        self.shown = Shown()
        self._sustained: dict[tuple[int, int], dict[RuleKey, Sustained]] = {}

    def sustained(
        self, process: tuple[int, int], holding: Collection[tuple[RuleKey, int]], time_ns: int, window_ns: int
    ) -> Iterator[tuple[RuleKey, int]]:
        """Note which rules (and their ``for``) hold for this process in this window.

        Yields those that are due as findings, each with the nanoseconds since it began to hold.
        """
        states = self._sustained.get(process)
        if states is None:
            if not holding:
                return
            if len(self._sustained) >= MAX_WATCHED:
                del self._sustained[next(iter(self._sustained))]
            states = self._sustained[process] = {}
        keys = set()
        for key, for_ns in holding:
            keys.add(key)
            state = states.get(key)
            if state is None or state.for_ns != for_ns:
                state = states[key] = Sustained(for_ns)
            if state.feed(time_ns, window_ns, True):
                yield key, time_ns - state.began_ns
            elif state.found:
                self.shown.lasts(key, time_ns)
        for key in [k for k in states if k not in keys]:
            states[key].feed(time_ns, window_ns, False)
            if states[key].idle:
                del states[key]
        if not states:
            del self._sustained[process]

    def forget(self, pid: int, start_ticks: int) -> None:
        """The process is gone."""
        self._sustained.pop((pid, start_ticks), None)

    def prune(self, before_ns: int) -> None:
        """Drop what has had no window since then: an exit may have been lost."""
        self.traffic.prune(before_ns)
        for process, states in list(self._sustained.items()):
            if all(state.last_ns < before_ns for state in states.values()):
                del self._sustained[process]

    def afresh(self, now: int) -> None:
        """An operator has released it: the incident is over. Whatever goes on is found again, by what it does from now on."""
        self.incident = ""
        self.containment = FREE
        self.captured = False
        self.folder = Folder()
        self.reach = Reach()
        self.datagrams = Datagrams()
        self.traffic = Traffic(now)
        self.shown = Shown()
        self._sustained.clear()
