"""Who leads a conversation: how often the far side of a connection that the workload made speaks, and is answered, having
spoken first; and how often programs were run for it.

Who connects to ask is answered; who connects to serve answers. Pauses tell nothing: a slow answer looks like a late command.
Who runs a program each time, before it answers, obeys; also who has only greeted before.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

from killswitch.detect.processes import Process, ProcessTable
from killswitch.detect.traffic import Connection
from killswitch.events import Burst

ANSWERED = "network.answered"
OBEYED = ("network.obeyed", "network.obeyed_first", "network.obeyed_share")  # in the order of ``obeyed``
# A prompt, a name, a word of readiness. A request of HTTP or a hello of TLS is longer; and who asks for each job (as of a
# queue in Redis) has turns in between that run nothing.
GREETING = 40  # bytes
GREETED = 0.8  # so many of the turns must have run a program, where the workload spoke first
# A handshake of TLS, by its sizes in bytes (RFC 8446; RFC 5246 with an elliptic curve). A client that has something to
# ask sends it along with its last word, which is then longer, or right after it.
HELLO = range(150, 4097)
CERTIFICATE = 400
FINISHED = 160
SHAKEN = 4  # turns after it, at least
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
    return _turns(connection)


def _turns(connection: Connection) -> int:
    return sum(after.sent and not before.sent for before, after in itertools.pairwise(connection.bursts))


def _greets(connection: Connection) -> bool:
    """The workload spoke first, but no more than a greeting."""
    if connection.complete_ns > connection.flow.began_ns or not connection.bursts:
        return False
    said = sum(burst.bytes for burst in itertools.takewhile(lambda burst: burst.sent, connection.bursts))
    return 0 < said <= GREETING


def _after_handshake(connection: Connection) -> Sequence[Burst]:
    """What comes after what looks like a handshake of TLS: a hello, an answer with a certificate, and a last word that no request
    can be in. Empty where there is none."""
    if connection.complete_ns > connection.flow.began_ns:
        return ()
    bursts = list(connection.bursts)
    said, end = [], 0
    for sent, group in itertools.groupby(bursts, lambda burst: burst.sent):
        members = list(group)
        said.append(sum(burst.bytes for burst in members))
        end += len(members)
        if len(said) == 3:
            hello, answer, last = said
            fits = bursts[0].sent and sent and hello in HELLO and answer >= CERTIFICATE and last <= FINISHED
            return bursts[end:] if fits else ()
    return ()


def obeyed(connection: Connection, runs: Runs) -> tuple[int, int, float]:
    """Of those turns, how many made a descendant of the process that connected run a program before the answer went out; which
    was the first of them (1 = the first thing that the far side said); and what share of all turns they are.

    What begins with a greeting (mail, FTP, MySQL) goes on with turns that are the client's own business: who logs in, asks and
    works on the answers has none of these among its first, and who is given orders has.

    Where the workload has greeted first, or shaken hands, it counts only if nearly all turns are such, the first of them too: who
    asks has asked there before anything is run.
    """
    led = bool(answered(connection))
    greets = not led and _greets(connection)
    turns = _obeyed(connection.bursts if led or greets else _after_handshake(connection), connection, runs)
    count = sum(turns)
    if not count:
        return 0, 0, 0.0
    if not led and (not turns[0] or count < GREETED * len(turns) or (not greets and len(turns) < SHAKEN)):
        return 0, 0, 0.0
    return count, turns.index(True) + 1, count / len(turns)


def _obeyed(bursts: Iterable[Burst], connection: Connection, runs: Runs) -> list[bool]:
    """Of each turn, whether a program was run in it."""
    times = runs.below(connection.flow.pid)
    turns: list[bool] = []
    heard_ns = 0  # since when the far side speaks; 0 = it does not
    for burst in bursts if times else ():
        if not burst.sent:
            heard_ns = heard_ns or burst.time_ns
        elif heard_ns:
            first = bisect_left(times, heard_ns)
            turns.append(first < len(times) and times[first] <= burst.time_ns + burst.span_ns)
            heard_ns = 0
    return turns
