"""The whole host, cut off: every socket whose cgroup is the host's, in whatever network namespace, and every frame at the
devices of the host's own, but what the rules let through.

Everything is pinned beside the generations (``pin_dir/host``, ``pin_dir/devices``), so that it lasts without us and an
upgrade takes it over with no gap.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from killswitch.errors import KernelError
from killswitch.hostallow import Allowed
from killswitch.kernel import abi, bpfcall, cgroupfs, frames, libbpf, loader, netns, pins
from killswitch.kernel.maps import store_u32, store_u64

_RULES_AT, _CUT_AT = abi.HOST.offset("rules"), abi.HOST.offset("cut")
_CGROUP_AT, _SINCE_AT = abi.HOST.offset("cgroup_id"), abi.HOST.offset("since_ns")
_NOWHERE = "192.0.2.1"  # RFC 5737: nobody's


@dataclass(frozen=True, slots=True)
class Place:
    """What "the host" is: a cgroup, and a network namespace (None: the daemon's own)."""

    cgroup: Path  # its directory: that of the mount is everything
    namespace: Path | None = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[int, int | None]]:
        """(inode, descriptor or None) of the namespace. Raises KernelError when there is none."""
        if self.namespace is None:
            yield netns.own(), None
            return
        fd = netns.open_at(self.namespace)
        try:
            yield os.fstat(fd).st_ino, fd
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the kernel says now."""

    cut: bool  # the order stands
    whole: bool  # and every program that carries it out is where it has to be
    devices: tuple[str, ...]  # of the host's namespace, that are guarded
    missing: tuple[str, ...]  # what is not guarded
    rules: int
    tx_dropped: int
    rx_dropped: int


class HostCut:
    """One thread at a time may use it; ``cut``, ``release`` and ``seen`` take milliseconds."""

    def __init__(self, loaded: loader.Loaded, frames_: frames.Frames, pin_dir: Path) -> None:
        self._loaded, self._frames, self._pins = loaded, frames_, pin_dir / "host"
        self._memory = loaded.mapped("host").memory

    @property
    def is_cut(self) -> bool:
        return bool(self._memory[_CUT_AT])

    def cut(self, place: Place, allowed: Sequence[Allowed] | None) -> Seen:
        """From the moment of the call on; again: with these rules, or (None) with those that are in force. Raises KernelError
        when something of it cannot be done; what can be is in force then."""
        with place.opened() as (namespace, fd):
            if allowed is not None:
                self._put_rules(allowed, fd)
            store_u64(self._memory, _CGROUP_AT, cgroupfs.cgroup_id(place.cgroup))
            if not self.is_cut:
                store_u64(self._memory, _SINCE_AT, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            self._memory[_CUT_AT] = 1
            self._attach_cgroup(place.cgroup)
            self._frames.attach(namespace, fd, frames.HOST)
        return self.seen(place)

    def release(self, place: Place) -> Seen:
        """Raises KernelError when the host's namespace is gone; nothing is dropped any more all the same."""
        self._memory[_CUT_AT] = 0
        pins.detach_all(self._pins)
        with place.opened() as (namespace, fd):
            self._frames.detach(namespace, fd, frames.HOST)
        return self.seen(place)

    def seen(self, place: Place) -> Seen:
        """Read back: links that live, devices that carry them. Raises KernelError when there is no such namespace."""
        missing = [name for name in frames.HOST_CGROUP if not self._is_linked(name)]
        devices: list[str] = []
        with place.opened() as (namespace, fd):
            for index, name in netns.devices(fd):
                lacks = [p for p in frames.HOST if not self._frames.is_attached(namespace, index, p)]
                if lacks:
                    missing.append(name)
                else:
                    devices.append(name)
        sent, received = self.dropped()
        rules = struct.unpack_from("<I", self._memory, _RULES_AT)[0]
        return Seen(self.is_cut, self.is_cut and not missing, tuple(devices), tuple(missing), rules, sent, received)

    def dropped(self) -> tuple[int, int]:
        """Packets (sent, received) that did not go through, ever."""
        total = self._loaded.percpu("host_flow").total(0)
        return total[2], total[5]

    def answers(self, place: Place, ports: Sequence[int]) -> dict[str, bool]:
        """What the programs themselves say, of frames that are never sent: whether a connection that begins to ``nowhere``
        passes, and the answer of each of our TCP ports. Raises KernelError where a program cannot be tried."""
        with place.opened() as (_, fd):
            device = next((i for i, name in netns.devices(fd) if name != "lo"), 0)
            if not device:
                return {}

            def work() -> dict[str, bool]:
                program = libbpf.obj_get(self._loaded.generation.programs / "on_host_frame_out")
                try:
                    found = {"nowhere": bpfcall.test_frame(program, _frame(40000, 9, 0x02), device) != _SHOT}
                    for port in ports:
                        found[str(port)] = bpfcall.test_frame(program, _frame(port, 40000, 0x12), device) != _SHOT
                finally:
                    os.close(program)
                return found

            return work() if fd is None else netns.within(fd, work)

    def upgrade(self) -> None:
        """Let this generation's programs judge in the links that are pinned."""
        for pin in pins.entries(self._pins):
            with _opened(pin) as link, _opened(self._loaded.generation.programs / pin.name) as program:
                bpfcall.link_update(link, program)

    def remove(self) -> None:
        pins.detach_all(self._pins)

    def _put_rules(self, allowed: Sequence[Allowed], fd: int | None) -> None:
        indices = {name: index for index, name in netns.devices(fd)}
        known = [a for a in allowed if not a.device or a.device in indices][: abi.MAX_HOST_RULES]
        for number, rule in enumerate(known):
            value = abi.HOST_RULE.codec.pack(
                *rule.address, indices.get(rule.device, 0), *rule.local, *rule.remote, rule.protocol, rule.begun_by
            )
            self._loaded.maps["host_rules"].put(number.to_bytes(4, "little"), value)
        store_u32(self._memory, _RULES_AT, len(known))

    def _attach_cgroup(self, cgroup: Path) -> None:
        pins.make(self._pins)
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name, kind in frames.HOST_CGROUP.items():
                if self._is_linked(name):
                    continue
                (self._pins / name).unlink(missing_ok=True)
                with _opened(self._loaded.generation.programs / name) as program:
                    link = libbpf.link_cgroup(program, directory, kind, f"{name} to {cgroup}")
                    try:
                        libbpf.obj_pin(link, self._pins / name)
                    finally:
                        os.close(link)
        finally:
            os.close(directory)

    def _is_linked(self, name: str) -> bool:
        """To the cgroup that is meant: a cgroup that was removed leaves a link that leads nowhere."""
        with contextlib.suppress(KernelError), _opened(self._pins / name) as link:
            wanted = struct.unpack_from("<Q", self._memory, _CGROUP_AT)[0]
            return bool(bpfcall.link_cgroup(link) == wanted)
        return False


_SHOT = 2


def _frame(source_port: int, destination_port: int, flags: int) -> bytes:
    """A TCP segment over Ethernet, to an address that is nobody's."""
    here, there = socket.inet_aton("192.0.2.2"), socket.inet_aton(_NOWHERE)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, here, there)
    tcp = struct.pack("!HHIIBBHHH", source_port, destination_port, 0, 0, 0x50, flags, 0, 0, 0)
    return b"\x02" * 12 + b"\x08\x00" + ip + tcp


@contextlib.contextmanager
def _opened(pin: Path) -> Iterator[int]:
    fd = libbpf.obj_get(pin)
    try:
        yield fd
    finally:
        os.close(fd)


def carry_over(old: loader.Loaded, new: loader.Loaded) -> None:
    """From an older generation: whether it is cut, and what goes through."""
    before = old.maps.get("host")
    if before is None:
        return
    for key, value in old.maps["host_rules"].items():
        new.maps["host_rules"].put(key, value)
    new.mapped("host").memory[: abi.HOST.size] = old.mapped("host").memory[: abi.HOST.size]
