"""Debian's kernels, fetched once and kept: the kernel itself, an initramfs that finds the disks, and its modules as a disk."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.vm.apt import AptError, apt_for

CACHE = Path(__file__).parents[2] / "build" / "vm"
GUEST = Path(__file__).parent / "guest"

# What the initramfs must load before it sees a disk or a shared folder; what these need comes along.
EARLY = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "9pnet_virtio", "9p")


@dataclass(frozen=True, slots=True)
class Kernel:
    name: str  # as DESIGN names it
    suite: str
    pattern: str  # of the package's name


@dataclass(frozen=True, slots=True)
class Boot:
    """What QEMU is given."""

    release: str
    kernel: Path
    initramfs: Path
    modules: Path  # an ext4 image, to lie at /lib/modules


KERNELS = (
    Kernel("5.10", "bullseye", r"^linux-image-5\.10\.[0-9-]+-amd64$"),
    Kernel("6.1", "bookworm", r"^linux-image-6\.1\.[0-9-]+-amd64$"),
    Kernel("6.12", "bookworm-backports", r"^linux-image-6\.12\.[0-9]+\+deb12-amd64$"),
)


def fetch(kernel: Kernel) -> Boot:
    """From the cache, or from Debian. Raises AptError."""
    place = CACHE / "kernels" / kernel.name
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        with apt_for(kernel.suite) as apt:
            names = apt.names(kernel.pattern)
            if not names:
                raise AptError(f"the suite {kernel.suite} has no package {kernel.pattern}")
            package = apt.download(names[-1], place)
        subprocess.run(["dpkg-deb", "-x", package, place / "root"], check=True)
        package.unlink()
        (place / "complete").touch()
    [vmlinuz] = (place / "root/boot").glob("vmlinuz-*")
    release = vmlinuz.name.removeprefix("vmlinuz-")
    modules = place / "modules.ext4"
    if not modules.exists():
        _modules_image(place / "root/lib/modules", release, modules)
    initramfs = place / "initramfs.gz"
    _initramfs(place / "root/lib/modules" / release, initramfs)
    return Boot(release, vmlinuz, initramfs, modules)


def _modules_image(modules: Path, release: str, image: Path) -> None:
    subprocess.run(["depmod", "-b", modules.parents[1], release], check=True)
    partial = image.with_suffix(".partial")
    command = ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", modules, partial, _size(modules, spare=1.3)]
    subprocess.run(command, check=True, capture_output=True)
    partial.rename(image)


def _size(folder: Path, *, spare: float) -> str:
    used = subprocess.run(["du", "-sk", folder], capture_output=True, text=True, check=True).stdout.split()[0]
    return f"{int(int(used) * spare) + 32 * 1024}k"


def _initramfs(modules: Path, target: Path) -> None:
    """busybox, the modules in the order that they need one another, and a script that mounts the disks."""
    place = target.parent / "initramfs"
    shutil.rmtree(place, ignore_errors=True)
    for folder in ("bin", "modules", "dev", "proc", "root"):
        (place / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", place / "bin/busybox")
    order = _in_order(modules)
    for number, module in enumerate(order):
        raw = (modules / module).read_bytes()
        name = Path(module).name.split(".ko")[0]
        (place / f"modules/{number:02}-{name}.ko").write_bytes(lzma.decompress(raw) if module.endswith(".xz") else raw)
    shutil.copy(GUEST / "initramfs.sh", place / "init")
    (place / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(place)) for path in sorted(place.rglob("*")))
    archive = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"], cwd=place, input=names.encode(), capture_output=True, check=True
    )
    target.write_bytes(gzip.compress(archive.stdout, 1))


def _in_order(modules: Path) -> list[str]:
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        module, _, others = line.partition(":")
        needs[module] = others.split()
    by_name = {Path(module).name.split(".ko")[0]: module for module in needs}
    order: list[str] = []

    def take(module: str) -> None:
        for other in needs[module]:
            take(other)
        if module not in order:
            order.append(module)

    for name in EARLY:
        if name in by_name:  # else it is built in
            take(by_name[name])
    return order
