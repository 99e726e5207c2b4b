"""Which of the places (``kernel.places``) changed, and by whom: marks on directories of many roots, one queue.

A root is what a process sees as ``/``: the host's, and that of each workload with a mount namespace of its own, whose
directories are other inodes. Marking walks directories that a workload may have put a slow file system under, so it is
done in a thread; reading never touches a file system.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from killswitch.errors import Gone, KernelError
from killswitch.kernel import fanotify
from killswitch.kernel.fanotify import Group, Node, open_below
from killswitch.kernel.places import PLACES, Place, Spot, homes_of, spots

log = logging.getLogger("killswitch.files")

HOST = 0  # the root that the host's own processes have
MAX_DIRECTORIES = 16384  # marked at most, of all roots together
MAX_FOUND = 64  # files that lay in a new directory before it was marked
_PASSWD_BYTES = 1 << 20
_OPEN = os.O_RDONLY | os.O_DIRECTORY
_CLOCK_NS = 10_000_000  # files' times are those of the last tick
_BUSY = frozenset(
    {"/", "/tmp", "/var/tmp", "/dev/shm"}
)  # where anything is made: not looked at for what leads to a place


@dataclass(frozen=True, slots=True)
class Change:
    """Something in a place has changed."""

    pid: int
    root: int
    path: str  # as a process of that root sees it
    kind: str  # of the place
    action: str  # create, write, rename or delete


@dataclass(frozen=True, slots=True)
class Fresh:
    """A directory is there now that leads to a place, or is one: to be marked."""

    pid: int
    root: int
    path: str
    spot: Spot | None  # None: that of its path


@dataclass(frozen=True, slots=True)
class First:
    """The first program that was seen to run in a root."""

    pid: int
    began_unix_ns: int  # when it was executed


@dataclass(frozen=True, slots=True)
class _Marked:
    root: int
    path: str
    spot: Spot


class FileWatch:
    """``read`` and ``forget`` by one thread; ``add_root``, ``add_directory`` and ``enter`` by others, of which any may hang."""

    def __init__(self, places: Iterable[Place] = PLACES) -> None:
        """Raises NotSupported, KernelError."""
        self._places = tuple(places)
        self._group = Group()
        self._known: dict[Node, _Marked] = {}
        self._bases: dict[int, str] = {}  # root -> a directory that is it
        self._spots: dict[int, dict[str, Spot]] = {}
        self._lock = threading.Lock()
        self.problems: dict[str, str] = {}  # directory -> why it is not looked at; bounded like the marks

    def fileno(self) -> int:
        return self._group.fileno()

    @property
    def directories(self) -> int:
        return len(self._known)

    # --- what is looked at -------------------------------------------------------------------------------------------

    def add_root(self, root: int, base: str, homes: Iterable[str] = (), first: First | None = None) -> list[Change]:
        """Look at the places below ``base``, a directory by which this root can be reached now (``/proc/PID/root``), and at
        those of every home: of its ``passwd``, of ``/home``, and of ``homes``. Again: adds what has come since. What has
        changed there since the ``first`` program of this root began, and nobody looked: ``MAX_FOUND`` files at most."""
        found: list[Change] = []
        try:
            top = os.open(base, _OPEN | os.O_CLOEXEC)
        except OSError as e:
            self._problem(base, e)
            return found
        try:
            self._bases[root] = base
            passwd, listed = _read(top, "/etc/passwd", _PASSWD_BYTES), [name for name, _ in _entries(top, "/home")]
            wanted = self._spots[root] = spots(self._places, homes_of(passwd, listed, homes))
            for path, spot in wanted.items():
                if self._mark(root, top, path, spot) and first:
                    found += self._changed(root, top, path, spot, first)
        finally:
            os.close(top)
        return found[:MAX_FOUND]

    def add_directory(self, path: str, kind: str) -> None:
        """Look at every file of this directory of the host. Raises KernelError."""
        spot = Spot([("*", kind)])
        fd = os.open(path, _OPEN | os.O_CLOEXEC)
        try:
            self._watch(fd, _Marked(HOST, path, spot))
        finally:
            os.close(fd)

    def enter(self, fresh: Fresh) -> list[Change]:
        """Look at a directory that was made, and at those below it; what lies there already was put there meanwhile."""
        found: list[Change] = []
        maker, known = f"/proc/{fresh.pid}/root", self._bases.get(fresh.root)
        for base in (known, maker) if fresh.root != HOST else (known,):  # whose root was known first may have ended
            try:
                top = os.open(base or "", _OPEN | os.O_CLOEXEC)
            except OSError:
                continue
            break
        else:
            return found
        try:
            spot = fresh.spot or self._spots[fresh.root].get(fresh.path)
            if spot is None:  # a new home
                for path, new in spots(self._places, (fresh.path,)).items():
                    self._spots[fresh.root].setdefault(path, new)
                spot = self._spots[fresh.root][fresh.path]
            self._enter(top, fresh, fresh.path, spot, found)
        finally:
            os.close(top)
        return found

    def _enter(self, top: int, fresh: Fresh, path: str, spot: Spot, found: list[Change]) -> None:
        if not self._mark(fresh.root, top, path, spot):
            return
        for name, directory in _entries(top, path)[:MAX_FOUND]:
            inner = f"{path.rstrip('/')}/{name}"
            if not directory and (kind := spot.kind_of(name)):
                found.append(Change(fresh.pid, fresh.root, inner, kind, "create"))
            below = (
                self._spots[fresh.root].get(inner) if name in spot.below else None
            )  # the deep ones are marked with it
            if below is not None and len(found) < MAX_FOUND:
                self._enter(top, fresh, inner, below, found)

    def _changed(self, root: int, top: int, path: str, spot: Spot, first: First) -> list[Change]:
        """Not in directories that are looked at for another root: of those it was told."""
        found, below = [], []
        try:
            fd = open_below(top, path, _OPEN)
            try:
                marked = self._known.get(fanotify.node_of(fd))
                if marked is None or marked.root != root:
                    return []
                with os.scandir(fd) as entries:
                    for entry in entries:
                        inner = f"{path.rstrip('/')}/{entry.name}"
                        if entry.is_dir(follow_symlinks=False):
                            if spot.deep and (deeper := spot.into(entry.name)):
                                below.append((inner, deeper))
                        elif (kind := spot.kind_of(entry.name)) and _changed_since(entry, first.began_unix_ns):
                            found.append(Change(first.pid, root, inner, kind, "write"))
            finally:
                os.close(fd)
        except (OSError, KernelError):
            return found  # it went while we looked
        for inner, deeper in below:
            found += self._changed(root, top, inner, deeper, first)
        return found

    def forget(self, root: int) -> None:
        """The root's processes are gone. Its marks go with its file systems; those that it shared stay."""
        self._bases.pop(root, None)
        self._spots.pop(root, None)
        for node in [n for n, marked in self._known.items() if marked.root == root]:
            del self._known[node]

    def rebase(self, root: int, base: str) -> None:
        """Another directory by which the root can be reached: whose it was has ended."""
        self._bases[root] = base

    def base(self, root: int) -> str:
        """A directory that is this root, "" = none is known."""
        return self._bases.get(root, "")

    def _mark(self, root: int, top: int, path: str, spot: Spot) -> bool:
        if not spot.names and path in _BUSY:
            return True
        try:
            fd = open_below(top, path, _OPEN)
        except OSError as e:
            if e.errno not in (errno.ENOENT, errno.ENOTDIR):
                self._problem(path, e)
            return False
        try:
            self._watch(fd, _Marked(root, path, spot))
            for name in _subdirectories(fd) if spot.deep else ():
                below = spot.into(name)
                if below is not None:
                    self._watch_below(fd, name, _Marked(root, f"{path}/{name}", below))
        except (OSError, KernelError) as e:
            self._problem(path, e)
            return False
        finally:
            os.close(fd)
        return True

    def _watch_below(self, above: int, name: str, marked: _Marked) -> None:
        fd = os.open(name, _OPEN | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=above)
        try:
            self._watch(fd, marked)
        finally:
            os.close(fd)

    def _watch(self, fd: int, marked: _Marked) -> None:
        """Known before it is marked, so that its first event is understood. Who came first keeps a shared directory, but
        the workload's own view never hides a place of the host's."""
        node = fanotify.node_of(fd)
        with self._lock:  # not around anything that touches a file system: that may never come back
            if node not in self._known:
                if len(self._known) >= MAX_DIRECTORIES:
                    raise KernelError(
                        "watch directories", errno.ENOSPC, f"{MAX_DIRECTORIES} are watched, which is the most"
                    )
                self._known[node] = marked
            elif self._known[node].root == marked.root or marked.root == HOST:
                self._known[node] = marked
        spot = marked.spot
        mask = fanotify.CREATE | fanotify.MOVED_TO
        if spot.names:
            mask |= fanotify.CHANGES | fanotify.ON_CHILD
        if any(kind in ("killswitch", "cgroup") for _, kind in spot.names):
            mask |= fanotify.LOSSES
        self._group.mark(fd, mask)

    def _problem(self, path: str, why: Exception) -> None:
        if isinstance(why, Gone):
            return
        if path not in self.problems and len(self.problems) < MAX_DIRECTORIES:
            self.problems[path] = str(why)
            log.warning("not looked at for changes: %s: %s", path, why)

    # --- what changed ------------------------------------------------------------------------------------------------

    def read(self) -> tuple[list[Change], list[Fresh], bool]:
        """(changes, directories to ``enter``, whether events were lost); all empty when nothing waits. Raises KernelError."""
        changes: dict[Change, None] = {}
        fresh: list[Fresh] = []
        lost = False
        for record in self._group.read():
            if record.mask & fanotify.OVERFLOW:
                lost = True
                continue
            marked = self._known.get(record.node) if record.node else None
            if marked is None or not record.name:
                continue
            name = os.fsdecode(record.name)
            path = f"{marked.path.rstrip('/')}/{name}"
            if record.mask & fanotify.ON_DIR:
                if record.mask & (fanotify.CREATE | fanotify.MOVED_TO):
                    spot = marked.spot.into(name)
                    if spot is not None or name in marked.spot.below or marked.path == "/home":
                        fresh.append(Fresh(record.pid, marked.root, path, None if name in marked.spot.below else spot))
                if not record.mask & fanotify.LOSSES:
                    continue
            if kind := marked.spot.kind_of(name):
                for action in _actions(record.mask):
                    changes[Change(record.pid, marked.root, path, kind, action)] = None
        return list(changes), fresh, lost

    def close(self) -> None:
        self._group.close()
        self._known.clear()


_ACTIONS: Mapping[int, str] = {
    fanotify.CREATE: "create",
    fanotify.MOVED_TO: "rename",
    fanotify.MODIFY | fanotify.CLOSE_WRITE: "write",
    fanotify.DELETE | fanotify.MOVED_FROM: "delete",
}


def _actions(mask: int) -> tuple[str, ...]:
    return tuple(action for bits, action in _ACTIONS.items() if mask & bits)


def _read(top: int, path: str, limit: int) -> bytes:
    try:
        fd = open_below(top, path, os.O_RDONLY)
        try:
            return os.read(fd, limit)
        finally:
            os.close(fd)
    except OSError:
        return b""


def _entries(top: int, path: str) -> list[tuple[str, bool]]:
    """(name, whether it is a directory) of what lies in it."""
    try:
        fd = open_below(top, path, _OPEN)
        try:
            with os.scandir(fd) as found:
                return [(e.name, e.is_dir(follow_symlinks=False)) for e in found]
        finally:
            os.close(fd)
    except OSError:
        return []


def _changed_since(entry: os.DirEntry[str], unix_ns: int) -> bool:
    return entry.stat(follow_symlinks=False).st_ctime_ns >= unix_ns - _CLOCK_NS


def _subdirectories(fd: int) -> list[str]:
    try:
        with os.scandir(fd) as found:
            return [e.name for e in found if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []
