"""The data plane, as the rest of the program sees it: watch cgroups, contain them, load policies, read events.

Everything that decides lives in the kernel and stays pinned: this object may go away at any time, and the next one
adopts what it finds. One at a time may use a pin directory (the daemon's lock sees to it).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from killswitch.commands import Containment, Guard, KernelTables
from killswitch.errors import Gone, KernelError
from killswitch.events import CgroupRemoved, Cpu, Event, Flow, Lost
from killswitch.kernel import abi, attach, census, loader, netns, pins, syscalls, upgrade
from killswitch.kernel.census import Census
from killswitch.kernel.cpu import Sampler, Windows
from killswitch.kernel.frames import WORKLOADS, Attached, Frames
from killswitch.kernel.handed import Handed
from killswitch.kernel.holds import Holds
from killswitch.kernel.hostcut import HostCut
from killswitch.kernel.losses import Losses
from killswitch.kernel.mounts import ensure_bpffs
from killswitch.kernel.ring import Ring
from killswitch.kernel.slots import Slots
from killswitch.kernel.tables import Tables
from killswitch.kernel.traffic import Traffic
from killswitch.kernel.watched import Flows, KernelWorkload

log = logging.getLogger("killswitch.dataplane")


class DataPlane:
    """Made by ``open``. Not thread-safe: one event loop uses it."""

    adopted: bool  # found pinned, and nothing had to be loaded
    frames: Frames  # what is attached to network devices
    host: HostCut  # the whole host's containment
    sampler_error: KernelError | None  # why CPU use is not sampled here, None = it is

    def __init__(self, loaded: loader.Loaded, mount: Path, *, adopted: bool) -> None:
        self._loaded, self._mount, self.adopted = loaded, mount, adopted
        self._slots = Slots(loaded)
        self._tables = Tables(loaded.maps, loaded.mapped("control"))
        self._losses = Losses(loaded)
        self.holds = Holds(loaded)
        self._windows = Windows(loaded.maps["cpu_samples"], loaded.maps["cpu_hot"])
        self._traffic = Traffic(loaded.maps["traffic"], loaded.mapped("traffic_activity"))
        self._exec_ring, self._flow_ring = (Ring(name, fd) for name, fd in loaded.rings.items())
        pin_dir = loaded.generation.path.parent
        self.frames = Frames(loaded.generation.programs, pin_dir)
        self.host = HostCut(loaded, self.frames, pin_dir)
        self._poll = select.epoll()
        for fd in loaded.rings.values():
            self._poll.register(fd, select.EPOLLIN)
        self._sampler = self._start_sampler()
        self._pending: list[Lost] = []
        self._handed = Handed(loaded, mount)
        self._ends: list[int] = []  # of the execs that were drained last

    @classmethod
    def open(cls, pin_dir: Path, *, cgroup_mount: Path, obj: Path | None = None) -> DataPlane:
        """Adopt what is pinned in ``pin_dir`` (an absolute path on bpffs), or load it.

        ``obj`` is the BPF object file, by default the one that came with the package. Where another object's data plane
        is pinned, the new one takes its place with no gap in containment. Raises KernelError when the kernel refuses.
        """
        obj = obj or loader.find_object()
        ensure_bpffs(pin_dir)
        loaded, adopted, lost = upgrade.bring_up(pin_dir, cgroup_mount, obj)
        try:
            plane = cls(loaded, cgroup_mount, adopted=adopted)
        except BaseException:
            loaded.close()
            raise
        plane._pending += lost
        plane._windows.restart()
        if told := loaded.maps.get(loader.DAEMON):
            told.put(bytes(4), os.getpid().to_bytes(4, "little"))
        return plane

    # --- workloads --------------------------------------------------------------------------------------------------

    def watch(self, cgroup_id: int, cgroup_path: Path, policies: int) -> None:
        """Watch a cgroup (an absolute path below the mount) and all that is below it. Again: sets its policies.

        Raises Gone when another cgroup, or none, lies at the path, and KernelError when it lies too deep, when too
        many are watched, or when the kernel refuses to attach. Nothing is left half done.
        """
        if cgroup_id in self._slots:
            return self.set_policies(cgroup_id, policies)
        self._check_level(cgroup_path)
        with _opened(cgroup_path, cgroup_id) as fd:
            slot = self._slots.take(cgroup_id, policies)
            try:
                attach.attach_cgroup(self._loaded.generation, self._loaded.maps["cgroup_slot"], fd, cgroup_id, slot)
            except BaseException:
                self._slots.free(cgroup_id)
                raise
            self._slots.seed(cgroup_id, cgroup_path)
        self._sample_if_watched()

    def unwatch(self, cgroup_id: int) -> None:
        """Stop watching: its containment in the kernel ends with that. Unknown cgroups are no error."""
        pins.detach_all(self._loaded.generation.cgroup(cgroup_id))
        self._slots.free(cgroup_id)
        self._let_go_of_handed()
        self._sample_if_watched()

    def reattach(self, cgroup_id: int, cgroup_path: Path) -> list[str]:
        """Put programs back that are no longer attached to a watched cgroup, and what maps say of it; their names. Takes some
        0.1 ms when all is in place. Raises Gone when it is not watched or not there, KernelError when they cannot be attached."""
        slot = self._slots.slot(cgroup_id)
        lost = attach.detached(self._loaded.generation, cgroup_id)
        if lost and not (self._loaded.generation.programs / lost[0].name).exists():
            hint = "the pins of the data plane were removed: only a start can load it anew"
            raise KernelError(f"attach programs to {cgroup_path} again", errno.ESTALE, hint)
        if lost:
            for pin in lost:
                pin.unlink(missing_ok=True)
            with _opened(cgroup_path, cgroup_id) as fd:
                attach.attach_cgroup(self._loaded.generation, self._loaded.maps["cgroup_slot"], fd, cgroup_id, slot)
        return [pin.name for pin in lost] + self._slots.mend(cgroup_id)

    def keep_outside(self) -> list[str]:
        """Put the programs back by which what leaves a severed workload gets no socket; the names of those that were off. Takes
        some 0.1 ms when there are none. Never raises: a kernel that does not take them is told of in the log."""
        return self._loaded.keep_outside(self._mount)

    def set_policies(self, cgroup_id: int, policies: int) -> None:
        """Which policies apply: bit n is policy n of the tables in force. Raises Gone when it is not watched."""
        self._slots.set_policies(cgroup_id, policies)

    def workloads(self) -> dict[int, KernelWorkload]:
        """Everything that is watched, by cgroup id, as it is pinned in the kernel."""
        slots = self._slots
        return {c: KernelWorkload(c, slots.policies(c), slots.containment(c), slots.unattended(c)) for c in slots}

    def set_containment(self, cgroup_id: int, containment: Containment) -> None:
        """What is desired for a workload. ``severed`` is in force when this returns: no packet, no new socket. Raises
        Gone when it is not watched."""
        self._slots.set_containment(cgroup_id, containment)
        if not containment.severed:
            self._let_go_of_handed()

    def containment(self, cgroup_id: int) -> Containment:
        """As it is in the kernel. Raises Gone when it is not watched."""
        return self._slots.containment(cgroup_id)

    def set_grace(self, cgroup_id: int, grace_ms: int) -> None:
        """How long its traffic may go on while nobody drains the events: after that the programs sever it by themselves, and
        it stays so until ``set_containment`` says otherwise. 0 = for ever. Raises Gone when it is not watched."""
        self._slots.set_grace(cgroup_id, grace_ms)

    def set_hold(self, cgroup_id: int, mode: abi.HoldMode, lapse_ms: int) -> None:
        """Whose packets wait until ``judged`` says that the exec is judged; ``lapse_ms``: they wait no longer when nobody has
        drained for so long, 0 = they do. Raises Gone when it is not watched."""
        self._slots.beat()
        self._slots.set_hold(cgroup_id, mode, lapse_ms)

    def set_guards(self, cgroup_id: int, guards: Guard) -> None:
        """What LSM programs refuse it also while it is free, where this kernel has them. Raises Gone when it is not watched."""
        self._slots.set_guards(cgroup_id, guards)

    def denied(self, cgroup_id: int) -> dict[str, int]:
        """How often LSM programs have refused it what, since it is watched. Raises Gone."""
        counts = self._slots.denied(cgroup_id)
        return {abi.Denied(i).name.lower(): n for i, n in enumerate(counts) if n}

    @property
    def left_out(self) -> dict[str, str]:
        """Optional programs (``lsm.PROGRAMS``) that this kernel runs without, and why."""
        return dict(self._loaded.left_out)

    def beat(self) -> None:
        """Somebody is there, although nothing is drained just now: see ``set_grace``."""
        self._slots.beat()

    def unattended(self, cgroup_id: int) -> bool:
        """Whether the programs severed it by themselves. Raises Gone when it is not watched."""
        return self._slots.unattended(cgroup_id)

    def attended(self, cgroup_id: int) -> None:
        """A daemon has taken note of it: from now on its containment is what was ordered. Raises Gone."""
        self._slots.attended(cgroup_id)

    # --- what verdicts must not do ----------------------------------------------------------------------------------

    def protect(self, processes: Iterable[tuple[int, int, bool]]) -> None:
        """No verdict kills exactly these (pid, start ticks, whether it is an sshd, whose helpers are not killed either), nor
        refuses what they send. Raises KernelError when too many."""
        self._slots.restraints.protect(processes)

    def shield(self, cgroup_id: int, shielded: bool) -> None:
        """No verdict severs a workload that is shielded. Raises Gone when it is not watched."""
        self._slots.restraints.shield(self._slots.slot(cgroup_id), shielded)

    def shielded(self, cgroup_id: int) -> bool:
        """Raises Gone when it is not watched."""
        return self._slots.restraints.shielded(self._slots.slot(cgroup_id))

    def charges(self) -> tuple[int, frozenset[int]]:
        """Workloads that verdicts have hit, ever: how many; and those that count against the budget now."""
        restraints = self._slots.restraints
        spent = restraints.spent()  # first: a verdict marks the workload before it counts it
        slots = self._slots.by_slot()
        return spent, frozenset(cgroup for slot, cgroup in slots.items() if restraints.charged(slot))

    def allow_kills(
        self, spent: int, more: int | None, *, charged: Iterable[int] = (), refunded: Iterable[int] = ()
    ) -> None:
        """Verdicts may hit ``more`` workloads beyond the ``spent`` of ``charges`` (None: any number), and those that are
        ``charged`` already; no longer the ``refunded`` (cgroup ids; who is not watched is passed over)."""
        restraints = self._slots.restraints
        for cgroups, value in ((refunded, False), (charged, True)):
            for cgroup in cgroups:
                if cgroup in self._slots:
                    restraints.charge(self._slots.slot(cgroup), value)
        restraints.allow(spent, more)

    def exempt(self, cgroup_id: int) -> None:
        """Verdicts act on it whatever is left of the budget, and take nothing from it. Raises Gone when it is not watched."""
        self._slots.restraints.charge(self._slots.slot(cgroup_id), True)

    def flows(self, cgroup_id: int) -> Flows:
        """Raises Gone when it is not watched."""
        return Flows(*self._loaded.percpu("flows").total(self._slots.slot(cgroup_id)))

    def census(self, cgroups: frozenset[int] | None) -> Census:
        """Who of these cgroups (watched, or below a watched one; None: of all of those) holds which socket. Blocks for
        milliseconds; from any thread. Raises KernelError."""
        return census.take(self._loaded.generation.programs, cgroups)

    def cut_handed(self, cgroup_id: int, fd: int) -> bool:
        """Cut off, with the workload, a socket that one of its processes holds and another cgroup made: packets of what this
        descriptor of ours leads to are dropped while the workload is severed. False when that was done before. From any
        thread. Raises Gone when it is not watched, KernelError when the kernel refuses."""
        return self._handed.cut(cgroup_id, self._slots.slot(cgroup_id), fd)

    def _let_go_of_handed(self) -> None:
        if not any(self._slots.containment(c).severed for c in self._slots):
            self._handed.let_go()

    def guard_namespace(self, inode: int, tid: int, programs: Mapping[str, str] = WORKLOADS) -> Attached:
        """Judge frames of packet sockets (or what ``programs`` are for) at every device of the network namespace with this
        inode, in which the thread lives; what is judged already stays. From any thread. Raises Gone, KernelError."""
        self._loaded.keep_outside(self._mount, frames=True)
        if inode == netns.own():
            return self.frames.attach(inode, None, programs)
        fd = netns.open_of_process(tid)
        try:
            return self.frames.attach(inode, fd, programs)
        finally:
            os.close(fd)

    def tidy(self) -> None:
        """Let go of what is pinned for devices that are gone. From any thread."""
        self.frames.tidy()

    # --- policy -----------------------------------------------------------------------------------------------------

    @property
    def policy_generation(self) -> int:
        """Of the tables that are in force; 0 = none."""
        return self._tables.generation

    def load_policy(self, tables: KernelTables, generation: int) -> None:
        """Judge execs by these tables from now on. Raises KernelError, the old ones staying in force, when they do not
        fit. ``generation`` is a positive number below 2^32."""
        self.prepare_policy(tables, generation)
        self.switch_policy({})

    def prepare_policy(self, tables: KernelTables, generation: int) -> None:
        """Bring the tables into the kernel, beside those in force: what takes time of ``load_policy``. For a thread."""
        self._tables.fill(tables, generation)

    def switch_policy(self, policies: Mapping[int, int]) -> None:
        """Judge by what was prepared last from now on, without a gap: every verdict is by the old tables and policies, or by the
        new ones. ``policies``: of each workload (cgroup id), as ``set_policies``; those not named keep theirs."""
        self._slots.number_anew(policies)
        self._tables.switch()

    def tell_program(self, pid: int, start_ticks: int, bits: int, generation: int) -> None:
        """What the tables of this generation say of the program that a watched process runs, for the rules about the wire. The
        kernel finds out by itself at every exec, so this is for what ran before, and yields to what is known already."""
        self._tables.tell_program(pid, start_ticks, bits, generation)

    # --- events -----------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable when execs or cgroup events wait, or a great many others. Forks, exits and flows alone do not wake:
        call ``drain`` by a timer as well."""
        return self._poll.fileno()

    def drain(self, limit: int) -> list[Event]:
        """At most ``limit`` events: execs and cgroup events first, then the rest. A watched cgroup that was removed is
        no longer watched when its ``CgroupRemoved`` comes out. Who drains is there: this is the heartbeat that ``set_grace``
        counts from."""
        self._slots.beat()
        events: list[Event] = []
        self._ends = []
        self._exec_ring.drain(events, limit, self._ends)
        for event in events:
            if isinstance(event, CgroupRemoved) and event.cgroup_id in self._slots:
                self.unwatch(event.cgroup_id)
        if len(events) < limit:
            self._flow_ring.drain(events, limit - len(events))
        return events

    def judged(self, count: int) -> None:
        """So many of the events that ``drain`` gave last are judged, or are said to ``holds`` to be judged late: who waited for
        them may send."""
        if count >= len(self._ends):
            self.holds.publish(self._exec_ring.position)
        elif count:
            self.holds.publish(self._ends[count - 1])

    def losses(self) -> list[Lost]:
        """What was lost since the last call (of this daemon or of one before it), by workload and reason."""
        pending, self._pending = self._pending, []
        return pending + self._losses.take(self._slots.by_slot())

    def cpu_window(self) -> list[Cpu]:
        """CPU use of watched processes since the last call."""
        return self._windows.take()

    def traffic(self) -> list[Flow]:
        """Connections of watched workloads over which something went since the last call, and what; those to the host
        itself first. Costs nothing while nothing happens."""
        return self._traffic.take()

    # --- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go. Everything stays in force, and is adopted by the next ``open``."""
        if self._sampler:
            self._sampler.close()
        self._poll.close()
        self._exec_ring.close()
        self._flow_ring.close()
        self._loaded.close()

    def remove(self) -> None:
        """Let go, detach and unpin everything: nothing is watched or contained any more."""
        pin_dir = self._loaded.generation.path.parent
        self.host.remove()
        self.frames.remove()
        self.close()
        for generation in pins.generations(pin_dir):
            generation.remove()
        with contextlib.suppress(OSError):  # somebody else's pins are in it
            pin_dir.rmdir()

    def _start_sampler(self) -> Sampler | None:
        self.sampler_error = None
        try:
            with attach.opened(self._loaded.generation.programs / attach.SAMPLER) as program:
                sampler = Sampler(program)
        except KernelError as e:
            self.sampler_error = e
            log.warning("CPU use is not sampled, rules on cpu cannot match: %s", e)
            return None
        sampler.enable(len(self._slots) > 0)
        return sampler

    def _sample_if_watched(self) -> None:
        if self._sampler:
            self._sampler.enable(len(self._slots) > 0)

    def _check_level(self, cgroup_path: Path) -> None:
        level = len(cgroup_path.relative_to(self._mount).parts)
        if level > abi.MAX_WORKLOAD_LEVEL:
            hint = f"it lies {level} levels deep, at most {abi.MAX_WORKLOAD_LEVEL} can be told apart: watch a parent"
            raise KernelError(f"watch {cgroup_path}", errno.ELOOP, hint)


@contextlib.contextmanager
def _opened(path: Path, cgroup_id: int) -> Iterator[int]:
    """A descriptor of the cgroup's directory, which must still be the cgroup with this id."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise syscalls.error(f"open cgroup {path}", e) from e
    try:
        if os.fstat(fd).st_ino != cgroup_id:
            raise Gone(f"cgroup {path}", errno.ESTALE, f"another one than id {cgroup_id} lies there now")
        yield fd
    finally:
        os.close(fd)
