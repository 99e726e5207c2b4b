"""The wheel is complete: what a build makes (BPF object, protobuf code) is in it, and it installs and runs elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what a fresh clone holds, so that nothing built earlier in this tree can stand in."""
    source = tmp_path_factory.mktemp("source")
    for name in ("killswitch", "bpf", "protos", "systemd"):
        ignored = shutil.ignore_patterns("*.o", "__pycache__", "v1" if name == "killswitch" else "__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    # The tools are those of this environment: the test asks no registry.
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_wheel_is_complete(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"killswitch/bpf/killswitch.bpf.o", "killswitch/policies/rogue-agent.yaml", "killswitch/v1/__init__.py"}
    protos = [p.stem for p in (ROOT / "protos/killswitch/v1").glob("*.proto")]
    wanted |= {f"killswitch/v1/{stem}_pb2{suffix}" for stem in protos for suffix in (".py", "_grpc.py", ".pyi")}
    wanted |= {str(p.relative_to(ROOT)) for p in (ROOT / "killswitch").rglob("*.py")}
    assert wanted <= names, sorted(wanted - names)
    assert any(n.endswith("systemd/system/killswitchd.service") for n in names)
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/"))]


def test_wheel_installs_and_runs(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel]
    subprocess.run(command, check=True)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "killswitch", "--version"],
        env={
            "PYTHONPATH": str(target),
            "PATH": "/usr/bin",
        },  # before site-packages, where the checkout may be installed
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("killswitch ")
