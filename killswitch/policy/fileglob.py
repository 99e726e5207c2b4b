"""Globs over paths, as OpenSSH's own glob(3) expands them: ``*``, ``?``, ``[…]`` and a backslash.

A name that begins with a dot fits only what begins with one, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

MAX_PATHS = 256
MAX_FOLDERS = 256  # that are listed for one glob

Names = Callable[[bytes], Sequence[bytes]]  # what a folder holds; () when it is none, or cannot be read


def matching(pattern: bytes, names: Names, exists: Callable[[bytes], bool]) -> list[bytes]:
    """The paths that an absolute glob stands for, sorted, at most ``MAX_PATHS``; () when there is none."""
    found = [b""]
    listed = 0
    parts = [part for part in pattern.split(b"/") if part]
    for part in parts:
        if not _is_wild(part):
            plain = re.sub(rb"\\(.)", rb"\1", part, flags=re.DOTALL)
            found = [path + b"/" + plain for path in found]
            continue
        fits = _compiled(part).fullmatch
        longer: list[bytes] = []
        for path in found:
            listed += 1
            if listed > MAX_FOLDERS:
                break
            longer += [
                path + b"/" + name for name in sorted(set(names(path or b"/"))) if _shown(name, part) and fits(name)
            ]
        found = longer[:MAX_PATHS]
    return [path for path in found if exists(path)]


def _shown(name: bytes, part: bytes) -> bool:
    return not name.startswith(b".") or part.startswith(b".")


def _is_wild(part: bytes) -> bool:
    return any(c in part for c in b"*?[")


@lru_cache(maxsize=256)
def _compiled(part: bytes) -> Any:
    """An RE2 expression: linear, whatever a workload writes into its files."""
    import re2

    out, i = bytearray(), 0
    while i < len(part):
        c = part[i : i + 1]
        i += 1
        if c == b"*":
            out += b"" if out.endswith(b".*") else b".*"
        elif c == b"?":
            out += b"."
        elif c == b"[" and (end := part.find(b"]", i + 1 + (part[i : i + 1] == b"!"))) > 0:
            negated = part[i : i + 1] == b"!"
            body = part[i + negated : end]
            out += b"[" + (b"^" if negated else b"") + _ranges(body) + b"]"
            i = end + 1
        else:
            if c == b"\\" and i < len(part):
                c = part[i : i + 1]
                i += 1
            out += re.escape(c)
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.dot_nl = True
    options.log_errors = False
    return re2.compile(bytes(out), options)


def _ranges(body: bytes) -> bytes:
    out, i = bytearray(), 0
    while i < len(body):
        if i + 2 < len(body) and body[i + 1 : i + 2] == b"-" and body[i] <= body[i + 2]:
            out += re.escape(body[i : i + 1]) + b"-" + re.escape(body[i + 2 : i + 3])
            i += 3
        else:
            out += re.escape(body[i : i + 1])
            i += 1
    return bytes(out)
