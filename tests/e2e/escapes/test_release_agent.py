"""cgroup v1 has the kernel start a program outside, as root, when a cgroup of it empties: root names the program, and the end of
the workload is what empties it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside
from tests.e2e.escapes.loose import Loose, covered, judge
from tests.rig import clean_host
from tests.rig.emulated import patience

SCRIPT = """
hierarchy, helper = sys.argv[1:]
def write(path, text):
    with open(path, "w") as file:
        file.write(text)
write(f"{hierarchy}/release_agent", helper)
for name in ("free", "at the end"):
    os.mkdir(f"{hierarchy}/{name}")
    write(f"{hierarchy}/{name}/notify_on_release", "1")
write(f"{hierarchy}/free/cgroup.procs", "0")
write(f"{hierarchy}/at the end/cgroup.procs", "0")     # the other is empty now
go()
time.sleep(60)
"""


@pytest.fixture
def hierarchy() -> Iterator[Path]:
    """A tree of cgroup v1 of the test's own, without a controller."""
    with tempfile.TemporaryDirectory(prefix="ks-test-", dir="/tmp") as made:
        point = Path(made, "v1")
        point.mkdir()
        mount = ["mount", "-t", "cgroup", "-o", f"none,name=ks-test-{os.getpid()}", "none", point]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("this kernel has no cgroup v1")
        try:
            yield point
        finally:
            for child in point.iterdir():
                if child.is_dir():
                    clean_host.remove_cgroup(child)
            subprocess.run(["umount", "--lazy", point], check=True)


def test_release_agent(hierarchy: Path, loose: Callable[..., Loose], shared_daemon: Daemon) -> None:
    """Frozen, nothing empties. Terminated, the kernel tells: what it starts is root's, and nobody's."""
    helper, told = hierarchy.parent / "helper", hierarchy.parent / "told"
    helper.write_text(f'#!/bin/sh\necho "$1" >> {told}\n')
    helper.chmod(0o755)
    script = loose(SCRIPT, hierarchy, helper)
    script.ready()
    shared_daemon.wait_for("free, it is started", lambda: told.exists() and "/free" in told.read_text())
    script.kill()
    assert "at the end" not in told.read_text()
    assert shared_daemon.client.terminate(script.name, "escape test").complete
    script.process.wait(patience(10))
    if not covered(shared_daemon, "no_kernel_helpers"):
        shared_daemon.wait_for("it is started again", lambda: "at the end" in told.read_text())
    judge(shared_daemon, "no_kernel_helpers", "at the end" in told.read_text())


def test_least_privilege(inside: Callable[..., Inside], user: str, hierarchy: Path) -> None:
    script = """
for name in ("release_agent", "notify_on_release"):
    attempt(name, lambda: open(f"{sys.argv[1]}/{name}", "w"))
attempt("tree", lambda: os.mkdir(sys.argv[1] + "/x"))
"""
    tried = inside(script, hierarchy, user=user).results()
    assert set(tried.values()) <= {"EROFS", "EACCES", "ENOENT"}, tried
