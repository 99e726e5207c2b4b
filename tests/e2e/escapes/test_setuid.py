"""Setuid programs and files with capabilities give nothing."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.escapes.conftest import Inside

SCRIPT = """
import subprocess
for name in ("setuid", "capable"):
    try:
        done = subprocess.run([f"{sys.argv[1]}/{name}", "-E", "CapEff|CapBnd|Uid|NoNewPrivs", "/proc/self/status"],
                              capture_output=True, text=True)
        say(name, dict(line.split(None, 1) for line in done.stdout.splitlines()))
    except OSError as e:
        say(name, errno.errorcode[e.errno])
"""
NET_RAW, SYS_ADMIN = 1 << 13, 1 << 21


@pytest.fixture
def programs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ks-test-", dir="/tmp") as made:
        directory = Path(made)
        directory.chmod(0o755)
        for name in ("setuid", "capable"):
            shutil.copy("/usr/bin/grep", directory / name)
        (directory / "setuid").chmod(0o4755)
        subprocess.run(["setcap", "cap_net_raw,cap_sys_admin+ep", directory / "capable"], check=False)
        yield directory


def test_setuid(inside: Callable[..., Inside], user: str, programs: Path) -> None:
    tried = inside(SCRIPT, programs, user=user).results()
    for said in tried.values():
        if isinstance(said, dict):  # a file with capabilities that are not in the bounding set is not run at all
            assert said["Uid:"].split() == ["0" if user == "root" else "65534"] * 4
            assert not int(said["CapEff:"], 16) & (NET_RAW | SYS_ADMIN)
            assert not int(said["CapBnd:"], 16) & (NET_RAW | SYS_ADMIN)
            assert said["NoNewPrivs:"].strip() == "1"
    assert isinstance(tried["setuid"], dict)


def test_allowed_by_name_it_gives_root_without_what_was_taken(inside: Callable[..., Inside], programs: Path) -> None:
    said = inside(SCRIPT, programs, user="nobody", options=("--allow-new-privs",)).results()["setuid"]
    assert said["Uid:"].split()[1] == "0"
    assert 0 < int(said["CapEff:"], 16) == int(said["CapBnd:"], 16)
    assert not int(said["CapEff:"], 16) & (NET_RAW | SYS_ADMIN)
