"""Regular expressions: RE2's syntax, over bytes, into an NFA; and a matcher of the same meaning for tier 3.

An expression is looked for anywhere in the text (``search``). Two things are settled for safety's sake: ``.`` takes a
line feed as well (a path may hold one), and ``$`` is the very end. Case folds in ASCII, unless the predicate is
``cased``. A character that is not ASCII stands for its UTF-8 bytes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

# The parser of the standard library. Its tree is undocumented but has been the same since 3.11; where its reading and
# RE2's part ways, the expression is left to RE2.
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any

from killswitch.policy.nfa import ANY, WORD, At, Nfa, fold, mask_of

Search = Callable[[bytes], bool]


class NotRegular(Exception):
    """No automaton is made of the expression; ``str()`` says because of what, to follow "it uses"."""


def _over_bytes(pattern: str, end: bytes) -> bytes:
    """The expression over bytes, with ``$`` spelt ``end``. Raises NotRegular where bytes cannot say it."""
    out: list[bytes] = []
    in_class, at = False, 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "\\" and at < len(pattern):
            escaped = pattern[at]
            at += 1
            if not escaped.isascii():
                raise NotRegular(f"a backslash before {escaped!r}")
            out.append(end if escaped == "z" and not in_class else ("\\" + escaped).encode())
        elif not char.isascii():
            if in_class:
                raise NotRegular(f"a character class with {char!r}, which is more than one byte")
            out.append(b"(?-i:" + re.escape(char.encode("utf-8", "surrogateescape")) + b")")
        elif in_class:
            if char == "[" and pattern[at : at + 1] == ":":
                raise NotRegular("a POSIX class")
            in_class = char != "]"
            out.append(char.encode())
        elif char == "[":
            in_class = True
            lead = re.compile(r"\^?\]?").match(pattern, at)
            assert lead is not None
            out.append(("[" + lead[0]).encode())
            at = lead.end()
        elif char == "{" and pattern[at : at + 1] == ",":
            raise NotRegular("'{,'")  # a repetition to Python, plain text to RE2
        else:
            out.append(end if char == "$" else char.encode())
    return b"".join(out)


def _parse(pattern: str, cased: bool) -> Any:
    raw = _over_bytes(pattern, b"\\Z")
    flags = re.DOTALL | (0 if cased else re.IGNORECASE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = sre_parser.parse(raw, flags)
    except (re.error, OverflowError) as error:
        raise NotRegular(f"what only RE2 reads ({error})") from None
    except RecursionError:
        raise NotRegular("groups nested too deeply") from None
    if tree.state.flags & (re.MULTILINE | re.VERBOSE | re.LOCALE):
        raise NotRegular("a flag other than i and s")
    return tree


def add_to(nfa: Nfa, pattern: str, *, cased: bool) -> None:
    """Another alternative of ``nfa``, which must be searching. Raises NotRegular, and TooBig."""
    tree = _parse(pattern, cased)
    try:
        nfa.accept(_Builder(nfa).sequence(tree, nfa.fresh(0), tree.state.flags))
    except RecursionError:
        raise NotRegular("groups nested too deeply") from None


def searcher(pattern: str, *, cased: bool) -> Search:
    """Tier 3's judgement of the same expression. Raises ValueError, with a sentence, when it is no expression.

    RE2 is linear in the text. What it refuses is left to ``re``; the loader does not let such a pattern in, because a
    workload that knows the rule can make ``re`` slow.
    """
    import re2  # a C++ library: only policies that need it pay for loading it

    options = re2.Options()
    options.case_sensitive = cased
    options.dot_nl = True
    options.log_errors = False
    try:
        raw = _over_bytes(pattern, b"$")
        options.encoding = re2.Options.Encoding.LATIN1
    except NotRegular:
        raw = pattern.encode("utf-8", "surrogateescape")
    try:
        linear = re2.compile(raw, options)
    except re2.error as refused:
        try:
            flags = re.DOTALL | (0 if cased else re.IGNORECASE)
            backtracking = re.compile(_over_bytes(pattern, b"\\Z"), flags)
        except (re.error, NotRegular, RecursionError, OverflowError):
            raise ValueError(f"{pattern!r} is no regular expression: {refused}") from None
        return lambda data: backtracking.search(data) is not None
    return lambda data: linear.search(data) is not None


_CATEGORIES = {
    sre.CATEGORY_DIGIT: mask_of(b"0123456789"),
    sre.CATEGORY_SPACE: mask_of(b" \t\n\r\f"),
    sre.CATEGORY_WORD: WORD,
}
_CATEGORIES |= {
    sre.CATEGORY_NOT_DIGIT: ANY & ~_CATEGORIES[sre.CATEGORY_DIGIT],
    sre.CATEGORY_NOT_SPACE: ANY & ~_CATEGORIES[sre.CATEGORY_SPACE],
    sre.CATEGORY_NOT_WORD: ANY & ~WORD,
}
_PLACES = {
    sre.AT_BEGINNING: At.START,
    sre.AT_BEGINNING_STRING: At.START,
    sre.AT_END_STRING: At.END,
    sre.AT_BOUNDARY: At.BOUNDARY,
    sre.AT_NON_BOUNDARY: At.NO_BOUNDARY,
}
_NAMES = {
    "ASSERT": "a look-ahead or look-behind",
    "ASSERT_NOT": "a negative look-ahead or look-behind",
    "GROUPREF": "a back reference",
    "GROUPREF_IGNORE": "a back reference",
    "GROUPREF_EXISTS": "a conditional group",
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "a possessive repetition",
}


class _Builder:
    def __init__(self, nfa: Nfa) -> None:
        self.nfa = nfa

    def sequence(self, items: Any, node: int, flags: int) -> int:
        for op, argument in items:
            node = self.item(op, argument, node, flags)
        return node

    def item(self, op: Any, argument: Any, node: int, flags: int) -> int:
        if op in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
            return self.nfa.read(node, _mask(op, argument, flags))
        if op is sre.AT and argument in _PLACES:
            return self.nfa.at(node, _PLACES[argument])
        if op is sre.SUBPATTERN:
            _, added, removed, items = argument
            if (added | removed) & (re.MULTILINE | re.VERBOSE | re.LOCALE):
                raise NotRegular("a flag other than i and s")
            return self.sequence(items, node, (flags | added) & ~removed)
        if op is sre.BRANCH:
            end = self.nfa.node()
            for branch in argument[1]:
                self.nfa.join(self.sequence(branch, self.nfa.fresh(node), flags), end)
            return end
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            return self.repeat(argument, node, flags)
        raise NotRegular(_NAMES.get(str(op), str(op).lower()))

    def repeat(self, argument: Any, node: int, flags: int) -> int:
        low, high, items = argument
        for _ in range(low):
            node = self.sequence(items, self.nfa.fresh(node), flags)
        end = self.nfa.node()
        if high is sre.MAXREPEAT:
            again = self.nfa.fresh(node)
            self.nfa.join(self.sequence(items, again, flags), again)
            self.nfa.join(again, end)
            return end
        self.nfa.join(node, end)
        for _ in range(high - low):
            node = self.sequence(items, self.nfa.fresh(node), flags)
            self.nfa.join(node, end)
        return end


def _mask(op: Any, argument: Any, flags: int) -> int:
    if op is sre.ANY:
        return ANY if flags & re.DOTALL else ANY & ~mask_of(b"\n")
    insensitive = bool(flags & re.IGNORECASE)
    if op in (sre.LITERAL, sre.NOT_LITERAL):
        mask = fold(1 << argument) if insensitive else 1 << argument
        return (mask if op is sre.LITERAL else ~mask) & ANY
    mask, negated = 0, False
    for kind, value in argument:
        if kind is sre.NEGATE:
            negated = True
        elif kind is sre.LITERAL:
            mask |= 1 << value
        elif kind is sre.RANGE:
            low, high = value
            mask |= (1 << high + 1) - (1 << low)
        else:
            mask |= _CATEGORIES[value]
    if insensitive:
        mask = fold(mask)
    return (~mask if negated else mask) & ANY
