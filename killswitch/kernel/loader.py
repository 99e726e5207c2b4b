"""A generation of the data plane: loaded from its object file or taken over from its pins, and one put in place of another."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

from killswitch.commands import Guard
from killswitch.errors import Gone, KernelError
from killswitch.kernel import abi, attach, frames, libbpf, lsm, pins, refusal, syscalls, unixhooks
from killswitch.kernel.maps import Map, Mapped, Percpu
from killswitch.kernel.tables import MAPS as TABLE_MAPS

log = logging.getLogger("killswitch.dataplane")

MAPPED = ("workloads", "control", "losses_told")
TRAFFIC = ("traffic", "traffic_activity")  # a generation from before there were any is taken over without
RESTRAINTS = ("restraints", "kill_budget")  # likewise
PROTECTED = "protected_processes"  # likewise
DAEMON = "daemon_pid"  # likewise
HANDED = "handed_sockets"  # likewise
HOLDING = ("holds", "unjudged")  # likewise
HOST = ("host", "host_rules", "host_flow")  # likewise
GUARDS = "guards"  # likewise
PERCPU = ("flows", "losses")
RINGS = ("exec_ring", "flow_ring")
HALVED = ("dfa_rows", "dfa_accepts", "clauses")  # arrays whose second half begins in their middle
PLAIN = ("workload_by_cgroup", "cgroup_slot", "processes", "process_bits", "cpu_samples", "cpu_hot", *TABLE_MAPS)


def find_object() -> Path:
    """The object file: beside the package when installed, in ``build/`` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "bpf" / "killswitch.bpf.o", package.parent / "build" / "killswitch.bpf.o"):
        if candidate.exists():
            return candidate
    raise syscalls.error(f"find the BPF object {package / 'bpf' / 'killswitch.bpf.o'}", errno.ENOENT, refusal.REBUILD)


class Loaded:
    """A generation with its maps open."""

    def __init__(self, generation: pins.Generation) -> None:
        self.generation = generation
        self.left_out: dict[str, str] = {}  # optional programs, and why the kernel runs without
        self._attaching = threading.Lock()
        self.outside_error = ""  # why what leaves gets sockets elsewhere, "" = it gets none
        self.maps: dict[str, Map] = {}
        self.rings: dict[str, int] = {}
        try:
            for name in MAPPED:
                self.maps[name] = Mapped(name, self._fd(name))
            for name in PERCPU:
                self.maps[name] = Percpu(name, self._fd(name))
            for name in PLAIN:
                self.maps[name] = Map(name, self._fd(name))
            if all((generation.maps / name).exists() for name in TRAFFIC):
                self.maps["traffic"] = Map("traffic", self._fd("traffic"))
                self.maps["traffic_activity"] = Mapped("traffic_activity", self._fd("traffic_activity"))
            if all((generation.maps / name).exists() for name in (*RESTRAINTS, PROTECTED)):
                self.maps |= {name: Mapped(name, self._fd(name)) for name in RESTRAINTS}
                self.maps[PROTECTED] = Map(PROTECTED, self._fd(PROTECTED))
            if all((generation.maps / name).exists() for name in HOLDING):
                for name in HOLDING:
                    self.maps[name] = Map(name, self._fd(name))
            if all((generation.maps / name).exists() for name in HOST):
                self.maps["host"] = Mapped("host", self._fd("host"))
                self.maps["host_rules"] = Map("host_rules", self._fd("host_rules"))
                self.maps["host_flow"] = Percpu("host_flow", self._fd("host_flow"))
            if (generation.maps / DAEMON).exists():
                self.maps[DAEMON] = Map(DAEMON, self._fd(DAEMON))
            if (generation.maps / HANDED).exists():
                self.maps[HANDED] = Map(HANDED, self._fd(HANDED))
            if (generation.maps / GUARDS).exists():
                self.maps[GUARDS] = Mapped(GUARDS, self._fd(GUARDS))
            for name in RINGS:
                self.rings[name] = self._fd(name)
        except BaseException:
            self.close()
            raise

    def _fd(self, name: str) -> int:
        return libbpf.obj_get(self.generation.maps / name)

    def mapped(self, name: str) -> Mapped:
        found = self.maps[name]
        assert isinstance(found, Mapped)
        return found

    def percpu(self, name: str) -> Percpu:
        found = self.maps[name]
        assert isinstance(found, Percpu)
        return found

    def slots(self) -> dict[int, int]:
        """Cgroup id -> slot of every watched workload."""
        found = self.maps["workload_by_cgroup"].items()
        return {int.from_bytes(k, "little"): int.from_bytes(v, "little") for k, v in found}

    def keep_outside(self, mount: Path, *, frames: bool = False) -> list[str]:
        """See to it that what leaves a severed workload gets no socket (``attach.attach_outside``); the programs that were not
        there. Where the kernel takes them not, it goes on without: told once, and again when that changes. From any thread."""
        with self._attaching:
            try:
                made, error = attach.attach_outside(self.generation, mount, frames=frames), ""
            except KernelError as e:
                made, error = [], str(e)
            if error and error != self.outside_error:
                log.error("what leaves a severed workload is killed, and may make a socket before: %s", error)
            self.outside_error = error
        return made

    def close(self) -> None:
        for opened in self.maps.values():
            opened.close()
        for fd in self.rings.values():
            os.close(fd)
        self.maps, self.rings = {}, {}


def load(obj: Path, generation: pins.Generation) -> Loaded:
    """Load the object and pin its maps and programs, but for the optional ones. Nothing is attached yet."""
    generation.create()

    def wanted(name: str) -> bool:
        return not lsm.is_optional(name) and not unixhooks.is_left_out(name)

    with libbpf.loaded(obj, wanted=wanted, types=unixhooks.TYPES) as loaded:
        maps, programs = dict(loaded.maps()), dict(loaded.programs())
        needed = {
            *MAPPED,
            *PERCPU,
            *RINGS,
            *PLAIN,
            *TRAFFIC,
            *RESTRAINTS,
            *HOLDING,
            PROTECTED,
            DAEMON,
            HANDED,
            *attach.HANDED,
            *attach.OUTSIDE,
            GUARDS,
            *attach.TRACING,
            *attach.CGROUP,
            *attach.UNIX,
            *lsm.PROGRAMS,
        }
        needed |= {*HOST, *frames.WORKLOADS, *frames.WRITTEN, *frames.SEAL, *frames.HOST, *frames.HOST_CGROUP}
        if missing := sorted(needed - maps.keys() - programs.keys() - set(loaded.left_out())):
            hint = f"it is no data plane of this release, for it has no {missing[0]}; {refusal.REBUILD}"
            raise KernelError(f"load the BPF object {obj}", errno.ENOEXEC, hint)
        for name, fd in maps.items():
            libbpf.obj_pin(fd, generation.maps / name)
        for name, fd in programs.items():
            libbpf.obj_pin(fd, generation.programs / name)
    return Loaded(generation)


@contextlib.contextmanager
def cgroup_by_id(mount: Path, cgroup_id: int) -> Iterator[int]:
    """A descriptor of the cgroup's directory. Raises Gone when it has been removed."""
    root = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = syscalls.open_kernfs_id(root, cgroup_id)
    finally:
        os.close(root)
    try:
        yield fd
    finally:
        os.close(fd)


def copy_tables(old: Loaded, new: Loaded) -> bool:
    """Carry the policy in force over, so that an upgrade opens no gap in the verdicts. False when the two generations
    keep their tables in different shapes: then the policy has to be loaded again."""
    pairs = [(old.maps[name], new.maps[name]) for name in TABLE_MAPS]
    if any((a.key_size, a.value_size) != (b.key_size, b.value_size) or a.max_entries > b.max_entries for a, b in pairs):
        return False
    for a, b in pairs:
        keys, values = a.read_packed()
        b.put_packed(keys if a.name not in HALVED else _moved(keys, a.max_entries // 2, b.max_entries // 2), values)
    at = abi.CONTROL.offset("active")
    new.mapped("control").memory[at : at + 4] = old.mapped("control").memory[at : at + 4]
    return True


def _moved(keys: bytes, old: int, new: int) -> bytes:
    """Element numbers of an array of two halves of ``old`` elements, as they are where the halves have ``new``."""
    if old == new:
        return keys
    numbers = array("I", keys)
    return array("I", [n if n < old else n - old + new for n in numbers]).tobytes()


def copy_known(old: Loaded, new: Loaded) -> bool:
    """Carry over what is known of programs that run and connections that are open, where the new generation does not know
    better. False when one of them is kept in another shape: then it is known again only of what begins from now on."""
    whole = True
    for name in ("process_bits", "traffic"):
        before, after = old.maps.get(name), new.maps[name]
        if before is None or (before.key_size, before.value_size) != (after.key_size, after.value_size):
            whole = False
            continue
        there = set(after.all_keys())
        for key, value in before.items():
            if key not in there:
                after.put(key, value)
    return whole


def read_workload(loaded: Loaded, slot: int) -> tuple[int, int, int, int, int, int, int]:
    """(cgroup id, policies by the tables in force, severed, frozen, terminated, unattended, grace in ms). These members never
    move: see struct workload."""
    element = loaded.mapped("workloads").element(slot)
    number, policies, *rest = abi.WORKLOAD_HEAD.codec.unpack(element[: abi.WORKLOAD_HEAD.size])
    other = element[abi.WORKLOAD.offset("policies_other") : abi.WORKLOAD.size]  # of an older release: nothing
    if other and loaded.mapped("control").memory[abi.CONTROL.offset("active")] & 1:
        policies = int.from_bytes(other, "little")
    severed, frozen, terminated, unattended, grace_ms = rest
    return number, policies, severed, frozen, terminated, unattended, grace_ms


def read_hold(loaded: Loaded, slot: int) -> tuple[int, int]:
    """(mode, after how many ms without a daemon it lapses), or (0, 0) of a release that holds nothing."""
    element = loaded.mapped("workloads").element(slot)
    lapse_at = abi.WORKLOAD.offset("lapse_ms")
    if len(element) < lapse_at + 4:
        return 0, 0
    return element[abi.WORKLOAD.offset("hold")], int.from_bytes(element[lapse_at : lapse_at + 4], "little")


def read_guards(loaded: Loaded, slot: int) -> Guard:
    """What the workload is guarded by. The member never moves: see struct guard."""
    found = loaded.maps.get(GUARDS)
    return Guard(int.from_bytes(found.element(slot)[:4], "little") if isinstance(found, Mapped) else 0)


def repair(loaded: Loaded, mount: Path) -> list[int]:
    """Bring what is attached in line with the workloads in the map. Returns the cgroups that are gone."""
    gone: list[int] = []
    known = loaded.slots()
    for cgroup_id, slot in known.items():
        try:
            with cgroup_by_id(mount, cgroup_id) as fd:
                attach.attach_cgroup(loaded.generation, loaded.maps["cgroup_slot"], fd, cgroup_id, slot)
        except Gone:
            gone.append(cgroup_id)
    for directory in pins.entries(loaded.generation.cgroups):
        if int(directory.name) not in known:
            pins.detach_all(directory)
    attach.attach_tracing(loaded.generation)
    return gone
