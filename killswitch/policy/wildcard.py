"""Sigma's plain values: ``*`` is any run of bytes, ``?`` one byte, a backslash before ``*``, ``?`` or itself takes it literally.

Any other backslash is a backslash. Only plain values have wildcards; with ``contains``, ``startswith`` and ``endswith`` a
value stands for itself.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from killswitch.policy.nfa import ANY, At, Nfa, fold


class Wild(enum.Enum):
    ONE = "?"
    MANY = "*"


@dataclass(frozen=True, slots=True)
class Glob:
    """``parts`` between literals and wildcards; where ``at_start`` or ``at_end`` is false, any run may stand there."""

    parts: tuple[bytes | Wild, ...]
    at_start: bool
    at_end: bool

    @property
    def literal(self) -> bytes | None:
        """The one literal that it is, or None when wildcards stand inside it."""
        if not self.parts:
            return b""
        only = self.parts[0]
        return only if len(self.parts) == 1 and isinstance(only, bytes) else None


def parse(value: str, op: str) -> Glob:
    """``op`` is ``match``, ``contains``, ``startswith`` or ``endswith``."""
    at_start, at_end = op in ("match", "startswith"), op in ("match", "endswith")
    if op != "match":
        plain = value.encode("utf-8", "surrogateescape")
        return Glob((plain,) if plain else (), at_start, at_end)
    parts: list[bytes | Wild] = []
    text = ""
    at = 0
    while at < len(value):
        char = value[at]
        at += 1
        if char == "\\" and at < len(value) and value[at] in "*?\\":
            text += value[at]
            at += 1
        elif char in "*?":
            if text:
                parts.append(text.encode("utf-8", "surrogateescape"))
                text = ""
            if char == "?" or not parts or parts[-1] is not Wild.MANY:
                parts.append(Wild(char))
        else:
            text += char
    if text:
        parts.append(text.encode("utf-8", "surrogateescape"))
    if parts and parts[0] is Wild.MANY:
        at_start = False
        del parts[0]
    if parts and parts[-1] is Wild.MANY:
        at_end = False
        del parts[-1]
    return Glob(tuple(parts), at_start, at_end)


def add_to(nfa: Nfa, glob: Glob, *, cased: bool) -> None:
    """Another alternative of ``nfa``, which must be searching."""
    node = nfa.at(0, At.START) if glob.at_start else 0
    for part in glob.parts:
        if part is Wild.MANY:
            node = nfa.loop(node)
        elif part is Wild.ONE:
            node = nfa.read(node, ANY)
        else:
            assert isinstance(part, bytes)
            for byte in part:
                node = nfa.read(node, 1 << byte if cased else fold(1 << byte))
    nfa.accept(nfa.at(node, At.END) if glob.at_end else node)
