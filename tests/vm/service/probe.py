"""What the unit's sandbox lets a process do, tried from inside: run by ``ExecStartPre=`` of the daemon's own unit.

Writes {attempt: "done" | errno's name} as JSON to the file that is named. Nothing that is tried changes anything where it
is not refused: files are new ones of ours, clocks are set to what they are, packets go to an address that nobody has.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET = 0x10000000, 0x00020000, 0x40000000
PROT_RWX, MAP_PRIVATE_ANONYMOUS = 7, 0x22
SYS_BPF, SYS_INIT_MODULE, SYS_KEXEC_LOAD, SYS_REBOOT, SYS_PERSONALITY, SYS_KEYCTL = 321, 175, 246, 169, 135, 250


def call(name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) in (-1, 2**64 - 1):
        raise OSError(ctypes.get_errno(), name)


def system(number: int, *arguments: int) -> None:
    call("syscall", ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments))


def write(path: str, text: str = "") -> None:
    with Path(path).open("a") as file:
        file.write(text)


def set_user_id_bit() -> None:
    file = Path("/var/lib/killswitch/probe-suid")
    file.touch()
    try:
        file.chmod(stat.S_ISUID | 0o755)
    finally:
        file.unlink()


def packet_out() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", ("198.18.0.77", 9))


def packet_to_itself() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", ("127.0.0.1", 9))


def map_writable_and_executable() -> None:
    libc.mmap.restype = ctypes.c_void_p
    if libc.mmap(None, ctypes.c_size_t(4096), PROT_RWX, MAP_PRIVATE_ANONYMOUS, -1, ctypes.c_long(0)) == 2**64 - 1:
        raise OSError(ctypes.get_errno(), "mmap")


def real_time() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def set_clock() -> None:
    time.clock_settime(time.CLOCK_REALTIME, time.time())


ATTEMPTS: dict[str, Callable[[], object]] = {
    # what the daemon needs
    "write its state": lambda: write("/var/lib/killswitch/probe-state"),
    "write a cgroup": lambda: write("/sys/fs/cgroup/system.slice/killswitchd.service/cgroup.max.depth", "max"),
    "write bpffs": lambda: Path("/sys/fs/bpf/ks-test-probe").mkdir() or Path("/sys/fs/bpf/ks-test-probe").rmdir(),
    "unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
    "netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "send to itself": packet_to_itself,
    "real-time class": real_time,
    "new network namespace": lambda: call("unshare", CLONE_NEWNET),
    "bpf": lambda: system(SYS_BPF, -1, 0, 0),  # EINVAL: it is the kernel that answers, not the filter
    # what nobody who takes the daemon over is to have
    "write /etc": lambda: write("/etc/ks-test-probe"),
    "write /usr": lambda: write("/usr/ks-test-probe"),
    "write /root": lambda: write("/root/ks-test-probe"),
    "write /proc/sys": lambda: write("/proc/sys/kernel/hostname", "probe"),
    "disk": lambda: os.open("/dev/vda", os.O_RDONLY),
    "memory device": lambda: os.open("/dev/mem", os.O_RDONLY),
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
    "send outside": packet_out,
    "new user namespace": lambda: call("unshare", CLONE_NEWUSER),
    "new mount namespace": lambda: call("unshare", CLONE_NEWNS),
    "writable and executable memory": map_writable_and_executable,
    "set-user-id file": set_user_id_bit,
    "load a module": lambda: system(SYS_INIT_MODULE, 0, 0, 0),
    "load a kernel": lambda: system(SYS_KEXEC_LOAD, 0, 0, 0, 0),
    "reboot": lambda: system(SYS_REBOOT, 0, 0, 0, 0),  # wrong magic numbers: EINVAL where it is not refused
    "set the clock": set_clock,
    "set the host name": lambda: call("sethostname", b"killswitch-vm", 13),
    "another execution domain": lambda: system(SYS_PERSONALITY, 0x0400000),  # ADDR_NO_RANDOMIZE and nothing else
    "raw disk by mknod": lambda: os.mknod("/var/lib/killswitch/probe-disk", stat.S_IFBLK | 0o600, os.makedev(254, 0)),
}


def tried(attempt: Callable[[], object]) -> str:
    """In a process of its own: what is not refused must not change what is tried next."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            attempt()
            said = "done"
        except OSError as e:
            said = errno.errorcode.get(e.errno or 0, str(e))
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 100).decode()
    os.close(reading)
    os.waitpid(pid, 0)
    return said or "killed"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps({what: tried(attempt) for what, attempt in ATTEMPTS.items()}))
