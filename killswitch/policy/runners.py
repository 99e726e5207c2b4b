"""Programs that run another one inside themselves, so that the other is never executed: where its command line begins."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LOADER = re.compile(rb"ld(-linux[^/]*|-musl-[^/]*|-2\.[0-9.]+|64)?\.so[0-9.]*|ld-musl-[^/]*|libc\.musl[^/]*")
_EMULATOR = re.compile(rb"qemu-(aarch64|arm|i386|x86_64)[^/]*|box(64|86)|wine(64)?(-preloader)?")
_LOADER_VALUES = frozenset(
    b"--argv0 --audit --glibc-hwcaps-mask --glibc-hwcaps-prepend --inhibit-rpath --library-path --preload".split()
)
_EMULATOR_VALUES = frozenset(b"-0 -B -D -E -L -R -U -cpu -d -dfilter -g -p -plugin -r -s -seed".split())


def inner(names: Sequence[bytes], args: Sequence[bytes]) -> int | None:
    """Index of the inner program's path in ``args``; None when the program (by its basenames) is no runner, or runs nothing."""
    if any(_LOADER.fullmatch(name) for name in names):
        valued = _LOADER_VALUES
    elif any(_EMULATOR.fullmatch(name) for name in names):
        valued = _EMULATOR_VALUES
    else:
        return None
    at = 1
    while at < len(args) and args[at][:1] == b"-":
        at += 2 if args[at] in valued else 1
    return at if at < len(args) else None
