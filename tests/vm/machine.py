"""One boot: a kernel, the disks, one command inside; what it printed and its exit status come back."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.vm.kernels import Boot

MEMORY_MIB = 3072
# cx16: QEMU 7.2 panics a 6.12 kernel that may use cmpxchg16b under emulation.
CPU = "max,-cx16"
LSM = "lsm=landlock,lockdown,yama,integrity,apparmor,bpf"


@dataclass(frozen=True, slots=True)
class Ran:
    status: int | None  # None: the machine ended, or was ended, before the command did
    output: str
    console: str
    seconds: float
    shared: Path  # what the guest had at /mnt


def run(
    boot: Boot,
    root: Path,
    project: Path,
    command: str,
    shared: Path,
    *,
    timeout_s: float,
    init: str = "",
    keep: bool = False,
) -> Ran:
    """Boot, run ``command`` (a bash script) in /opt/killswitch as root, and switch off.

    ``keep``: the root disk is written to (a copy of it, then: two boots see the same disk). ``init``: another process 1
    than the one that runs the command.
    """
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(parents=True)
    (shared / "command").write_text(command)
    append = f"console=ttyS0 quiet panic=-1 {LSM}" + (f" ks.init={init}" if init else "")
    line = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", f"{MEMORY_MIB}M",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{shared}/console",
        "-kernel", boot.kernel, "-initrd", boot.initramfs, "-append", append,
        "-drive", _disk(root, snapshot=not keep), "-drive", _disk(boot.modules), "-drive", _disk(project),
        "-virtfs", f"local,path={shared},mount_tag=out,security_model=none", "-device", "virtio-rng-pci",
    ]  # fmt: skip
    began = time.monotonic()
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as machine:
        try:
            _, said = machine.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            machine.kill()
            _, said = machine.communicate()
    status = shared / "status"
    return Ran(
        int(status.read_text()) if status.exists() else None,
        _text(shared / "output"),
        _text(shared / "console") + said,
        time.monotonic() - began,
        shared,
    )


def _disk(path: Path, *, snapshot: bool = True) -> str:
    return f"file={path},format=raw,if=virtio,snapshot={'on' if snapshot else 'off'}"


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
