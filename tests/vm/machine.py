"""One boot: a kernel, the disks, one command inside; what it printed and its exit status come back."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm.kernels import Boot

MEMORY_MIB = 3072
# cx16: QEMU 7.2 panics a 6.12 kernel that may use cmpxchg16b under emulation.
CPU = "max,-cx16"
SYSTEMD = "/opt/killswitch/tests/vm/guest/systemd.sh"
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
) -> Ran:
    """Boot, run ``command`` (a bash script) in /opt/killswitch as root, and switch off."""
    return _boot(boot, root, project, {"command": command}, "", shared, timeout_s=timeout_s)


def run_stages(
    boot: Boot, root: Path, project: Path, stages: Sequence[tuple[str, str]], shared: Path, *, timeout_s: float
) -> Ran:
    """The same under systemd, a stage a boot: (how it ends, command). It ends by ``reboot``, by ``reset`` (as when the power
    goes), or, the last one, by ``end``. The disks keep over these what was written to them, and lose it with the machine."""
    lines = "".join(f"{end}\t{command}\n" for end, command in stages)
    append = f"ks.init={SYSTEMD} systemd.unit=multi-user.target systemd.show_status=no"
    return _boot(boot, root, project, {"stages": lines}, append, shared, timeout_s=timeout_s)


def _boot(
    boot: Boot, root: Path, project: Path, given: Mapping[str, str], append: str, shared: Path, *, timeout_s: float
) -> Ran:
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(parents=True)
    for name, text in given.items():
        (shared / name).write_text(text)
    append = f"console=ttyS0 quiet panic=-1 {LSM} {append}".rstrip()
    again = () if "stages" in given else ("-no-reboot",)
    line = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", f"{MEMORY_MIB}M",
        "-nodefaults", "-no-user-config", "-display", "none", *again, "-serial", f"file:{shared}/console",
        "-kernel", boot.kernel, "-initrd", boot.initramfs, "-append", append,
        "-drive", _disk(root), "-drive", _disk(boot.modules), "-drive", _disk(project),
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


def _disk(path: Path) -> str:
    return f"file={path},format=raw,if=virtio,snapshot=on"


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
