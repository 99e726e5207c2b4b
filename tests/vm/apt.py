"""An apt of our own for other suites: its sources are derived from the machine's, and the machine's apt sees none of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

SOURCES = (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*")))
_URI = re.compile(r"https?://\S*/debian/?(?=\s|$)")  # Debian's main archive or a mirror of it; not debian-security
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class AptError(RuntimeError):
    """apt could not be asked; the message says what it said, and what to do."""


@dataclass(frozen=True, slots=True)
class Apt:
    options: tuple[str, ...]
    sources: Path  # a sources.list

    def names(self, pattern: str) -> list[str]:
        """Packages whose names match the regular expression, lowest version first."""
        listed = _run("apt-cache", *self.options, "search", "--names-only", pattern).split("\n")
        names = [line.split(" - ")[0] for line in listed if line]
        return sorted(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])

    def download(self, package: str, into: Path) -> Path:
        """The package's file. Raises AptError."""
        into.mkdir(parents=True, exist_ok=True)
        _run("apt-get", *self.options, "download", "-qq", package, cwd=into)
        return max(into.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)


def mirror() -> str:
    """The URI of the Debian archive that this machine uses. Raises AptError when its sources name none."""
    for file in SOURCES:
        if file.is_file() and file.suffix in (".list", ".sources"):
            for line in file.read_text().splitlines():
                found = _URI.search(line)
                if found and not line.lstrip().startswith("#"):
                    return found[0].rstrip("/")
    raise AptError("no Debian archive is named in /etc/apt/sources.list or sources.list.d: other kernels come from one")


@contextmanager
def apt_for(suite: str) -> Iterator[Apt]:
    """An apt that knows this suite and no other."""
    place = Path(mkdtemp(prefix="ks-test-apt-"))
    try:
        place.chmod(0o755)
        for folder in ("lists/partial", "cache/archives/partial"):
            (place / folder).mkdir(parents=True)
        sources = place / "sources.list"
        sources.write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n")
        settings = {
            "Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "/dev/null", "Dir::State::lists": place / "lists",
            "Dir::Cache": place / "cache", "Acquire::Retries": "3",
            "Acquire::Check-Valid-Until": "false", "APT::Sandbox::User": "root",
        }  # fmt: skip
        apt = Apt(tuple(f"-o{key}={value}" for key, value in settings.items()), sources)
        _run("apt-get", *apt.options, "update", "-qq")
        yield apt
    finally:
        shutil.rmtree(place)


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AptError(f"{command[0]} {command[-1]}: {done.stderr.strip()}")
    return done.stdout
