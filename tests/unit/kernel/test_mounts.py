from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.kernel import cgroupfs, mounts

HYBRID = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:2 - cgroup2 cgroup2 rw
"""
SEVERAL = """\
40 23 0:30 /a /mnt/part rw - cgroup2 none rw
41 23 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw
42 23 0:30 / /srv/a\\040long\\040way/cgroup rw - cgroup2 none rw
"""


def test_a_line_with_optional_fields_is_read() -> None:
    last = mounts.parse_mountinfo(HYBRID)[-1]
    assert last == mounts.Mount(Path("/sys/fs/cgroup/unified"), "/", "cgroup2", "0:38")


def test_blanks_in_a_path_are_unescaped() -> None:
    assert mounts.parse_mountinfo(SEVERAL)[-1].point == Path("/srv/a long way/cgroup")


@pytest.mark.parametrize("text", ["", "\n", "garbage\n", "1 2 3 - tmpfs\n"])
def test_what_is_no_mount_is_passed_over(text: str) -> None:
    assert mounts.parse_mountinfo(text) == []


@pytest.mark.parametrize(
    ("text", "point"), [(HYBRID, "/sys/fs/cgroup/unified"), (SEVERAL, "/sys/fs/cgroup")], ids=["hybrid", "several"]
)
def test_the_mount_that_shows_most_is_found(text: str, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [m for m in mounts.parse_mountinfo(text) if m.kind == "cgroup2"]
    monkeypatch.setattr(cgroupfs, "mounts", lambda kind: found if kind == "cgroup2" else [])
    cgroupfs._found_mount.cache_clear()
    try:
        assert cgroupfs._found_mount() == Path(point)
    finally:
        cgroupfs._found_mount.cache_clear()


def test_cgroup_events_are_read() -> None:
    assert cgroupfs.parse_events("populated 1\nfrozen 0\n") == cgroupfs.Events(True, False)
    assert cgroupfs.parse_events("populated 0\nfrozen 1\nnew 7\n") == cgroupfs.Events(False, True)
    assert cgroupfs.parse_events("populated 1\n") == cgroupfs.Events(True, False)  # a kernel before the freezer
