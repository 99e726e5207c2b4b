"""What rules ask for and an event does not say: read later, from processes and files that may not answer.

Each kind of reading has its limits and threads of its own: none may take those with which workloads are ended, or hold up
another kind. What is not read is told as lost (``Lost``), never passed over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import replace

from killswitch.commands import BIT_TRUNCATED, ReadCode, ReadPipes
from killswitch.daemon.core import Core
from killswitch.daemon.inspection import Inspection
from killswitch.daemon.survey import running
from killswitch.daemon.workers import Workers
from killswitch.daemon.workloads import Workload
from killswitch.errors import Gone, KernelError
from killswitch.events import Exec, Lost
from killswitch.facts import Facts, Pipes
from killswitch.kernel import codereader, procfs
from killswitch.kernel.pipes import read_pipes
from killswitch.kernel.syscalls import Known
from killswitch.machinecode import Code
from killswitch.policy.compiled import Compiled

log = logging.getLogger("killswitch.reactor")

MAX_REREADS = 32  # long command lines of one workload that are read at the same time
MAX_INSPECTIONS = 256  # programs of one workload that wait to be inspected
INSPECTION_SECONDS = 5.0  # a file of a workload may lie where nobody answers
ARGUMENTS_SECONDS = 2.0  # the same of its memory
CODE_SECONDS = 5.0
SURVEY_SECONDS = 30.0  # all programs of a workload


class Reading:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._inspection = Inspection()
        self._rereading: Counter[int] = Counter()  # long command lines that are read now, by workload
        self._inspections = Workers("inspect", 2)
        # A process's memory may lie on a file that nobody answers for.
        self._arguments = Workers("arguments", 2)
        self._code = Workers("code", 2)

    def _unread(self, workload: int, reason: str, why: Exception) -> None:
        log.warning("%s: %s", reason, why)
        self._lost(workload, reason)

    def _lost(self, workload: int, reason: str) -> None:
        self._core.tell(Lost(time.monotonic_ns(), workload, reason, 1))

    # --- command lines ---

    def claim_whole(self, event: Exec) -> bool:
        """Whether the command line is longer than the kernel's window, where that matters. Then ``whole`` has to be awaited:
        only so many of a workload are read at the same time."""
        w, compiled = self._core.workloads.get(event.workload), self._core.compiled
        if w is None or compiled is None or self._rereading[event.workload] >= MAX_REREADS:
            return False
        if not compiled.wants_full_argv(event, w.mask):
            return False
        self._rereading[event.workload] += 1
        return True

    async def whole(self, event: Exec) -> Exec:
        """The event with its whole command line; as it came, where that cannot be read. ``claim_whole`` first."""
        try:
            compiled = self._core.compiled
            try:
                raw = await self._arguments.run(lambda: _command_line(event), ARGUMENTS_SECONDS, event.workload)
            except TimeoutError as e:
                self._unread(event.workload, "command line not read whole: its memory does not answer", e)
            except Gone:
                log.info("command line not read whole: process %d has ended; judged by its first bytes", event.pid)
            else:
                # What the kernel read before the first instruction stays as it was: the process may have overwritten it.
                argv = event.argv + raw[len(event.argv) :]
                event = replace(event, argv=argv, argv_total=len(argv))
                if compiled:  # the automata walk it in a thread: it may be megabytes long
                    predicates = await asyncio.to_thread(compiled.predicates, event) | 1 << BIT_TRUNCATED
                    event = replace(event, predicates=predicates, generation=compiled.generation)
        except KernelError as e:
            log.warning("command line of process %d not read whole: %s", event.pid, e)
        finally:
            self._rereading[event.workload] -= 1
        return event

    async def running(self, w: Workload, compiled: Compiled) -> list[Exec]:
        """What runs in the workload now, judged by ``compiled``."""
        core = self._core
        if core.engine is None:
            return []
        path, asked_for = core.path_of(w.cgroup), core.engine.workloads.asked_for(w.id)
        try:
            return await self._arguments.run(lambda: running(path, w.id, asked_for, compiled), SURVEY_SECONDS, w.id)
        except TimeoutError as e:
            self._unread(w.id, "running programs not judged: one does not answer", e)
            return []

    # --- executables and files ---

    def facts_at_once(self, event: Exec, file: Known | None, compiled: Compiled, wants: frozenset[str]) -> Facts | None:
        """What is asked for, where nothing has to be read for it. ``file``: what the process runs now."""
        return self._inspection.at_once(event, file, compiled, wants)

    def claim_facts(self, event: Exec) -> bool:
        """Whether there is room for one more of this workload; otherwise it is told as lost."""
        if self._inspections.waiting_for(event.workload) < MAX_INSPECTIONS:
            return True
        self._lost(event.workload, "program not inspected: too many at once")
        return False

    async def facts(self, event: Exec, compiled: Compiled, wants: frozenset[str]) -> Facts:
        try:
            return await self._inspections.run(
                lambda: self._inspection.facts(event, compiled, wants), INSPECTION_SECONDS, event.workload
            )
        except TimeoutError as e:
            log.warning("process %d not inspected: %s", event.pid, e)
            self._lost(event.workload, "program not inspected: its files do not answer")
            return Facts(config_unread="its files do not answer")

    # --- memory and descriptors ---

    async def code(self, command: ReadCode) -> Code | None:
        """None where the process has ended, or nothing could be read."""
        try:
            asked = command.workload, command.pid, command.start_ticks, command.hot, command.code, command.data
            code = await self._code.run(lambda: codereader.read_code(*asked), CODE_SECONDS, command.workload)
            flows = self._core.plane.flows(command.workload)
        except TimeoutError as e:
            self._unread(command.workload, "code not read: the process's memory or files do not answer", e)
            return None
        except KernelError as e:
            log.debug("code of process %d not read: %s", command.pid, e)
            return None
        around = replace(code.surroundings, network_bytes=flows.tx_bytes + flows.rx_bytes)
        return replace(code, surroundings=around)

    async def pipes(self, w: Workload, command: ReadPipes) -> Pipes | None:
        """None where the connection's process has ended, or nothing could be read."""
        try:
            path, asked = self._core.path_of(w.cgroup), (command.pid, command.start_ticks, command.cookie)
            return await self._code.run(lambda: read_pipes(path, w.id, *asked), CODE_SECONDS, w.id)
        except TimeoutError as e:
            self._unread(w.id, "pipes not read: too much is waited for", e)
        except KernelError as e:
            log.debug("pipes around process %d not read: %s", command.pid, e)
        return None


def _command_line(event: Exec) -> bytes:
    """The whole of it, as it is now: a process that has executed something else since is Gone."""
    raw = procfs.read_bytes(event.pid, "cmdline")
    if not procfs.same(event.pid, event.start_ticks):
        raise Gone(f"process {event.pid}", 3, "it has ended")
    return raw
