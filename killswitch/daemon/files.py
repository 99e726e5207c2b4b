"""Files that persistence rests on: what changed in a place becomes an event of the workload that did it.

The kernel tells a pid and no more. A process that lives is asked for its cgroup; one that has ended is looked up among
those that the engine remembers, once the events of its life have come in. Nothing is marked, and nothing is paid, while
no rule in force is ``on: file``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from killswitch.daemon.core import Core
from killswitch.daemon.workers import Workers
from killswitch.errors import KernelError
from killswitch.events import Exec, File, Lost, WorkloadAdded
from killswitch.kernel import cgroupfs, procfs
from killswitch.kernel.fanotify import open_below
from killswitch.kernel.filewatch import HOST, Change, FileWatch, First, Fresh

log = logging.getLogger("killswitch.files")
T = TypeVar("T")

CONTENT = 64 << 10  # bytes of a file that rules see
WAIT = 0.4  # seconds for the fork and the exec of a writer that has ended: rings that do not wake us are looked at every 0.25
MAX_WAITING = 4096  # changes whose writer is not known yet
MAX_READING = 64  # files that are read at the same time
READING_SECONDS = 5.0  # a file of a workload may lie where nobody answers
MARKING_SECONDS = 30.0  # the same of its folders; hundreds are marked at once
MAX_ROOTS = 256
MAX_NEW = 1024  # processes whose root is still to be looked at
_PRIVATE = ("accounts", "cgroup", "killswitch")  # kinds of place whose files are not read


class Files:
    """Of the event loop's thread; marking and reading of files go to threads."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._watch: FileWatch | None = None
        self._content = False
        self._waiting: deque[tuple[float, Change]] = deque()
        # (process, workload) whose root may be new, and when its program began if we saw that
        self._new: deque[tuple[int, int, int]] = deque(maxlen=MAX_NEW)
        self._roots: dict[tuple[str, str], int] = {}  # (mount namespace, root in it) -> number; HOST's is there, too
        self._owners: dict[int, int] = {}  # root -> workload
        self._homes: set[tuple[int, str]] = set()
        self._reading = 0
        # Not the threads that workloads are ended with: whoever answers for a file system could hold those up.
        self._readers = Workers("read-file", 2)
        self._markers = Workers("mark-folders", 1)
        self._marking = asyncio.Lock()
        self._exploring = False
        self._numbers = HOST

    # --- on and off --------------------------------------------------------------------------------------------------

    def apply(self) -> None:
        """After policies came into force: look at files if a rule asks for it, else let go."""
        compiled = self._core.compiled
        rules = [r for r in compiled.rules if r.rule.on == "file"] if compiled else []
        self._content = any("file.content" in r.fields for r in rules)
        if rules and self._watch is None:
            self._open()
        elif not rules:
            self.close()

    def _open(self) -> None:
        try:
            self._watch = FileWatch()
        except KernelError as e:
            self._core.unseen["file"] = str(e)
            log.error("rules on file cannot match: %s", e)
            return
        self._core.unseen.pop("file", None)
        asyncio.get_running_loop().add_reader(self._watch.fileno(), self._readable)
        for pid in (os.getpid(), 1):
            with contextlib.suppress(OSError):
                self._roots[_root_of(pid)] = HOST
        self._core.spawn(self._mark_host(), "mark the places of persistence")

    async def _mark_host(self) -> None:
        config, watch = self._core.config, self._watch
        if watch is None:
            return
        async with self._marking:
            base = _host_base(config.host_root)
            await self._mark(lambda: watch.add_root(HOST, base), "the host's")
            for directory in (config.state_dir, config.runtime_dir, config.pin_dir, *config.policy_dirs):
                await asyncio.to_thread(self._mark_own, watch, str(directory), "killswitch")
            for w in self._core.workloads:
                await asyncio.to_thread(self._mark_own, watch, str(self._core.path_of(w.cgroup)), "cgroup")
        log.info("places of persistence are looked at: %d directories", watch.directories)

    async def _mark(self, work: Callable[[], T], whose: str, owner: int = 0) -> T | None:
        """What ``work`` gives; None when it waits for a file system that does not answer."""
        try:
            return await self._markers.run(work, MARKING_SECONDS, owner)
        except TimeoutError as e:
            log.warning("folders not looked at for changes: %s: they do not answer: %s", whose, e)
            self._core.tell(Lost(time.monotonic_ns(), owner, "file_places_unmarked", 1))
            return None

    @staticmethod
    def _mark_own(watch: FileWatch, directory: str, kind: str) -> None:
        try:
            watch.add_directory(directory, kind)
        except (OSError, KernelError) as e:
            log.info("not looked at for changes: %s: %s", directory, e)

    def close(self) -> None:
        watch, self._watch = self._watch, None
        self._core.unseen.pop("file", None)
        if watch is None:
            return
        asyncio.get_running_loop().remove_reader(watch.fileno())
        watch.close()
        self._waiting.clear()
        self._new.clear()
        self._roots.clear()
        self._owners.clear()
        self._homes.clear()

    @property
    def directories(self) -> int:
        return self._watch.directories if self._watch else 0

    # --- what else to look at ----------------------------------------------------------------------------------------

    def note(self, event: Exec | WorkloadAdded) -> None:
        """A process of a workload runs a program: it may have a root, or a home, that is not looked at yet."""
        if self._watch is None:
            return
        if isinstance(event, Exec):
            self._new.append((event.pid, event.workload, event.time_ns))
        else:
            directory = str(self._core.mount / event.cgroup.lstrip("/"))
            self._core.spawn(self._add_cgroup(directory, event.workload), "mark a workload's cgroup")
        if not self._exploring and self._new:
            self._exploring = True
            self._core.spawn(self._explore(), "look for new roots and homes")

    async def _add_cgroup(self, directory: str, workload: int) -> None:
        watch = self._watch
        if watch is None:
            return
        async with self._marking:
            await asyncio.to_thread(self._mark_own, watch, directory, "cgroup")
            pids = await asyncio.to_thread(_pids, Path(directory))
        for pid in pids[:MAX_NEW]:
            self._new.append((pid, workload, 0))
        if pids and not self._exploring:
            self._exploring = True
            await self._explore()

    async def _explore(self) -> None:
        try:
            while self._new and self._watch is not None:
                # Programs that have ended by now, as most have, leave nothing to look at: not worth a thread.
                batch = [one for one in self._new if _lives(one[0])]
                self._new.clear()
                for owner in dict.fromkeys(workload for _, workload, _ in batch):
                    own = [one for one in batch if one[1] == owner]
                    async with self._marking:
                        if watch := self._watch:
                            whose = self._core.workloads.name(owner) or f"workload {owner}"
                            self._take(await self._mark(partial(self._look_at, watch, own), whose, owner) or ())
                await asyncio.sleep(0.02)  # execs in a storm are looked at together
        finally:
            self._exploring = False

    def _look_at(self, watch: FileWatch, batch: Iterable[tuple[int, int, int]]) -> list[Change]:
        """What was changed in new roots by the time they were looked at. In a thread."""
        found: list[Change] = []
        for pid, workload, executed_ns in batch:
            try:
                key, home = _root_of(pid), _home_of(pid)
            except (OSError, KernelError):
                continue  # it has ended
            root = self._roots.get(key)
            if root is None:
                if len(self._roots) >= MAX_ROOTS and not self._make_room(watch):
                    log.warning("root of process %d is not looked at for changes: %d are", pid, MAX_ROOTS)
                    continue
                self._numbers += 1
                root = self._roots[key] = self._numbers
                self._owners[root] = workload
                since = First(pid, time.time_ns() - (time.monotonic_ns() - executed_ns)) if executed_ns else None
                found += watch.add_root(root, f"/proc/{pid}/root", (home,) if home else (), since)
                self._homes.add((root, home))
            elif root != HOST and not _leads_to(watch.base(root), key):
                watch.rebase(root, f"/proc/{pid}/root")
            if home and (root, home) not in self._homes and len(self._homes) < 4 * MAX_ROOTS:
                self._homes.add((root, home))
                base = watch.base(root) if root == HOST else f"/proc/{pid}/root"
                watch.add_root(root, base, [h for r, h in self._homes if r == root and h])
        return found

    def _make_room(self, watch: FileWatch) -> bool:
        """Let go of roots that nothing leads to any more; one that still has a process comes again with its next exec."""
        over = [
            (key, root) for key, root in self._roots.items() if root != HOST and not _leads_to(watch.base(root), key)
        ]
        for key, root in over:
            del self._roots[key]
            self._owners.pop(root, None)
            watch.forget(root)
            self._homes -= {home for home in self._homes if home[0] == root}
        return bool(over)

    # --- what changed ------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        watch = self._watch
        if watch is None:
            return
        try:
            changes, fresh, lost = watch.read()
        except KernelError as e:
            log.error("rules on file cannot match any more: %s", e)
            self.close()
            self._core.unseen["file"] = str(e)
            return
        if lost:
            self._core.tell(Lost(time.monotonic_ns(), 0, "file_queue_full", 1))
        if fresh:
            self._core.spawn(self._enter(watch, fresh), "look at new directories")
        self._take(changes)

    async def _enter(self, watch: FileWatch, fresh: list[Fresh]) -> None:
        for directory in fresh:
            async with self._marking:
                owner = self._owners.get(directory.root, 0)
                found = await self._mark(partial(watch.enter, directory), directory.path, owner)
            self._take(found or ())

    def _take(self, changes: Iterable[Change]) -> None:
        now = time.monotonic()
        workloads: dict[int, tuple[int, int] | None] = {}  # of this batch: a flood is one look-up
        for change in changes:
            if change.pid not in workloads:
                workloads[change.pid] = self._living(change.pid)
            writer = workloads[change.pid]
            if writer is not None:
                if writer[0]:
                    self._found(change, *writer)
            elif len(self._waiting) < MAX_WAITING:
                if not self._waiting:
                    asyncio.get_running_loop().call_later(WAIT, self._retry)
                self._waiting.append((now + WAIT, change))
            else:
                self._core.tell(Lost(time.monotonic_ns(), 0, "file_writer_unknown", 1))

    def _living(self, pid: int) -> tuple[int, int] | None:
        """(workload or 0, start ticks) of a process that lives, None when it does not."""
        try:
            start = procfs.start_ticks(pid)
            cgroup = procfs.cgroup(pid)
        except KernelError:
            return None
        w = self._core.workloads.holding(cgroup)
        return (w.id if w else 0), start

    def _retry(self) -> None:
        """Writers that had ended: their fork and their exec have come in by now, if they were a workload's."""
        now, engine = time.monotonic(), self._core.engine
        while self._waiting and self._waiting[0][0] <= now:
            _, change = self._waiting.popleft()
            known = engine.workloads.process_of(change.pid) if engine else None
            if known is not None:
                self._found(change, *known)
            elif owner := self._owners.get(change.root):  # in a root that only this workload has
                self._found(change, owner, 0)
        if self._waiting:
            asyncio.get_running_loop().call_later(max(0.0, self._waiting[0][0] - now), self._retry)

    def _found(self, change: Change, workload: int, start_ticks: int) -> None:
        w = self._core.workloads.get(workload)
        if w is None:
            return
        if not self._content or change.kind in _PRIVATE or change.action == "delete":
            self._tell(change, workload, start_ticks, b"")
        elif self._reading < MAX_READING:
            self._reading += 1
            self._core.spawn(self._read(change, workload, start_ticks), f"read {change.path}")
        else:
            self._core.tell(Lost(time.monotonic_ns(), workload, "file_content_unread", 1))
            self._tell(change, workload, start_ticks, b"")

    async def _read(self, change: Change, workload: int, start_ticks: int) -> None:
        content = b""
        try:
            base = self._watch.base(change.root) if self._watch else ""
            if base:
                content = await self._readers.run(lambda: read_content(base, change), READING_SECONDS, workload)
        except TimeoutError as e:
            log.warning("content of %s not read: %s", change.path, e)
            self._core.tell(Lost(time.monotonic_ns(), workload, "file_content_unread", 1))
        finally:
            self._reading -= 1
        self._tell(change, workload, start_ticks, content)

    def _tell(self, change: Change, workload: int, start_ticks: int, content: bytes) -> None:
        path = os.fsencode(change.path)
        self._core.tell(
            File(
                time.monotonic_ns(), workload, change.pid, start_ticks, path, change.kind, change.action, content
            )
        )  # fmt: skip


def read_content(base: str, change: Change) -> bytes:
    """The beginning of the file as it is now; b"" when it is gone, or is no regular file."""
    for root in (f"/proc/{change.pid}/root", base) if change.root != HOST else (base,):
        try:
            top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fd = open_below(top, change.path, os.O_RDONLY)
        except OSError:
            return b""
        finally:
            os.close(top)
        try:
            return os.read(fd, CONTENT) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        except OSError:
            return b""
        finally:
            os.close(fd)
    return b""


def _host_base(root: Path) -> str:
    """Pid 1's view of the host where it may be had: ours may lack what the unit hides."""
    base = f"/proc/1/root{root}".rstrip("/")
    return base if os.access(base, os.R_OK | os.X_OK) else str(root)


def _root_of(pid: int) -> tuple[str, str]:
    """What tells its root from others: none of it touches a file system that a workload may have mounted."""
    # Asked of every program that begins: pathlib would be most of the cost.
    return os.readlink(f"/proc/{pid}/ns/mnt"), os.readlink(f"/proc/{pid}/root")  # noqa: PTH115


def _lives(pid: int) -> bool:
    try:
        os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115 - as above
    except OSError:
        return False
    return True


def _leads_to(base: str, key: tuple[str, str]) -> bool:
    """Whether ``/proc/PID/root`` still is that root: the process may have ended, and its number be another's."""
    try:
        return _root_of(int(base.split("/")[2])) == key
    except (OSError, ValueError, IndexError):
        return False


def _home_of(pid: int) -> str:
    with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:  # noqa: PTH123 - as above
        raw = file.read(32 << 10)
    for entry in raw.split(b"\0"):
        if entry.startswith(b"HOME=/"):
            return os.fsdecode(entry[5:])
    return ""


def _pids(cgroup: Path) -> list[int]:
    try:
        return list(cgroupfs.processes(cgroup, recursive=True))
    except KernelError:
        return []
