"""What a busy process runs, and what is around it: read from its memory and from ``/proc`` because the engine asked.

``Code`` is the one event that answers a command. What could not be read is left at its default.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CodeBlock:
    address: int
    samples: int
    code: bytes  # what lies there, up to 64 bytes
    mapping: str  # the mapping's name in /proc/PID/maps, "" = anonymous, "?" = not looked up
    before: bytes = b""  # of few addresses that hold much of the samples: what lies right before
    after: bytes = b""  # and behind ``code``

    @property
    def anonymous(self) -> bool:
        """No file backs it: it was made at run time."""
        return not self.mapping or self.mapping.startswith(
            ("//anon", "/memfd:", "anon_inode:", "[heap]", "[anon", "[stack")
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Something that a process can take data from: a descriptor that is open for reading, or a file that it has mapped."""

    kind: str  # file, mapped, pipe, socket, zero (/dev/zero and its like) or device
    inode: int
    size: int  # of a file, bytes


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else is to be told of a busy process: what it takes in, and how it has set itself up."""

    written_bytes: int = 0  # wchar of /proc/PID/io
    storage_bytes: int = 0  # read_bytes of /proc/PID/io: what was fetched from disk for it, also through mappings
    network_bytes: int = 0  # of the whole workload, both ways
    faults: int = 0  # page faults so far
    file_resident_bytes: int = 0  # of mapped files
    sources: tuple[Source, ...] = ()
    discards: bool = False  # has /dev/null open for writing
    threads: int = 0
    nice: int = 0
    huge_bytes: int = 0  # in huge pages: transparent ones and hugetlbfs's
    executable_anonymous_bytes: int = 0  # executable memory without a file
    open_msr: bool = False  # has a CPU's model-specific registers open


@dataclass(frozen=True, slots=True)
class Code:
    """The machine code at a process's hottest addresses: the answer to ``commands.ReadCode``."""

    time_ns: int
    workload: int
    pid: int
    start_ticks: int
    machine: str  # platform.machine()
    blocks: tuple[CodeBlock, ...]
    read_bytes: int  # rchar of /proc/PID/io: what it has consumed so far
    read_calls: int  # syscr
    cpu_ns: int  # CPU time that it has used so far
    data: tuple[bytes, ...] = ()  # what lies where the code refers to (``ReadCode.data``), and behind the code
    surroundings: Surroundings = Surroundings()
