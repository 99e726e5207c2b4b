"""Whether a shell or an interpreter reads its program from its standard input, by its arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Options:
    """The command line of one kind of interpreter. Letters may be clustered, and a value attached."""

    valued: bytes  # letters whose value follows
    code: bytes  # letters that bring the program with them
    words: frozenset[bytes]  # long options whose value is the next argument
    code_words: frozenset[bytes] = frozenset()
    plus: bool = False  # +o, +x, as shells have it


_SHELL = _Options(b"oO", b"c", frozenset({b"--rcfile", b"--init-file"}), frozenset({b"--command"}), plus=True)
_KINDS = (
    (re.compile(rb"-?(ba|da|a|z|k|mk|pdk|rba|c|tc|ya|o|po|lk|fi|)sh[0-9.]*(-static)?|busybox.*|toybox|ksh.*"), _SHELL),
    (re.compile(rb"(python|pypy)[0-9.]*"), _Options(b"WX", b"cm", frozenset({b"--check-hash-based-pycs"}))),
    (re.compile(rb"perl[0-9.]*"), _Options(b"DIMmiVx", b"eE", frozenset())),
    (re.compile(rb"ruby[0-9.]*"), _Options(b"CEIrSx", b"e", frozenset())),
    (re.compile(rb"(node|nodejs|bun|deno)"), _Options(b"rC", b"ep", frozenset({b"--require", b"--import", b"--loader"}),
        frozenset({b"--eval", b"--print"}))),
    (re.compile(rb"php[0-9.]*"), _Options(b"cdz", b"rBRFES", frozenset())),
    (re.compile(rb"lua(jit)?[0-9.]*"), _Options(b"l", b"e", frozenset())),
    (re.compile(rb"tclsh[0-9.]*|pwsh|powershell"), _Options(b"", b"c", frozenset())),
)  # fmt: skip


def reads_program(names: Sequence[bytes], args: Sequence[bytes]) -> bool:
    """``names``: the program's basenames; ``args``: with its own name first. False for what is no shell or interpreter.

    ``sh``, ``bash -i``, ``python3 -u -`` do; ``sh -c X``, ``bash script``, ``python3 -m X`` do not.
    """
    for kind, options in _KINDS:
        if any(kind.fullmatch(name) for name in names):
            multi = any(name.startswith((b"busybox", b"toybox")) for name in names)
            rest = _applet(args) if multi else args[1:]
            return rest is not None and _no_program(rest, options)
    return False


def _applet(args: Sequence[bytes]) -> Sequence[bytes] | None:
    """Of busybox: the arguments of its shell, None when another applet runs."""
    for at, word in enumerate(args[:2]):
        name = word.rpartition(b"/")[2].lstrip(b"-")
        if name in (b"sh", b"ash", b"hush", b"bash"):
            return args[at + 1 :]
    return None


def _no_program(rest: Sequence[bytes], options: _Options) -> bool:
    at = 0
    while at < len(rest):
        word = rest[at]
        at += 1
        if word == b"-":
            return True  # standard input by its other name; what follows are arguments
        if word == b"--":
            return at == len(rest)
        if word.startswith(b"--"):
            name, _, value = word.partition(b"=")
            if name in options.code_words:
                return False
            at += name in options.words and not value
        elif word[:1] == b"-" or (options.plus and word[:1] == b"+"):
            for i, letter in enumerate(word[1:], 1):
                if letter in options.code:
                    return False
                if options is _SHELL and letter == ord("s"):
                    return True
                if letter in options.valued:
                    at += i == len(word) - 1
                    break
        else:
            return False  # a script
    return True
