"""Programs at network devices: what programs on a cgroup do not see.

    pin_dir/devices/<namespace>-<device>/<program>

They lie beside the generations, not in them: an upgrade puts the new generation's program into the place of the old one's,
in the same link, without a gap. Where the kernel has no such links, they are filters of the clsact discipline, which stay
without a pin. A namespace is told by its inode, a device by its index; both go with what they are pinned for.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from killswitch.errors import Gone, KernelError, NotSupported
from killswitch.kernel import bpfcall, libbpf, netns, pins, rtnetlink, tundevices

log = logging.getLogger("killswitch.dataplane")

_TCX = {"ingress": 46, "egress": 47}  # bpf_attach_type
_BEFORE = 8  # BPF_F_BEFORE, without naming another: whoever is there cannot let anything past us
_HANDLE = 0x4B53

# Program -> which way it looks.
WORKLOADS: Mapping[str, str] = {"on_frame_out": "egress"}
WRITTEN: Mapping[str, str] = {"on_frame_written": "ingress"}  # at devices that programs write frames into
SEAL: Mapping[str, str] = {
    "on_sealed": "egress"
}  # by links alone: what lets nothing through must be known of after a restart
HOST: Mapping[str, str] = {"on_host_frame_in": "ingress", "on_host_frame_out": "egress"}
HOST_CGROUP: Mapping[str, int] = {"on_host_ingress": 0, "on_host_egress": 1}  # -> bpf_attach_type, as in ``attach``
_PRIORITY = {"on_frame_out": 1, "on_frame_written": 2, "on_host_frame_in": 1, "on_host_frame_out": 2, "on_sealed": 3}

_SCHED_CLS, _SHOT = 3, 2
# Program -> another that does the same, for the moment in which its link is made anew: the kernel takes none twice at a device.
_TWINS = {"on_frame_out": "on_frame_written", "on_frame_written": "on_frame_out"}
_OURS = (*WORKLOADS, *WRITTEN, *SEAL, *HOST)

_UNKNOWN = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)  # what a kernel without tcx says


@dataclass(frozen=True, slots=True)
class Attached:
    """What came of attaching to every device of a namespace."""

    devices: tuple[str, ...]  # that have all the programs
    errors: tuple[str, ...] = ()
    made: int = 0  # attachments that were not there before


@dataclass(slots=True)
class Frames:
    """``programs``: where the generation's programs are pinned. Blocks for a millisecond a device: call it in a thread."""

    programs: Path
    pin_dir: Path
    links: bool = True  # until the kernel says otherwise
    _lock: threading.Lock = field(default_factory=threading.Lock)  # who severs and who patrols may come at one time
    filters: set[tuple[int, int, str]] = field(default_factory=set)  # (namespace, device, program), attached as filters

    @property
    def devices(self) -> Path:
        return self.pin_dir / "devices"

    def attach(self, namespace: int, fd: int | None, programs: Mapping[str, str]) -> Attached:
        """To every device of the namespace (``fd`` None: our own), its loopback included; ``WRITTEN`` to those that they are for.
        Again: what is new."""

        def work() -> Attached:
            done, errors, made = [], [], 0
            for index, name in socket.if_nameindex():
                wanted = programs
                if programs is WRITTEN or programs is WORKLOADS:
                    written = tundevices.is_one(name)
                    if programs is WRITTEN and not written:
                        continue
                    wanted = {**programs, **(WRITTEN if written else {})}
                try:
                    made += sum(self._attach(namespace, index, p, way) for p, way in wanted.items())
                    done.append(name)
                except Gone:
                    pass  # the device went while we looked
                except KernelError as e:
                    errors.append(f"{name}: {e}")
            return Attached(tuple(done), tuple(errors), made)

        with self._lock:
            return work() if fd is None else netns.within(fd, work)

    def sealed(self) -> frozenset[int]:
        """The namespaces in which nothing is let out, whoever sends it."""
        found = (d.name.partition("-")[0] for d in pins.entries(self.devices) for p in SEAL if (d / p).exists())
        return frozenset(int(namespace) for namespace in found)

    def unseal(self, namespace: int) -> None:
        """Links go by their pins: nobody needs to enter the namespace, which may be gone."""
        with self._lock:
            for directory in pins.entries(self.devices):
                if directory.name.startswith(f"{namespace}-"):
                    for program in SEAL:
                        pins.detach(directory / program)
                    with contextlib.suppress(OSError):  # another's are there
                        directory.rmdir()

    def detach(self, namespace: int, fd: int | None, programs: Mapping[str, str]) -> None:
        """From every device of the namespace."""
        for directory in pins.entries(self.devices):
            if directory.name.startswith(f"{namespace}-"):
                for program in programs:
                    if (pin := directory / program).exists():
                        pins.detach(pin)
                with contextlib.suppress(OSError):  # another's are there
                    directory.rmdir()

        def work() -> None:
            for index, _ in socket.if_nameindex():
                for program, way in programs.items():
                    with contextlib.suppress(KernelError):
                        rtnetlink.delete_filter(index, way, handle=_HANDLE, priority=_PRIORITY[program])
                    self.filters.discard((namespace, index, program))

        if not self.links:
            if fd is None:
                work()
            else:
                netns.within(fd, work)

    def is_attached(self, namespace: int, index: int, program: str) -> bool:
        """Asked of the kernel; of a filter only whether we attached it."""
        pin = self.devices / f"{namespace}-{index}" / program
        with _opened(pin) as link:
            if link is not None:
                return bpfcall.link_device(link) == index
        return (namespace, index, program) in self.filters

    def upgrade(self) -> None:
        """Let what is pinned be judged by this generation's programs. Raises KernelError."""
        for directory in pins.entries(self.devices):
            for pin in pins.entries(directory):
                self._replace(pin)
            with contextlib.suppress(OSError):
                directory.rmdir()

    def tidy(self) -> None:
        """Let go of links whose device is gone."""
        for directory in pins.entries(self.devices):
            for pin in pins.entries(directory):
                with _opened(pin) as link:
                    gone = link is not None and not bpfcall.link_device(link)
                if gone:
                    pin.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                directory.rmdir()

    def remove(self) -> None:
        """Detach and unpin everything that is pinned. Filters go with their devices, or by ``detach``."""
        for directory in pins.entries(self.devices):
            pins.detach_all(directory)
        with contextlib.suppress(OSError):
            self.devices.rmdir()

    def _attach(self, namespace: int, index: int, program: str, way: str) -> bool:
        known = self.is_attached(namespace, index, program)
        if known and self.links:  # a filter is set anew: the numbers may be those of a namespace that is gone
            return self._put_first(namespace, index, program, way)
        fd = libbpf.obj_get(self.programs / program)
        try:
            if program in SEAL:
                if not self.links or not self._link(namespace, index, program, fd, way):
                    raise NotSupported(
                        f"seal device {index}", errno.EOPNOTSUPP, "the kernel has no links for it (tcx, 6.6)"
                    )
                return True
            if self.links and self._link(namespace, index, program, fd, way):
                return True
            rtnetlink.set_filter(index, way, fd, program, handle=_HANDLE, priority=_PRIORITY[program])
            self.filters.add((namespace, index, program))
            return not known
        finally:
            os.close(fd)

    def _put_first(self, namespace: int, index: int, program: str, way: str) -> bool:
        """Whoever has come before ours at the device could let frames past it: it is put first again. False where it is first."""
        pin = self.devices / f"{namespace}-{index}" / program
        with _opened(pin) as link:
            if program in HOST or link is None or not self._is_preceded(link, index, way):
                return False
        log.error("%s at device %d was not asked first: somebody's program lay before it", program, index)
        with (
            _held(self._twin(program)) as twin,
            _held(libbpf.obj_get(self.programs / program)) as fd,
            _held(bpfcall.link(twin, index, _TCX[way], _BEFORE)),
        ):
            pins.detach(pin)
            self._link(namespace, index, program, fd, way)
        return True

    def _twin(self, program: str) -> int:
        if program in SEAL:
            return bpfcall.load(_SCHED_CLS, bpfcall.allow(_SHOT))
        return libbpf.obj_get(self.programs / _TWINS[program])

    def _is_preceded(self, link: int, index: int, way: str) -> bool:
        """Whether somebody's program is asked before this link's. One with the instructions of ours says nothing that ours does
        not say: it is another daemon's."""
        own = bpfcall.link_program(link)
        before = list(itertools.takewhile(lambda n: n != own, bpfcall.programs_at(index, _TCX[way])))
        if not before:
            return False
        ours = set()
        for name in _OURS:
            with _held(libbpf.obj_get(self.programs / name)) as fd:
                ours.add(bpfcall.tag(fd))
        with contextlib.suppress(Gone):
            return any(bpfcall.tag_by_id(n) not in ours for n in before)
        return False  # it has gone meanwhile

    def _link(self, namespace: int, index: int, program: str, fd: int, way: str) -> bool:
        """False when this kernel has no such links."""
        try:
            link = bpfcall.link(fd, index, _TCX[way], _BEFORE)
        except KernelError as e:
            if e.code not in _UNKNOWN:
                raise
            self.links = False
            return False
        directory = self.devices / f"{namespace}-{index}"
        try:
            pins.make(self.devices)
            pins.make(directory)
            (directory / program).unlink(missing_ok=True)  # of a device that is gone, which had the same number
            libbpf.obj_pin(link, directory / program)
        finally:
            os.close(link)
        return True

    def _replace(self, pin: Path) -> None:
        with _opened(pin) as link:
            if link is None or not bpfcall.link_device(link):
                pin.unlink(missing_ok=True)
                return
            fd = libbpf.obj_get(self.programs / pin.name)
            try:
                bpfcall.link_update(link, fd)
            finally:
                os.close(fd)


@contextlib.contextmanager
def _held(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(pin: Path) -> Iterator[int | None]:
    try:
        fd = libbpf.obj_get(pin)
    except KernelError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)
