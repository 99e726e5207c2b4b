"""A folder of evidence: nobody but root reads it, nothing in it is ever half written, and every file's hash is known."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from killswitch.contain.model import StepFailed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CHUNK = 1 << 16
PARTIAL = ".partial"  # ends the name of a file that is still being written
MAX_CAPTURES = 1000  # of one incident


def incident_folder(evidence_dir: Path, incident: str) -> Path:
    """A new, empty folder for a capture: ``<incident>``, or ``<incident>/2``, ``/3`` … when it was captured before.

    Raises StepFailed when none can be made.
    """
    if not _NAME.fullmatch(incident):
        raise StepFailed(f"incident {incident!r} cannot name a folder: letters, digits, '.', '_' and '-' only")
    first = evidence_dir / incident
    try:
        evidence_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for n in range(1, MAX_CAPTURES):
            folder = first if n == 1 else first / str(n)
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                return folder
    except OSError as e:
        raise _no_room(first, e) from e
    raise StepFailed(f"{first}: {MAX_CAPTURES} captures are enough; move some away")


def sweep(evidence_dir: Path, before_unix: float) -> int:
    """Remove what a capture that was cut short was still writing; how many files. Who captures now must have begun later."""
    removed = 0
    for file in evidence_dir.glob(f"**/*{PARTIAL}"):
        with contextlib.suppress(OSError):
            if file.lstat().st_mtime < before_unix:
                file.unlink()
                removed += 1
    return removed


def _no_room(path: Path, cause: OSError) -> StepFailed:
    hint = "; make room on its file system, or set another state_dir" if cause.errno in (28, 122) else ""
    return StepFailed(f"{path}: evidence cannot be written: {os.strerror(cause.errno or 5)}{hint}")


def _array(rows: Iterable[object]) -> Iterator[bytes]:
    """In chunks of some 64 KiB."""
    chunk, size, between = [b"["], 0, b"\n"
    for row in rows:
        text = json.dumps(row, ensure_ascii=True).encode("ascii")  # without indentation: that encoder is the C one
        chunk += (between, text)
        size += len(text)
        between = b",\n"
        if size > _CHUNK:
            yield b"".join(chunk)
            chunk, size = [], 0
    yield b"".join((*chunk, b"\n]\n"))


class Folder:
    """Files are written beside their place and renamed into it. Raises StepFailed for whatever cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, dict[str, str | int]] = {}  # name → {"sha256", "bytes"}: the list for the manifest

    def write(self, name: str, chunks: Iterable[bytes], *, durable: bool = False) -> str:
        """Write one file (0600); its SHA-256. ``durable``: it and its name are on the disk when this returns."""
        place = self.path / name
        beside = place.with_name(place.name + PARTIAL)
        digest, size = hashlib.sha256(), 0
        try:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb", buffering=0) as file:
                for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    view = memoryview(chunk)
                    while view:
                        view = view[file.write(view) :]
                if durable:
                    os.fsync(fd)
            beside.rename(place)
            if durable:
                self._sync_folder()
        except OSError as e:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise _no_room(place, e) from e
        self.files[name] = {"sha256": digest.hexdigest(), "bytes": size}
        return digest.hexdigest()

    def write_json(self, name: str, value: object, *, durable: bool = False) -> str:
        """Bytes that a workload chose come out as escaped surrogates: nothing is lost, and it is valid JSON."""
        text = json.dumps(value, indent=1, ensure_ascii=True) + "\n"
        return self.write(name, [text.encode("ascii")], durable=durable)

    def write_rows(self, name: str, rows: Iterable[object]) -> str:
        """A JSON array with a row on each line, written as the rows come: there may be thousands, and none is kept."""
        return self.write(name, _array(rows))

    def _sync_folder(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
