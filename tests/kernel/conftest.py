"""What every test on the real kernel needs: a data plane of its own, cgroups of its own, and nothing left behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import killswitch
from killswitch._build import build_bpf
from killswitch.kernel.cgroupfs import find_mount
from killswitch.kernel.dataplane import DataPlane
from killswitch.kernel.mounts import ensure_bpffs
from tests.kernel.cgroups import Cgroup
from tests.kernel.listener import Listener
from tests.rig.netns import FarSide

PREFIX = f"ks-test-{os.getpid()}"
PROGRAMS = Path(__file__).with_name("programs")
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    if os.geteuid() != 0:
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs root: sudo make test"))


@pytest.fixture(scope="session")
def mount() -> Path:
    return find_mount()


@pytest.fixture(scope="session")
def bpf_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object file, built from the sources as they are; where there is no compiler, the one that the build left."""
    if not shutil.which("clang"):
        return Path(killswitch.__file__).parent / "bpf" / "killswitch.bpf.o"
    target = tmp_path_factory.mktemp("bpf")
    build_bpf(target)
    return target / "killswitch.bpf.o"


@pytest.fixture
def pin_dir() -> Iterator[Path]:
    path = Path(f"/sys/fs/bpf/{PREFIX}-{next(_numbers)}")
    ensure_bpffs(path)
    yield path
    for generation in path.iterdir() if path.exists() else ():
        _unpin(generation)
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()


def _unpin(path: Path) -> None:
    if path.is_dir():
        for entry in path.iterdir():
            _unpin(entry)
        path.rmdir()
    else:
        path.unlink()


@pytest.fixture
def plane(pin_dir: Path, mount: Path, bpf_object: Path) -> Iterator[DataPlane]:
    """A data plane of this test's own, armed, watching nothing."""
    opened = DataPlane.open(pin_dir, cgroup_mount=mount, obj=bpf_object)
    yield opened
    opened.remove()


@pytest.fixture
def make_cgroup(mount: Path) -> Iterator[Callable[[], Cgroup]]:
    made: list[Cgroup] = []

    def make() -> Cgroup:
        made.append(Cgroup(mount / f"{PREFIX}-{next(_numbers)}"))
        return made[-1]

    yield make
    for cgroup in made:
        cgroup.remove()


@pytest.fixture
def cgroup(make_cgroup: Callable[[], Cgroup]) -> Cgroup:
    return make_cgroup()


@pytest.fixture
def watched(plane: DataPlane, cgroup: Cgroup) -> Cgroup:
    """A cgroup that ``plane`` watches, with policy 0."""
    plane.watch(cgroup.id, cgroup.path, 1)
    return cgroup


@pytest.fixture(scope="session")
def compile_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compile ``programs/NAME.c`` statically."""
    directory = tmp_path_factory.mktemp("programs")

    def build(name: str) -> Path:
        target = directory / name
        if not target.exists():
            source = PROGRAMS / f"{name}.c"
            subprocess.run(["gcc", "-O2", "-static", "-nostdlib", "-o", target, source], check=True)
        return target

    return build


@pytest.fixture
def far() -> Iterator[FarSide]:
    with FarSide() as made:
        yield made


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(20)
        yield made


@pytest.fixture
def outside() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody outside every workload."""
    process = subprocess.Popen(["/bin/sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def listeners(far: FarSide) -> Iterator[list[Listener]]:
    """Over IPv4 and over IPv6."""
    made = [Listener(far, family) for family in (socket.AF_INET, socket.AF_INET6)]
    yield made
    for one in made:
        one.close()
