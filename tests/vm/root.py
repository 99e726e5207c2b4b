"""The guest's disks: Debian 12 as the root, made once, and the project with its environment, made for each run."""

from __future__ import annotations

import configparser
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.vm.apt import apt_for
from tests.vm.kernels import CACHE

PROJECT = Path(__file__).parents[2]
SYSTEM = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod", "procps", "util-linux"),
    *("python3", "python3-venv", "python3-bpfcc", "libbpf1", "gcc", "libc6-dev"),
)
TESTING = ["hypothesis", "psutil", "pytest", "pytest-timeout"]
FOLDERS = ("opt/killswitch", "lib/modules", "mnt")


def root_image() -> Path:
    """An ext4 image of a Debian 12 with what the tests need. Raises apt.AptError, or CalledProcessError."""
    packages = (*SYSTEM, *_lab())
    key = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    image = CACHE / f"root-{key}.ext4"
    if image.exists():
        return image
    CACHE.mkdir(parents=True, exist_ok=True)
    for old in sorted(CACHE.glob("root-*"), key=lambda image: image.stat().st_mtime)[:-1]:
        old.unlink()
    tree = CACHE / "root"
    shutil.rmtree(tree, ignore_errors=True)
    with apt_for("bookworm") as apt:
        command = [
            "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--format=directory",
            f"--include={','.join(packages)}", '--aptopt=APT::Sandbox::User "root"', "bookworm", tree, apt.sources,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mmdebstrap: {done.stderr.strip()}")
    for folder in FOLDERS:
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "etc/fstab").write_text("")
    partial = image.with_suffix(".partial")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, partial, "3G"], check=True, capture_output=True)
    partial.rename(image)
    shutil.rmtree(tree)
    return image


def project_image(target: Path, *, wheel: bool = False) -> Path:
    """The project as it is here, built, and the packages of its environment, to lie at /opt/killswitch; its wheel as well."""
    tree = target.with_suffix("")
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    built = [path for folder in ("killswitch/v1", "killswitch/bpf", "build/rig") for path in _files(PROJECT / folder)]
    for path in [*(PROJECT / name for name in listed.split("\0") if name), *built]:
        if path.is_file():
            copy = tree / path.relative_to(PROJECT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    if wheel:
        _build_wheel(tree)
    _compile(tree)
    shutil.copytree(_environment(), tree / ".venv", symlinks=True)
    target.unlink(missing_ok=True)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", tree, target, "1G"], check=True, capture_output=True
    )
    shutil.rmtree(tree)
    return target


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def _environment() -> Path:
    """A virtual environment for the guest: what setup.cfg asks for, and pytest. Made once for each setup.cfg."""
    config = configparser.ConfigParser()
    config.read(PROJECT / "setup.cfg")
    wanted = config["options"]["install_requires"].split("\n") + TESTING
    wanted = [requirement for requirement in wanted if requirement]
    key = hashlib.sha256(repr(("compiled", wanted)).encode()).hexdigest()[:12]
    made = CACHE / f"environment-{key}"
    if made.exists():
        return made
    for old in CACHE.glob("environment-*"):
        shutil.rmtree(old)
    partial = CACHE / "environment-partial"
    packages = partial / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--ignore-installed"]
    subprocess.run([*install, "--no-compile", "--target", packages, *wanted], check=True, capture_output=True)
    (partial / "bin").mkdir()
    (partial / "bin/python").symlink_to("/usr/bin/python3")
    (partial / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    command = partial / "bin/killswitch"
    command.write_text("#!/opt/killswitch/.venv/bin/python\nfrom killswitch.cli.main import main\n\nmain()\n")
    command.chmod(0o755)
    (packages / "killswitch-here.pth").write_text("/opt/killswitch\n")
    _compile(partial)
    partial.rename(made)
    return made


def _compile(folder: Path) -> None:
    """To byte code, here: in the guest each start of a program would be a minute of it. Nobody looks at the sources' times."""
    command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", folder]
    subprocess.run(command, check=False, capture_output=True)  # a package may hold a file for another version


def _build_wheel(tree: Path) -> None:
    """Of a copy of the project, into its ``wheels/``."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
    done = subprocess.run([*command, tree / "wheels", tree], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the wheel does not build: {done.stderr.strip()}")
    for left in ((tree / "build").glob("lib*"), (tree / "build").glob("bdist*"), tree.glob("*.egg-info")):
        for folder in left:
            shutil.rmtree(folder)


def _lab() -> tuple[str, ...]:
    """The Debian packages that tests play with."""
    listed = subprocess.run([PROJECT / ".ci/apt", "list", "lab"], capture_output=True, text=True, check=True).stdout
    return tuple(listed.split())
