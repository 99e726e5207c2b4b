"""Which files a command line gives to its program as configuration, and which others it names that look like some."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_GIVEN, MAX_NAMED = 4, 4
_OPTION = re.compile(
    rb"--?(?:c|C|cfg|conf|config|configuration|config[-_]?(?:file|path)|json|pools?(?:[-_]file)?|settings)"
)
_LOOKS = re.compile(rb"(?i).*\.(?:jsonc?|json5|toml|conf|cfg|config|ini|ya?ml|txt)")
_SOURCE = re.compile(rb"(?i).*\.(?:c|cc|cpp|cxx|m|mm|s|f|f90|go|rs|java|kt|py|rb|pl|sh|js|mjs|ts|tsx|o|a|so|h|hpp)")
# What is installed there belongs to the system, and has no configuration beside itself.
_SYSTEM = (b"/bin/", b"/lib", b"/sbin/", b"/snap/", b"/usr/")
BESIDE = (b"config.json", b"pools.txt")  # what miners read when they are told nothing


def named_in(args: Sequence[bytes]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """(given, named), by the arguments, the program's own name first. Paths as they stand there."""
    given: list[bytes] = []
    named: list[bytes] = []
    takes = False  # the option before takes a file
    for arg in args[1:]:
        option, equals, value = arg.partition(b"=")
        if takes and not arg.startswith(b"-"):
            if _plausible(arg):
                given.append(arg)
            takes = False
            continue
        takes = bool(_OPTION.fullmatch(arg))
        if takes:
            continue
        if equals and _OPTION.fullmatch(option):
            if _plausible(value):
                given.append(value)
        elif arg[:2] in (b"-c", b"-C") and _LOOKS.fullmatch(arg[2:]) and _plausible(arg[2:]):
            given.append(arg[2:])
        elif not arg.startswith(b"-") and _LOOKS.fullmatch(arg) and _plausible(arg):
            named.append(arg)
    return tuple(dict.fromkeys(given))[:MAX_GIVEN], tuple(dict.fromkeys(named))[:MAX_NAMED]


def beside(executable: bytes) -> tuple[bytes, ...]:
    """Where a program of the workload's own would find its configuration untold."""
    if not executable.startswith(b"/") or executable.startswith((*_SYSTEM, b"/memfd:")):
        return ()
    folder = executable.rpartition(b"/")[0]
    return tuple(folder + b"/" + name for name in BESIDE)


def _plausible(path: bytes) -> bool:
    """What ``sh -c`` and a compiler's ``-c`` take is no configuration."""
    return 0 < len(path) <= 1024 and not any(c in path for c in b"\n\t*|;&<>") and not _SOURCE.fullmatch(path)
