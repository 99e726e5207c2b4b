"""Files for the judgement of a client's configuration: those of this host, or made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from killswitch.policy.fileglob import matching
from killswitch.policy.sshconfig import Unreadable


class OnDisk:
    def read(self, path: bytes) -> bytes | None:
        try:
            return Path(path.decode()).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise Unreadable(str(e)) from e

    def matching(self, pattern: bytes) -> Sequence[bytes]:
        return matching(pattern, self._names, lambda p: Path(p.decode()).exists())

    @staticmethod
    def _names(folder: bytes) -> list[bytes]:
        try:
            return [p.name.encode() for p in Path(folder.decode()).iterdir()]
        except OSError:
            return []


class MadeUp:
    """A path and its content; None = there, but cannot be read."""

    def __init__(self, files: Mapping[bytes, bytes | None]) -> None:
        self.files = files

    def read(self, path: bytes) -> bytes | None:
        if path not in self.files:
            return None
        content = self.files[path]
        if content is None:
            raise Unreadable(f"{path!r} is a pipe")
        return content

    def matching(self, pattern: bytes) -> Sequence[bytes]:
        def names(folder: bytes) -> list[bytes]:
            prefix = folder.rstrip(b"/") + b"/"
            return [p[len(prefix) :].split(b"/")[0] for p in self.files if p.startswith(prefix)]

        return matching(pattern, names, self.files.__contains__)
