"""Destroy every inet socket of a workload, in whatever network namespace it lives.

A socket is the workload's when its cgroup made it (the kernel tells, for sockets in our and in its processes' namespaces)
or when one of its processes holds it: inherited, passed, or made before it joined. What sock_diag cannot destroy (a bound
UDP socket, one that was never bound, a kernel without the diag module), and UDP sockets that it has destroyed, are shut
down through a duplicate of the descriptor: they send nothing any more (EPIPE). The proof is a second listing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from killswitch.errors import Gone, KernelError
from killswitch.kernel import neighbours, netns, sockdiag, unseen
from killswitch.kernel.census import Census
from killswitch.kernel.sockdiag import Diag, InetSocket

_FAMILIES = {int(f): f.name.removeprefix("AF_").lower() for f in socket.AddressFamily}  # 1 → "unix", …
_INET = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the sockets. ``complete`` is the proof: of what can carry inet traffic nothing was left."""

    destroyed: tuple[InetSocket, ...]
    shut: int  # shut down through a duplicate descriptor
    remaining: tuple[InetSocket, ...]  # listed after all was done, and not shut
    errors: tuple[str, ...]
    foreign: int  # of all those, made by another cgroup and held by the workload
    handed: int = 0  # held inet sockets that another cgroup made, or may have made: cut off by a mark of their own
    newly: int = 0  # of these, not marked before
    held: Mapping[str, int] = field(default_factory=dict)  # other kinds that its processes hold: unix, packet, raw, …
    namespaces: int = 0
    not_listed: tuple[str, ...] = ()  # protocols that this kernel cannot list
    muted: int = 0  # packet sockets that hear nothing more, and send through the devices' programs alone
    # Namespace -> datagram sockets in it that no process of the workload holds and nothing destroys: of a tunnel that it set up
    unheld: Mapping[int, tuple[InetSocket, ...]] = field(default_factory=dict)
    waited_for: int = 0  # neighbours that had not answered: what waited for them is dropped
    loose: frozenset[int] = frozenset()  # inodes of sockets to which nothing can be done: who holds one has to end

    @property
    def complete(self) -> bool:
        return not self.remaining and not self.errors


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose sockets are meant."""

    cgroups: frozenset[int]  # of the workload: its own and those below
    held: Mapping[int, tuple[int, int]]  # inode → (pid, descriptor) through which it can be reached
    spare: Container[int]  # inodes that a protected process holds too

    def wanted(self, s: InetSocket) -> bool:
        return (s.cgroup in self.cgroups or s.inode in self.held) and s.inode not in self.spare


def held_sockets(pids: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Inode → one (pid, descriptor) that leads to it. Processes that vanish meanwhile are left out."""
    found: dict[int, tuple[int, int]] = {}
    for pid in pids:
        # A process whose first thread has ended shows its descriptors with the others only.
        if not _add_sockets(found, pid, f"/proc/{pid}/fd/"):
            with contextlib.suppress(OSError):
                for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
                    if _add_sockets(found, pid, f"/proc/{pid}/task/{thread}/fd/"):
                        break
    return found


def _add_sockets(found: dict[int, tuple[int, int]], pid: int, folder: str) -> bool:
    """Whether there were any descriptors. The cost of a whole kill lies here: no Path objects."""
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return False
    for name in names:
        with contextlib.suppress(OSError):
            to = os.readlink(folder + name)  # noqa: PTH115
            if to.startswith("socket:["):
                found.setdefault(int(to[8:-1]), (pid, int(name)))
    return bool(names)


def destroy_sockets(
    pids: Iterable[int],
    cgroups: frozenset[int],
    spare: Container[int] = frozenset(),
    census: Census | None = None,
    cut: Callable[[int], object] | None = None,
    *,
    waiting: bool = False,
) -> Report:
    """Destroy the sockets that the cgroups made or the processes hold; blocks for some milliseconds: call it in a thread.

    ``spare`` are inodes of sockets that must live. ``census`` spares the walk through /proc for the processes that are in
    it. ``cut`` is called with a descriptor for each inet socket that the workload holds and did not make: what carries nothing
    any more is up to it, for destroyed it can be connected anew. ``waiting``: packets that wait for a neighbour's address in the
    network namespaces that are met are dropped, for they have left their sockets. Raises KernelError when the
    kernel has no sock_diag at all.
    """
    known = census or Census({}, {}, {})
    others = [pid for pid in pids if pid not in known.lives]
    job = _Job(Owners(cgroups, held_sockets(others) | known.held, spare), known.made_in, cut, waiting)
    job.visit(netns.own(), None)
    for inode, pid in (netns.namespaces_of(others) | {net: tid for tid, net in known.lives.items()}).items():
        if inode not in job.visited:
            with contextlib.suppress(Gone), _closing(netns.open_of_process(pid)) as fd:
                job.visit(inode, fd)
    job.shut_what_is_held()
    return job.report()


class _Job:
    """The work in progress: namespaces one by one, then what is left through its descriptors."""

    def __init__(
        self, owners: Owners, made_in: Mapping[int, int], cut: Callable[[int], object] | None, waiting: bool
    ) -> None:
        self._owners, self._made_in, self._cut, self._waiting = owners, made_in, cut, waiting
        self._handed = self._newly = self._waited_for = 0
        self.visited: set[int] = set()
        self._destroyed: list[InetSocket] = []
        self._remaining: list[InetSocket] = []
        self._found_in: dict[int, int] = {}  # inode of a socket -> its namespace
        self._errors: list[str] = []
        self._unreachable: list[str] = []
        self._shut: set[int] = set()
        self._kinds: dict[str, int] = {}
        self._muted = 0
        self._loose: set[int] = set()
        self._not_listed: set[str] = set()

    def visit(self, namespace: int, fd: int | None) -> None:
        """Destroy what sock_diag can destroy in one network namespace (``fd`` None: in our own)."""
        self.visited.add(namespace)
        with Diag(fd) as diag:
            destroyed, failed, remaining = sockdiag.destroy_matching(diag, self._owners.wanted)
            self._not_listed |= diag.missing
        self._destroyed += destroyed
        self._found_in |= {s.inode: namespace for s in remaining}
        self._remaining += remaining
        self._errors += [f"{s}: {os.strerror(code)}" for s, code in failed]
        if self._waiting:
            try:
                self._waited_for += neighbours.drop_waiting(fd)
            except KernelError as e:
                self._unreachable.append(str(e))

    def shut_what_is_held(self) -> None:
        """Look at each held socket that has not been destroyed for good: shut inet ones down, count the other kinds.

        A datagram socket that was destroyed fails once and sends again, as one that was never bound.
        """
        made_in = {s.inode: s.cgroup for s in (*self._remaining, *self._destroyed)} | dict(self._made_in)
        own = {inode for inode, cgroup in made_in.items() if cgroup in self._owners.cgroups}
        gone = {s.inode for s in self._destroyed if s.protocol == socket.IPPROTO_TCP} & own
        for inode, (pid, number) in self._owners.held.items():
            if inode in gone or inode in self._owners.spare:
                continue
            ours = sockdiag.duplicate(pid, number)
            if ours is None:
                if _leads_to(pid, number, inode):
                    self._unreachable.append(
                        f"descriptor {number} of process {pid} cannot be duplicated: not looked at"
                    )
                continue
            with contextlib.closing(ours):
                if os.fstat(ours.fileno()).st_ino == inode:  # else it was closed and reused: its owner is not frozen
                    self._look_at(ours, inode, handed=inode not in own)

    def _look_at(self, ours: socket.socket, inode: int, *, handed: bool) -> None:
        if ours.family not in _INET:
            self._count(unseen.NAMES.get(int(ours.family)) or _FAMILIES.get(int(ours.family), str(int(ours.family))))
            match unseen.close_off(ours):
                case unseen.Fate.MUTED:
                    self._muted += 1
                case unseen.Fate.SHUT:
                    self._shut.add(inode)
                case unseen.Fate.LOOSE:
                    self._loose.add(inode)
            return
        if handed and self._cut:
            try:
                self._newly += bool(self._cut(ours.fileno()))
                self._handed += 1
            except KernelError as e:
                self._unreachable.append(f"a socket that it holds and did not make is not cut off: {e}")
        with contextlib.suppress(KernelError), _closing(netns.open_of_socket(ours.fileno())) as fd:
            # made in a namespace where no process of the workload is any more: its fellows may be there too
            if (namespace := os.fstat(fd).st_ino) not in self.visited:
                self.visit(namespace, fd)
        if ours.type == socket.SOCK_RAW:
            self._count("raw")  # shutdown does not stop a raw socket from sending
            return
        with contextlib.suppress(OSError):
            ours.shutdown(
                socket.SHUT_RDWR
            )  # ENOTCONN is the answer for one without a peer, and it is shut all the same
        if inode not in {s.inode for s in self._destroyed}:
            self._shut.add(inode)

    def _count(self, kind: str) -> None:
        self._kinds[kind] = self._kinds.get(kind, 0) + 1

    def report(self) -> Report:
        left = [s for s in self._remaining if s.inode not in self._shut and s.protocol not in sockdiag.NOT_DESTROYED]
        unheld: dict[int, tuple[InetSocket, ...]] = {}
        for s in [s for s in left if s.protocol == socket.IPPROTO_UDP and s.inode not in self._owners.held]:
            namespace = self._found_in[s.inode]
            unheld[namespace] = (*unheld.get(namespace, ()), s)
            left.remove(s)
        ours = self._owners.cgroups
        foreign = {s.inode for s in (*self._destroyed, *self._remaining) if s.cgroup and s.cgroup not in ours}
        return Report(
            destroyed=tuple(self._destroyed),
            shut=len(self._shut),
            remaining=tuple(left),
            errors=(*(self._errors if left else ()), *self._unreachable),
            foreign=len(foreign),
            handed=self._handed,
            newly=self._newly,
            held=self._kinds,
            namespaces=len(self.visited),
            not_listed=tuple(sorted(self._not_listed)),
            muted=self._muted,
            unheld=unheld,
            waited_for=self._waited_for,
            loose=frozenset(self._loose),
        )


def _leads_to(pid: int, number: int, inode: int) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/fd/{number}") == f"socket:[{inode}]"  # noqa: PTH115
    return False


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
