"""The executables of incidents: seen again in another workload, by content, they are that incident's continuation.

Both errors hurt, so an executable is only marked when it has itself carried the evidence, and when nothing says that it is
everybody's: see ``vouches`` and ``Continuations.common``. What a file is (the system's, a copy of a shell) its reader finds out.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

from killswitch.commands import Act, Evidence, Finding, Level, Mode, Response
from killswitch.events import Cpu, Exec, Wire

MAX_MARKS = 256
MAX_SIZES = 8192  # of executables that ran, by which "ran elsewhere before" is told
MAX_PLACES = 4  # workloads that are remembered of each
DAY_NS = 24 * 3600 * 1_000_000_000
HITS = frozenset({Response.KILL_PROCESS, Response.SEVER, Response.FREEZE, Response.TERMINATE})

# What runs other programs' text or carries other programs' data: what it did says nothing of the file.
_COMMON = re.compile(
    r"(?:python|pypy|perl|ruby|node|nodejs|deno|bun|java|php|lua|luajit|Rscript|julia|erl|beam\.smp|mono|dotnet|guile|tclsh|awk|gawk|mawk"
    r"|bash|dash|sh|zsh|ksh|fish|busybox|toybox|ssh|scp|sftp|sshd|sshd-session|dbclient|git|curl|wget|socat|nc|ncat|netcat|openssl|gpg|env"
    r"|sudo|su|doas|tmux|screen|docker|podman|containerd-shim\S*|runc|crun|conmon|qemu\S*|wine\S*|gdb|strace|ld-linux\S*|ld-musl\S*"
    r"|systemd\S*|tini|dumb-init)(?:[-.]?\d[-0-9.]*[a-z]?)?"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """The executable of an incident."""

    sha256: str
    size: int  # bytes
    incident: str
    cgroup: str  # of the workload where it was found
    rule: str  # "policy/rule" that found it
    level: Level
    responses: tuple[Response, ...]
    path: str  # what it was called then, for people
    time_ns: int  # CLOCK_MONOTONIC


def vouches(finding: Finding) -> bool:
    """Whether a finding says of the executable itself that it is the incident's: it is what the rule knew it by, or it mined. Not
    what arguments or a connection say, which anybody's tool may be given."""
    if finding.mode is not Mode.ENFORCE or not HITS & set(finding.responses) or not finding.pid:
        return False
    if finding.evidence is Evidence.NAME:
        return isinstance(finding.event, Exec)
    mined = finding.act is Act.MINING and finding.evidence in (Evidence.BEHAVIOUR, Evidence.WIRE)
    return mined and isinstance(finding.event, Cpu | Wire)


def everybodys(name: str) -> bool:
    """Whether a program of this name runs what it is given: an interpreter, a shell, a network tool."""
    return _COMMON.fullmatch(name) is not None


class Continuations:
    """Bounded in number and age."""

    def __init__(self, max_age_ns: int = DAY_NS) -> None:
        """``max_age_ns`` 0: nothing is marked."""
        self.max_age_ns = max_age_ns
        self._marks: OrderedDict[str, Mark] = OrderedDict()
        self._sizes: dict[int, int] = {}  # size -> marks that have it
        self._ran: OrderedDict[int, tuple[str, ...]] = OrderedDict()  # size -> cgroups where such an executable ran

    @property
    def marks(self) -> tuple[Mark, ...]:
        return tuple(self._marks.values())

    def ran(self, size: int, cgroup: str) -> bool:
        """An executable of this size runs in this workload; whether it may be a marked one, so that its content matters."""
        places = self._ran.pop(size, ())
        if cgroup not in places:
            places = (*places, cgroup)[-MAX_PLACES:]
        self._ran[size] = places
        if len(self._ran) > MAX_SIZES:
            self._ran.popitem(last=False)
        return size in self._sizes

    def common(self, size: int, cgroup: str) -> bool:
        """Whether one of this size has run in another workload: then it is taken for the same, and for everybody's."""
        return any(place != cgroup for place in self._ran.get(size, ()))

    def mark(self, mark: Mark) -> list[Mark]:
        """Marks that had to make room; none is made of what is marked already."""
        if not self.max_age_ns or mark.sha256 in self._marks:
            return []
        self._marks[mark.sha256] = mark
        self._sizes[mark.size] = self._sizes.get(mark.size, 0) + 1
        return [self._drop(next(iter(self._marks))) for _ in range(len(self._marks) - MAX_MARKS)]

    def match(self, sha256: str, cgroup: str, now: int) -> Mark | None:
        """The mark of another workload's executable."""
        found = self._marks.get(sha256)
        if found is None or found.cgroup == cgroup or now - found.time_ns >= self.max_age_ns:
            return None
        return found

    def forget(self, what: str) -> list[Mark]:
        """Those of this incident, or of this SHA-256 or its beginning (8 digits at least)."""
        named = [
            m.sha256
            for m in self._marks.values()
            if m.incident == what or (len(what) >= 8 and m.sha256.startswith(what.lower()))
        ]
        return [self._drop(sha256) for sha256 in named]

    def prune(self, now: int) -> list[Mark]:
        """Those that have grown too old."""
        return [self._drop(m.sha256) for m in self.marks if now - m.time_ns >= self.max_age_ns]

    def _drop(self, sha256: str) -> Mark:
        mark = self._marks.pop(sha256)
        self._sizes[mark.size] -= 1
        if not self._sizes[mark.size]:
            del self._sizes[mark.size]
        return mark
