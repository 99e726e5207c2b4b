"""What is there already: cgroups that policies watch, and the programs that run in a workload.

Events tell only what happens from now on. What ran before a workload was watched, or before the policies in force came
into force, is judged here, by the same rules.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from killswitch.daemon.core import Core
from killswitch.errors import Gone, KernelError
from killswitch.events import Done, Exec
from killswitch.kernel import cgroupfs, procfs
from killswitch.policy.compiled import Compiled

if TYPE_CHECKING:
    from killswitch.daemon.reactor import Reactor

log = logging.getLogger("killswitch.survey")

AskedFor = Mapping[tuple[int, int], tuple[bytes, bytes]]  # (pid, start ticks) -> (executable, path that was asked for)
MAX_PROCESSES = 20_000  # of one workload that are read at once


def survey(core: Core, reactor: Reactor) -> None:
    """Look at every cgroup of the host once: those that a policy watches are watched from now on."""
    for path in cgroupfs.subtree(core.mount):
        if path != core.mount:
            reactor.discover("/" + str(path.relative_to(core.mount)))


def running(cgroup: Path, workload: int, asked_for: AskedFor, compiled: Compiled) -> list[Exec]:
    """The workload's processes as ``Exec`` events, parents first, as if each had just begun to run what it runs.

    It reads much and touches nothing of ours: for a thread. The events are judged by ``compiled``, whole command lines
    and all. ``asked_for``: by (pid, start ticks), what is known already of which path was asked for.
    """
    try:
        pids = cgroupfs.processes(cgroup)
    except KernelError:
        return []
    if len(pids) > MAX_PROCESSES:
        log.warning("%s: has %d processes; only %d of them are judged", cgroup, len(pids), MAX_PROCESSES)
    found = []
    for pid in pids[:MAX_PROCESSES]:
        try:
            if event := _as_exec(workload, pid, asked_for):
                predicates = compiled.predicates(event)
                found.append(replace(event, predicates=predicates, generation=compiled.generation))
        except KernelError as e:
            if not isinstance(e, Gone):
                log.warning("process %d of %s not judged: %s", pid, cgroup, e)
    return sorted(found, key=lambda e: (e.start_ticks, e.pid))


def tell_program(core: Core, event: Exec) -> None:
    """Let the data plane know what the rules in force say of a program that began to run before them: its next connections
    are judged by that. ``event`` is one of ``running``; of rules that are no longer in force nothing is told."""
    compiled = core.compiled
    if compiled is None or not (compiled.tables.start_sent or compiled.tables.start_received):
        return
    if event.generation != compiled.generation:
        return
    try:
        core.plane.tell_program(event.pid, event.start_ticks, event.predicates, event.generation)
    except KernelError as e:
        log.warning("what the process %d sends is judged without its program: %s", event.pid, e)


def _as_exec(workload: int, pid: int, asked_for: AskedFor) -> Exec | None:
    facts = procfs.facts(pid)
    if not facts.executable:
        return None  # a zombie
    argv = b"".join(a.encode("utf-8", "surrogateescape") + b"\0" for a in facts.command_line)
    inode = device = nlink = 0
    try:
        status = procfs.executable_of(pid).stat()
        inode, device, nlink = status.st_ino, status.st_dev, status.st_nlink
    except OSError as e:
        raise Gone(f"process {pid}", e.errno or 0, "its executable cannot be looked at") from e
    parent_name, parent_start = b"", 0
    try:
        parent_start = procfs.start_ticks(facts.stat.ppid)
        parent_name = os.path.basename(os.readlink(f"/proc/{facts.stat.ppid}/exe").encode("utf-8", "surrogateescape"))  # noqa: PTH115, PTH119
    except (KernelError, OSError):
        pass  # a kernel thread, or gone: then there is nothing to tell
    executable = facts.executable.encode("utf-8", "surrogateescape")
    path = executable.removesuffix(b" (deleted)")
    ran, asked = asked_for.get((pid, facts.stat.start_ticks), (b"", b""))
    return Exec(
        time_ns=time.monotonic_ns(),
        workload=workload,
        cgroup_id=workload,
        pid=pid,
        start_ticks=facts.stat.start_ticks,
        ppid=facts.stat.ppid,
        parent_start_ticks=parent_start,
        uid=facts.uid,
        gid=facts.gid,
        parent_name=parent_name,
        executable=path,
        filename=asked if ran == path else path,
        argv=argv,
        argv_total=len(argv),
        inode=inode,
        device=device,
        nlink=nlink,
        memfd=executable.startswith(b"/memfd:"),
        predicates=0,
        generation=0,
        clause=-1,
        done=Done.NOTHING,
        verdict_ns=0,
    )
