"""Who leads a conversation: how often the far side of a connection that the workload made speaks, and is answered, having
spoken first; and how often programs were run for it.

Who connects to ask is answered; who connects to serve answers. Pauses tell nothing: a slow answer looks like a late command.
Who runs a program each time, before it answers, obeys.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import deque

from killswitch.detect.processes import Process, ProcessTable
from killswitch.detect.traffic import Connection

ANSWERED = "network.answered"
OBEYED = ("network.obeyed", "network.obeyed_first", "network.obeyed_share")  # in the order of ``obeyed``
MAX_RUNS = 1024  # programs that a workload ran last, of which is known for whom


class Runs:
    """The programs that a workload ran lately: when, and which processes they descend from."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: deque[tuple[int, frozenset[int]]] = deque(maxlen=MAX_RUNS)

    def note(self, time_ns: int, process: Process, processes: ProcessTable) -> None:
        """``process`` has just executed a program. The fork that made it may not have been told yet: its parent's line
        counts as well."""
        line = {pid for pid, _ in process.ancestors}
        parent = processes.last(process.ppid)
        if parent is not None:
            line |= {parent.pid, *(pid for pid, _ in parent.ancestors)}
        self._runs.append((time_ns, frozenset(line)))

    def below(self, pid: int) -> list[int]:
        """When descendants of this process ran something, in order."""
        return sorted(time_ns for time_ns, line in self._runs if pid in line)


def answered(connection: Connection) -> int:
    """Turns of the far side that the workload answered, among the bursts that are remembered (``traffic.MAX_BURSTS``); 0 where
    the workload spoke first, or where it is not known who did."""
    if connection.complete_ns > connection.flow.began_ns or not connection.bursts or connection.bursts[0].sent:
        return 0
    bursts = list(connection.bursts)
    return sum(after.sent and not before.sent for before, after in itertools.pairwise(bursts))


def obeyed(connection: Connection, runs: Runs) -> tuple[int, int, float]:
    """Of those turns, how many made a descendant of the process that connected run a program before the answer went out; which
    was the first of them (1 = the first thing that the far side said); and what share of all turns they are.

    What begins with a greeting (mail, FTP, MySQL) goes on with turns that are the client's own business: who logs in, asks and
    works on the answers has none of these among its first, and who is given orders has.
    """
    if not answered(connection):
        return 0, 0, 0.0
    times = runs.below(connection.flow.pid)
    turns = count = first = 0
    heard_ns = 0  # since when the far side speaks; 0 = it does not
    for burst in connection.bursts if times else ():
        if not burst.sent:
            heard_ns = heard_ns or burst.time_ns
        elif heard_ns:
            turns += 1
            at = bisect_left(times, heard_ns)
            if at < len(times) and times[at] <= burst.time_ns + burst.span_ns:
                count += 1
                first = first or turns
            heard_ns = 0
    return count, first, count / turns if turns else 0.0
