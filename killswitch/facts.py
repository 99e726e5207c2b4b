"""What was found out in user space after something was seen: of a program by reading files, of a workload by its pipes."""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.events import Exec


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out about a program after it began, by reading files. Only what some rule asks for is looked up."""

    programs: tuple[str, ...] = ()  # what its executable is by its content
    sha256: str = ""  # of its executable, in hexadecimal; "" = not known
    forwards: tuple[str, ...] = ()  # what it forwards as an OpenSSH client, its configuration files included
    config_unread: str = ""  # why an OpenSSH client's configuration is not known, "" = it is
    config: tuple[bytes, ...] = ()  # files that its arguments give as its configuration
    named_files: tuple[bytes, ...] = ()  # other files that its arguments name
    environment: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspected:
    """A program that began a moment ago, and what was found out about it since: no event of the kernel's, and so none of
    ``Event``. ``Engine.survey`` takes it, once after its ``Exec``."""

    workload: int
    exec: Exec
    facts: Facts


Pipe = tuple[int, int]  # (device, inode)


@dataclass(frozen=True, slots=True)
class PipeEnds:
    """The pipes that a process has as standard files, and the FIFOs (they have a name) that it has open one way.

    ``kept_``: those without a name of which it has one end elsewhere: of its own making, or standard files that it has moved.
    """

    pid: int
    start_ticks: int
    reads: tuple[Pipe, ...]
    writes: tuple[Pipe, ...]
    kept_reads: tuple[Pipe, ...] = ()
    kept_writes: tuple[Pipe, ...] = ()


@dataclass(frozen=True, slots=True)
class Pipes:
    """What hangs together by pipes in a workload, at one moment: the answer to ``commands.ReadPipes``, for
    ``Engine.piped``. Processes without any are left out."""

    workload: int
    cookie: int  # of the connection that was asked about
    processes: tuple[PipeEnds, ...]
