"""Which file a path is, as the kernel's own inode says it: what ``file.inode_of`` compares."""

from __future__ import annotations

import os
from pathlib import Path


def os_inode(path: str) -> tuple[int, int] | None:
    """(device, inode) of the file that ``path`` leads to now, None when there is none. The device is encoded as in ``st_dev``.

    Not from stat alone: on btrfs, and on overlays over several file systems, ``stat`` answers with a device (and inode)
    that no inode in the kernel has, and a rule would never match. The mount that the file was found on says the true one.
    """
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        found = os.fstat(handle)
        told = dict(
            line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{handle}").read_text().splitlines() if ":" in line
        )
        device = _device_of_mount(told["mnt_id"].strip())
        return found.st_dev if device is None else device, int(told.get("ino", found.st_ino))
    except (OSError, KeyError):  # without procfs there is nobody else to ask
        return found.st_dev, found.st_ino
    finally:
        os.close(handle)


def _device_of_mount(mount_id: str) -> int | None:
    """None for a mount of another namespace."""
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            number, _, device, _ = line.split(" ", 3)
            if number == mount_id:
                major, _, minor = device.partition(":")
                return os.makedev(int(major), int(minor))
    return None
