"""Who is fed through pipes by a connection: `nc HOST PORT < fifo | sh > fifo`, and what is like it.

A process whose standard output leads, by pipes and maybe through others, to the standard input of a second one, and whose
standard input comes from there again, is that one's terminal. Of pipes without a name only standard files count: a program
that starts another one and talks to it holds their other ends somewhere else (``subprocess``, ``popen``), and that is how
honest work is built. A program that has moved its standard files elsewhere, as OpenSSH does once it is connected, is told
from that by who started whom: the processes of a shell's pipeline stand beside each other.

FIFOs count wherever they are open one way: ``cat fifo | sh`` reads one. Open both ways they are locks and counters that every
child inherits.

Two connections to one host, of which one brings what the other's words answer, may be a terminal as well, or a script that
is fetched and its log that is handed in: ``turns`` tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from killswitch.detect.traffic import Connection
from killswitch.events import Flow
from killswitch.facts import Pipe, PipeEnds

PIPED = "network.piped"
FIRST_NS = 900_000_000  # from one look to the next, at first: connections are told of once a second
LONGEST_NS = 32_000_000_000  # …and at most: a long download must not be looked at every second
MAX_LOOKED = 512  # connections
TURNS = 3  # of two connections that show a conversation
SETTING_UP_NS = (
    3_000_000_000  # in which what a connection says itself belongs to its beginning: versions, keys, a login
)


class Looks:
    """When the pipes around a connection are to be looked at: while it talks, again after twice the time."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[int, tuple[int, int]] = {}  # cookie -> (not before, the pause after that)

    def due(self, flow: Flow) -> bool:
        """Whether now is a time to look; then it counts as done."""
        at, pause = self._of.get(flow.cookie, (0, FIRST_NS))
        if flow.closed:
            self._of.pop(flow.cookie, None)
            return False
        if flow.time_ns < at or not flow.received_bytes:
            return False
        if flow.cookie not in self._of and len(self._of) >= MAX_LOOKED:
            del self._of[next(iter(self._of))]
        self._of[flow.cookie] = flow.time_ns + pause, min(2 * pause, LONGEST_NS)
        return True


def fed(
    feeder: tuple[int, int],
    takers: Collection[int],
    processes: Iterable[PipeEnds],
    beside: Callable[[int, int], bool] = lambda *_: False,
) -> Iterator[tuple[PipeEnds, bool]]:
    """The processes whose standard input comes from ``feeder`` (pid, start ticks), and whose output comes to its standard
    input (then True) or to that of one of ``takers`` (pids that talk to the same host). The feeder itself is none of them.

    Of these programs, which hold the connections, a pipe that is no standard file (any more) counts where the one at its
    other end was started ``beside`` the program (pid, that program's pid), and not by it.
    """
    every = {p.pid: p for p in processes}
    source = every.get(feeder[0])
    if source is None or source.start_ticks != feeder[1]:
        return
    readers: dict[Pipe, list[PipeEnds]] = {}
    writers: dict[Pipe, list[PipeEnds]] = {}
    for p in every.values():
        for pipe in p.reads:
            readers.setdefault(pipe, []).append(p)
        for pipe in p.writes:
            writers.setdefault(pipe, []).append(p)

    def moved(pipes: Iterable[Pipe], ends: Mapping[Pipe, Iterable[PipeEnds]], of: PipeEnds) -> Iterator[Pipe]:
        return (pipe for pipe in pipes if any(beside(p.pid, of.pid) for p in ends.get(pipe, ())))

    def taken(p: PipeEnds) -> Iterable[Pipe]:
        return (*p.reads, *moved(p.kept_reads, writers, p))

    ends = [pipe for p in every.values() if p.pid in takers for pipe in taken(p)]
    down = _reached((*source.writes, *moved(source.kept_writes, readers, source)), readers, lambda p: p.writes)
    back = _reached(taken(source), writers, lambda p: p.reads)
    up = back | _reached(ends, writers, lambda p: p.reads)
    for pid in sorted(down & up - {source.pid}):
        yield every[pid], pid in back


def turns(heard: Connection, said: Iterable[Connection]) -> int:
    """How often something came in on ``heard`` after something had gone out on the others, upon what came in before: who sends
    one command after the other waits for what the last one says, and a script comes as a whole.

    The handshake of ``heard`` is left out: what comes in before it has last spoken itself, in its first seconds.
    """
    until = heard.flow.began_ns + SETTING_UP_NS
    ready = max((b.time_ns for b in heard.bursts if b.sent and b.time_ns < until), default=0)
    came = [(b.time_ns, False) for b in heard.bursts if not b.sent and b.time_ns > ready]
    went = [(b.time_ns, True) for connection in said for b in connection.bursts if b.sent]
    count, asked, answered = 0, False, False
    for _, out in sorted(came + went):
        if out:
            answered = asked
        else:
            count += answered
            asked, answered = True, False
    return count


def _reached(
    starts: Iterable[Pipe],
    along: Mapping[Pipe, Iterable[PipeEnds]],
    onward: Callable[[PipeEnds], Iterable[Pipe]],
) -> set[int]:
    found: set[int] = set()
    waiting = list(starts)
    seen = set(waiting)
    while waiting:
        for p in along.get(waiting.pop(), ()):
            found.add(p.pid)
            for pipe in onward(p):
                if pipe not in seen:
                    seen.add(pipe)
                    waiting.append(pipe)
    return found
