"""Executables of incidents, read and compared: what ``detect.continuation`` decides on is found out here, in threads."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from killswitch.commands import Command, Finding, Level
from killswitch.daemon.inspection import digest, open_executable
from killswitch.daemon.log import fields
from killswitch.daemon.workers import Workers
from killswitch.detect.continuation import Continuations, Mark, everybodys, vouches
from killswitch.errors import KernelError
from killswitch.events import Done, Event, Exec, text
from killswitch.kernel import procfs
from killswitch.kernel.processfiles import ProcessFiles
from killswitch.kernel.syscalls import Known
from killswitch.ledger import ProgramRecord

if TYPE_CHECKING:
    from killswitch.daemon.core import Core
    from killswitch.daemon.workloads import Workload

log = logging.getLogger("killswitch.continuation")

JudgeLater = Callable[[int, Coroutine[Any, Any, None], str, Event | None], None]
SECONDS = 10.0
MAX_WAITING = 64  # executables of one workload that wait to be read
SYSTEM = ("/bin/", "/sbin/", "/lib", "/usr/", "/nix/store/", "/snap/")
NOT_SYSTEM = "/usr/local/"
COMMON = (
    "python3", "bash", "dash", "perl", "node", "ruby", "java", "php", "busybox", "ssh", "git", "curl", "socat", "openssl", "nc",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Program:
    sha256: str
    size: int
    path: str
    everybodys: bool  # the system's, an interpreter, or a copy of one


class Continuing:
    def __init__(self, core: Core, carry_out: Callable[[Command, Event | None], None], judge_later: JudgeLater) -> None:
        """``judge_later``: what it is given is part of the judgement of an exec: the program is held until it is done, and nobody
        is told before that all of its workload is judged."""
        self._core = core
        self._carry_out, self._judge_later = carry_out, judge_later
        self._workers = Workers("hash", 2)
        self.table = Continuations(int(core.config.continuation_seconds * 1e9))
        now, unix = time.monotonic_ns(), time.time()
        for r in core.records.programs().values():
            age = max(0, int((unix - r.time_unix) * 1e9))
            self.table.mark(
                Mark(r.sha256, r.size, r.incident, r.workload, r.rule, Level(r.level), r.responses, r.path, now - age)
            )

    def ran(self, event: Exec, file: Known | None) -> None:
        """A program begins: is it one that an incident is about? ``file``: what its process runs now; None: it has ended, or was
        killed before it began."""
        w = self._core.workloads.get(event.workload)
        if w is None or file is None or not self.table.max_age_ns:
            return
        asked = self.table.ran(file.st_size, w.cgroup) and not event.done & Done.KILLED
        if asked and self._workers.waiting_for(w.id) < MAX_WAITING:
            self._judge_later(w.id, self._compare(w, event), f"compare the program of process {event.pid}", event)

    def found(self, finding: Finding) -> None:
        """A finding may say of an executable that it is the incident's."""
        w = self._core.workloads.get(finding.workload)
        if w is None or not w.incident or self._core.is_canary(w.cgroup):
            return
        if self.table.max_age_ns and vouches(finding):
            self._judge_later(w.id, self._mark(w, finding), f"mark the program of process {finding.pid}", None)

    async def _compare(self, w: Workload, event: Exec) -> None:
        program = await self._read(w, event.pid, event.start_ticks, event)
        if program is None or program.everybodys:
            return
        mark = self.table.match(program.sha256, w.cgroup, time.monotonic_ns())
        if mark is not None and self._core.engine is not None and w.id in self._core.workloads:
            for command in self._core.engine.continued(event, mark):
                self._carry_out(command, event)

    async def _mark(self, w: Workload, finding: Finding) -> None:
        incident, core = w.incident, self._core
        event = finding.event if isinstance(finding.event, Exec) else None
        program = await self._read(w, finding.pid, finding.start_ticks, event)
        if program is None or program.everybodys or self.table.common(program.size, w.cgroup):
            return
        known = core.incidents.get(incident)
        if known is None or known.closed_unix:  # released meanwhile
            return
        mark = Mark(
            program.sha256, program.size, incident, w.cgroup, f"{finding.policy}/{finding.rule}", finding.level,
            finding.responses, program.path, time.monotonic_ns(),
        )  # fmt: skip
        if mark in self.table.marks or any(m.sha256 == mark.sha256 for m in self.table.marks):
            return
        self._forgotten(self.table.mark(mark), "others are newer")
        core.records.program(
            ProgramRecord(
                mark.sha256,
                mark.size,
                incident,
                w.cgroup,
                mark.rule,
                str(mark.level),
                mark.responses,
                mark.path,
                time.time(),
            )
        )
        log.warning(
            "seen elsewhere, this program is the incident's continuation %s",
            fields(incident=incident, workload=w.name, path=mark.path, sha256=mark.sha256),
        )

    async def _read(self, w: Workload, pid: int, start_ticks: int, event: Exec | None) -> Program | None:
        since = w.since_unix or time.time()
        try:
            return await self._workers.run(lambda: identify(pid, start_ticks, event, since), SECONDS, w.id)
        except TimeoutError as e:
            log.warning("program of process %d not compared with those of incidents: %s", pid, e)
        except (KernelError, OSError) as e:
            log.debug("program of process %d not read: %s", pid, e)
        return None

    # --- forgetting ---

    def tick(self) -> None:
        self._forgotten(self.table.prune(time.monotonic_ns()), "it has grown old")

    def forget(self, what: str, reason: str) -> int:
        """The programs of an incident (``inc-3``), or one by its SHA-256; how many that were."""
        return self._forgotten(self.table.forget(what), reason)

    def _forgotten(self, marks: list[Mark], reason: str) -> int:
        for mark in marks:
            self._core.records.program_forgotten(mark.sha256, reason)
            log.info("no longer looked for %s", fields(sha256=mark.sha256, incident=mark.incident, why=reason))
        return len(marks)


# --- in a thread ------------------------------------------------------------------------------------------------------


def identify(pid: int, start_ticks: int, event: Exec | None, since_unix: float) -> Program | None:
    """What this process runs; of a process that was killed before it began, the file that it was to run. None: it cannot be
    read. Raises KernelError, OSError."""
    if event is not None:
        fd = open_executable(event)
        path = text(event.executable)
        if fd is None:
            return _beside(event, since_unix)
    else:
        fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        path = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115 - as the kernel says it
        if not procfs.same(pid, start_ticks):
            os.close(fd)
            return None
    try:
        return _program(fd, path, since_unix)
    finally:
        os.close(fd)


def _beside(event: Exec, since_unix: float) -> Program | None:
    """Killed in a container, whose files are its parent's, too."""
    with ProcessFiles(event.ppid) as files, files.open(event.executable) as fd:
        if os.fstat(fd).st_ino != event.inode:
            return None
        return _program(fd, text(event.executable), since_unix)


def _program(fd: int, path: str, since_unix: float) -> Program | None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return None
    shared = everybodys(PurePosixPath(path).name) or _systems(status, path, since_unix)
    sha256 = "" if shared else digest(fd)
    shared = shared or any(sha256 == _digest_of(tool) for tool in _tools().get(status.st_size, ()))
    return Program(sha256, status.st_size, path, shared) if shared or sha256 else None


def _systems(status: os.stat_result, path: str, since_unix: float) -> bool:
    """Whether it was installed: root's alone to write, where programs lie, and there before the workload was."""
    installed = path.startswith(SYSTEM) and not path.startswith(NOT_SYSTEM)
    return installed and status.st_uid == 0 and not status.st_mode & 0o022 and status.st_ctime < since_unix


@cache
def _tools() -> dict[int, tuple[str, ...]]:
    """The host's interpreters and tools by their size: a copy of one, whatever it is called, is still everybody's."""
    found: dict[int, tuple[str, ...]] = {}
    for name in COMMON:
        if place := shutil.which(name):
            size = Path(place).stat().st_size
            found[size] = (*found.get(size, ()), place)
    return found


@cache
def _digest_of(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return digest(fd)
    finally:
        os.close(fd)
