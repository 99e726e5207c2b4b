"""What a workload that ``killswitch run`` starts sees of the host: a mount namespace of its own.

Root owns the cgroup tree, /proc/sys and the disks, capabilities or not. So they are mounted read-only, or something
empty lies over them, before CMD starts; without CAP_SYS_ADMIN that cannot be undone, and a user namespace made inside
inherits it locked.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from killswitch.cli import syscalls as sys_

# Owned by root: their files change the whole host (release_agent, core_pattern, uevent_helper, sysrq-trigger …).
READ_ONLY_KINDS = frozenset({"cgroup", "cgroup2", "sysfs", "proc", "securityfs", "configfs", "pstore", "efivarfs"})
HIDDEN_KINDS = frozenset({"bpf", "debugfs", "tracefs"})
READ_ONLY_IN_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi")
# Whoever may speak to these has something started outside the workload, as root or as itself.
HOST_SOCKETS = (
    "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/io.systemd.*", "/run/docker.sock",
    "/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/podman/podman.sock", "/run/snapd.socket",
    "/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock",
    "/run/user/*/bus", "/run/user/*/systemd/private", "/run/user/*/docker.sock", "/run/user/*/podman/podman.sock",
)  # fmt: skip
DEVICES = ("/dev/mem", "/dev/kmem", "/dev/port", "/dev/watchdog*", "/dev/nvram")
# What leads out of the host and is no network of the kernel's: wires, their consoles, the log that is written to them, the
# machine's controller, the hypervisor, and network devices that a program drives itself.
WIRES = (
    "/dev/ttyS*", "/dev/ttyAMA*", "/dev/ttyUSB*", "/dev/ttyACM*", "/dev/hvc*", "/dev/console", "/dev/kmsg",
    "/dev/lp[0-9]*", "/dev/parport*", "/dev/ipmi*", "/dev/mei*", "/dev/vport*", "/dev/vhost-*",
    "/dev/infiniband", "/dev/vfio", "/dev/uio*",
)  # fmt: skip
_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Paths that do not exist are passed over. ``own_proc``: we are in a new pid namespace, which needs its own /proc."""

    own_proc: bool = True
    hidden: tuple[str, ...] = ()  # directories, sockets and other files that the workload has no business with
    read_only: tuple[str, ...] = ()
    host_sockets: bool = False
    devices: bool = False  # disks and the like stay as they are


def _steps(what: str, path: str, call: Callable[[], None]) -> None:
    try:
        call()
    except OSError as e:
        raise OSError(e.errno, f"{what} {path}") from e


def arrange(wanted: Surroundings) -> None:
    """Make the namespace and what it holds; for the process that will become CMD. OSError names the step."""
    where = os.getcwd()  # noqa: PTH109 -- a string for chdir, also when it has been removed
    _steps("make", "a mount namespace", lambda: sys_.unshare(sys_.CLONE_NEWNS))
    _steps("detach", "/", lambda: sys_.mount(None, "/", None, sys_.MS_REC | sys_.MS_SLAVE))
    if wanted.own_proc:
        flags = sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC
        _steps("mount proc at", "/proc", lambda: sys_.mount("proc", "/proc", "proc", flags))
    for point, kind, options in _mounts():
        if kind in HIDDEN_KINDS:
            _hide(point)
        elif kind in READ_ONLY_KINDS and point != "/proc" and not point.startswith("/proc/"):
            _protect(point, options)
    for name in READ_ONLY_IN_PROC:
        _bind_read_only(f"/proc/{name}")
    for path in wanted.read_only:
        _bind_read_only(path)
    for path in wanted.hidden:
        _hide(path)
    if not wanted.devices:
        for path in (*_disks(), *_found(DEVICES), *wires()):
            _hide(path)
    if not wanted.host_sockets:
        for path in _found(HOST_SOCKETS):
            _hide(path)
    # What is open goes around what was mounted over it, the working directory too.
    try:
        os.chdir(where)
    except OSError:
        os.chdir("/")


def _mounts() -> list[tuple[str, str, str]]:
    """(point, kind, options) of what is mounted and not covered."""
    found: dict[str, tuple[str, str]] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        for line in file:
            left, _, right = line.partition(" - ")
            fields = left.split(" ")
            point = fields[4]
            for octal, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                point = point.replace(octal, char)
            found[point] = (right.split(" ", 1)[0], fields[5])
    return [(point, kind, options) for point, (kind, options) in found.items()]


def _protect(point: str, options: str) -> None:
    kept = sum(_FLAGS.get(o, 0) for o in options.split(","))
    flags = kept | sys_.MS_REMOUNT | sys_.MS_BIND | sys_.MS_RDONLY
    with _unless_covered(point):
        _steps("make read-only", point, lambda: sys_.mount(None, point, None, flags))


def _bind_read_only(path: str) -> None:
    if not os.path.exists(path):  # noqa: PTH110
        return
    # Recursive: what is mounted below stays; it is made read-only by its own kind.
    _steps("bind", path, lambda: sys_.mount(path, path, None, sys_.MS_BIND | sys_.MS_REC))
    flags = sys_.MS_REMOUNT | sys_.MS_BIND | sys_.MS_RDONLY | sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC
    _steps("make read-only", path, lambda: sys_.mount(None, path, None, flags))


def _hide(path: str) -> None:
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        raise OSError(e.errno, f"look at {path}") from e
    if stat.S_ISDIR(kind):
        flags = sys_.MS_RDONLY | sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC
        _steps("hide", path, lambda: sys_.mount("tmpfs", path, "tmpfs", flags, "mode=0000,size=4k"))
    else:
        _steps("hide", path, lambda: sys_.mount("/dev/null", path, None, sys_.MS_BIND))


@contextlib.contextmanager
def _unless_covered(point: str):  # type: ignore[no-untyped-def]
    """A mount below one that has been hidden meanwhile is out of reach already."""
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.EINVAL) or os.path.ismount(point):
            raise


def _disks() -> list[str]:
    found = []
    for directory, _, names in os.walk("/dev"):
        for name in names:
            path = f"{directory}/{name}"
            with contextlib.suppress(OSError):
                if stat.S_ISBLK(os.lstat(path).st_mode):
                    found.append(path)
    return found


def wires(own_files: tuple[int, ...] = (0, 1, 2)) -> list[str]:
    """But the terminal at which CMD is started, which it goes on to use by its name."""
    own = {os.fstat(fd).st_rdev for fd in own_files if os.isatty(fd)}
    found = []
    for path in _found(WIRES):
        with contextlib.suppress(OSError):
            if os.stat(path).st_rdev not in own:  # noqa: PTH116
                found.append(path)
    return found


def _found(patterns: tuple[str, ...]) -> list[str]:
    return [os.path.realpath(path) for pattern in patterns for path in glob.glob(pattern)]  # noqa: PTH207
