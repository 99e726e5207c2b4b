"""``programs:`` of policies: what an executable is by its content, whatever it is called.

A program is told by a combination of texts that it cannot lose easily: its version's name, its keyword tables, its usage
text, the names of its Go packages. One word alone tells nothing: a scanner or a dictionary has it, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

MAX_MARKERS = 1000  # different ones, of all loaded policies
MIN_LENGTH, MAX_LENGTH = 4, 200  # bytes of a marker


@dataclass(frozen=True, slots=True)
class Program:
    """It is ``name`` when its content has every text of ``all``, ``least`` of ``any``, and none of ``none``."""

    name: str
    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    least: int = 1
    none: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        return (*self.all, *self.any, *self.none)


class Recogniser:
    """The programs of all policies, looked for in one pass. May be shared between threads."""

    def __init__(self, programs: Iterable[Program]) -> None:
        """Raises ValueError, with a sentence, when there are too many markers."""
        self.programs = tuple(dict.fromkeys(programs))
        markers = dict.fromkeys(m.encode() for p in self.programs for m in p.markers)
        if len(markers) > MAX_MARKERS:
            raise ValueError(f"the policies' programs have {len(markers)} different texts: at most {MAX_MARKERS} fit")
        self._number = {marker: i for i, marker in enumerate(markers)}
        self.overlap = max(map(len, markers), default=1) - 1  # bytes that two successive chunks have to share
        self._set = _compiled(tuple(markers)) if markers else None

    def __bool__(self) -> bool:
        return bool(self.programs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recogniser, (self.programs,)  # the library's own set cannot go to another process

    def seen(self, chunk: bytes) -> frozenset[int]:
        """Numbers of the markers that the chunk holds. Linear, and holds no lock while it looks."""
        return frozenset(self._set.Match(chunk) or ()) if self._set is not None else frozenset()

    def names(self, seen: Iterable[int]) -> tuple[str, ...]:
        """What a file is that holds these markers; a program may be told in several ways, under one name."""
        held = frozenset(seen)
        return tuple(dict.fromkeys(p.name for p in self.programs if self._is(p, held)))

    def _is(self, program: Program, held: frozenset[int]) -> bool:
        def count(markers: Sequence[str]) -> int:
            return sum(self._number[m.encode()] in held for m in markers)

        return (
            count(program.all) == len(program.all)
            and (not program.any or count(program.any) >= program.least)
            and not count(program.none)
        )


def _compiled(markers: Sequence[bytes]) -> Any:
    import re2  # a C++ library: only who has programs to look for pays for loading it

    options = re2.Options()
    options.literal = True
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = 32 << 20
    options.log_errors = False
    found = re2.Set.SearchSet(options)
    for marker in markers:
        found.Add(marker)
    found.Compile()
    return found
