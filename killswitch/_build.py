"""The build backend: setuptools', which first makes the BPF object and the protobuf code, both into the package.

``pyproject.toml`` names this module as an in-tree backend (PEP 517), because a build may import nothing but what it builds
and its declared tools. ``make`` runs the same two steps in place: ``python -m killswitch._build``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

Settings = dict[str, Any] | None

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "killswitch"


class BuildFailed(Exception):
    """A tool is missing or has failed. ``str()`` says which, and what to install."""


def build_bpf(target: Path = PACKAGE / "bpf") -> None:
    """Compile ``bpf/*.bpf.c`` and link them into ``target/killswitch.bpf.o``."""
    for tool in ("clang", "bpftool", "make"):
        if not shutil.which(tool) and not Path("/usr/sbin", tool).exists():
            raise BuildFailed(f"{tool} is not installed: apt-get install {tool}")
    out = ROOT / "build"
    result = subprocess.run(["make", "--silent", "-C", ROOT / "bpf", f"OUT={out}"], check=False)
    if result.returncode:
        raise BuildFailed(f"compiling {ROOT / 'bpf'} failed with exit status {result.returncode} (see above)")
    target.mkdir(parents=True, exist_ok=True)
    # Beside it and moved: a daemon that starts meanwhile loads the old object or the new one, never half of one.
    shutil.copy(out / "killswitch.bpf.o", target / "new.o")
    (target / "new.o").rename(target / "killswitch.bpf.o")


def build_protos(target: Path = ROOT) -> None:
    """Generate ``killswitch/v1/*_pb2*.py`` below ``target`` from ``protos/``. Raises BuildFailed on a bad proto."""
    from grpc_tools import protoc

    files = sorted(str(p) for p in (ROOT / "protos").rglob("*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    status = protoc.main(
        ["protoc", f"-I{ROOT / 'protos'}", f"-I{well_known}", f"--python_out={target}", f"--pyi_out={target}",
         f"--grpc_python_out={target}", *files]
    )  # fmt: skip
    if status:
        raise BuildFailed(f"protoc refused {', '.join(files)} with exit status {status}")
    (target / "killswitch" / "v1" / "__init__.py").touch()


def main() -> int:
    """Build in place what the arguments name: ``bpf``, ``protos``, or both without arguments."""
    steps = {"bpf": build_bpf, "protos": build_protos}
    try:
        for name in sys.argv[1:] or steps:
            steps[name]()
    except BuildFailed as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    return 0


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    _build_here()
    name: str = _setuptools().build_wheel(wheel_directory, config_settings, metadata_directory)
    return name


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    _build_here()
    name: str = _setuptools().build_editable(wheel_directory, config_settings, metadata_directory)
    return name


def __getattr__(name: str) -> Any:
    """Every other hook of the build (PEP 517, PEP 660) is setuptools' own."""
    if name.startswith(("get_requires_for_build_", "prepare_metadata_for_build_", "build_sdist")):
        return getattr(_setuptools(), name)
    raise AttributeError(name)


def _setuptools() -> Any:
    from setuptools import build_meta  # only a build has it

    return build_meta


def _build_here() -> None:
    try:
        build_bpf()
        build_protos()
    except BuildFailed as error:
        raise SystemExit(f"build: {error}") from None


if __name__ == "__main__":
    raise SystemExit(main())
