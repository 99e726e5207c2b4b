"""YAML text → a tree of nodes that know their place: the reader beneath every policy.

The tree is built from the parser's events, not by a YAML constructor, so that three things hold. A scalar stays the text
that was written: what it means is told by the field it stands in, and YAML 1.1's guesses (``on`` and ``no`` are booleans,
``22:22`` is 1342, ``010`` is 8) never happen. Depth is bounded before anything recurses. And every node keeps its line
and column.

Anchors, aliases, merge keys and tags are refused: they let a small file grow without bound or make objects, and they hide
from a reader what a rule says. ``lists:`` is the way to say a thing once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import yaml

from killswitch.errors import Problem
from killswitch.policy.suggest import quoted

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_NODES = 100_000

# Not in YAML at all, or line separators that editors and YAML count differently, or marks that make text read otherwise
# than it is written (bidirectional controls).
_FORBIDDEN = re.compile(
    "[^\\t\\n\\x20-\\x7e\\xa0-\\u2027\\u202f-\\u2065\\u206a-\\ud7ff\\ue000-\\ufefe\\uff00-\\ufffd\\U00010000-\\U0010ffff]"
)
_SURROGATE = re.compile("[\\ud800-\\udfff]")  # an escape can make one
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser is some ten times faster
_NULLS = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A word, number or text. ``raw`` is its source, quotes and all; ``style`` is None (plain), ``'``, ``"``, ``|`` or ``>``."""

    text: str
    line: int
    column: int
    style: str | None = None
    raw: str = ""

    @property
    def is_null(self) -> bool:
        """Nothing was written, or YAML's word for nothing, unquoted."""
        return self.style is None and self.text in _NULLS

    def at(self, offset: int) -> tuple[int, int]:
        """Line and column, from 1, of character ``offset`` of the text, through quotes and folded lines."""
        if self.style == '"' and "\\" in self.raw:
            return self.line, self.column  # escapes: say where the text starts rather than a wrong column
        start = self.raw.find("\n") + 1 if self.style in ("|", ">") else int(self.style is not None)
        wanted = len("".join(self.text[:offset].split()))  # folding changes only white space: count the rest
        place = start
        while wanted and place < len(self.raw):
            if not self.raw[place].isspace():
                wanted -= 1
                if self.style == "'" and self.raw[place] == "'":
                    place += 1
            place += 1
        if offset < len(self.text) and not self.text[offset].isspace():
            while place < len(self.raw) and self.raw[place].isspace():
                place += 1
        before = self.raw[:place]
        lines = before.count("\n")
        return self.line + lines, (place - before.rfind("\n") if lines else self.column + place)


@dataclass(frozen=True, slots=True)
class Seq:
    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Map:
    """Keys are unique and in the order of the source."""

    entries: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int

    def get(self, key: str) -> Node | None:
        return next((v for k, v in self.entries if k.text == key), None)


Node = Scalar | Seq | Map


def decode(data: bytes, file: str) -> tuple[str, list[Problem]]:
    """UTF-8 bytes → text. At most MAX_BYTES."""
    if len(data) > MAX_BYTES:
        hint = "split it into several policies"
        return "", [Problem(file, 1, 1, f"the file has {len(data)} bytes, more than the {MAX_BYTES} allowed", hint)]
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = f"not UTF-8: byte 0x{data[error.start]:02x}"
        return "", [Problem(file, line, column, message, "save the file as UTF-8")]


def parse(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """Text → tree, and what is wrong with it as YAML. The tree is None when there is nothing to go on with."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if len(text) > MAX_BYTES:
        return None, [Problem(file, 1, 1, f"the file has more than the {MAX_BYTES} characters allowed")]
    if bad := _FORBIDDEN.search(text):
        before = text[: bad.start()]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = f"character U+{ord(bad[0]):04X} is not allowed in a policy"
        return None, [Problem(file, line, column, message, "remove it, or write it as an escape in double quotes")]
    builder = _Builder(text, file)
    try:
        builder.run()
    except _Stop:
        return None, builder.problems
    except yaml.MarkedYAMLError as error:
        return None, [*builder.problems, _syntax(error, text, file)]
    except yaml.YAMLError as error:  # none that we know of is left: the characters are checked above
        return None, [*builder.problems, Problem(file, 1, 1, f"not YAML: {' '.join(str(error).split())}")]
    if builder.root is None and not builder.problems:
        return None, [Problem(file, 1, 1, "the file is empty", "a policy starts with 'apiVersion: killswitch/v1'")]
    return builder.root, builder.problems


class _Stop(Exception):
    """The tree cannot be built any further; why is in ``problems``."""


class _Builder:
    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self._open: list[tuple[yaml.Event, list[Node]]] = []
        self._nodes = 0

    def run(self) -> None:
        documents = 0
        for event in yaml.parse(self.text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(event, "a second document starts here", "one policy a file: move it to its own")
                    raise _Stop
            elif isinstance(event, yaml.AliasEvent):
                hint = "write it out, or name the values once under 'lists:' and refer to them as $name"
                self._refuse(event, f"aliases are refused: *{event.anchor}", hint)
                self._put(Scalar("", *_mark(event), "*"))
            elif isinstance(event, yaml.ScalarEvent):
                self._properties(event)
                if _SURROGATE.search(event.value):
                    self._refuse(event, "half a surrogate pair is no character", "write the character itself")
                raw = self.text[_index(event.start_mark) : _index(event.end_mark)]
                self._put(Scalar(event.value, *_mark(event), event.style or None, raw))
            elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                self._properties(event)
                self._open.append((event, []))
                if len(self._open) > MAX_DEPTH:
                    self._refuse(event, f"nested more than {MAX_DEPTH} deep")
                    raise _Stop
            elif isinstance(event, yaml.SequenceEndEvent):
                start, items = self._open.pop()
                self._put(Seq(tuple(items), *_mark(start)))
            elif isinstance(event, yaml.MappingEndEvent):
                start, items = self._open.pop()
                self._put(Map(self._entries(items), *_mark(start)))

    def _entries(self, items: list[Node]) -> tuple[tuple[Scalar, Node], ...]:
        entries: dict[str, tuple[Scalar, Node]] = {}
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, Scalar):
                self.problems.append(
                    Problem(self.file, key.line, key.column, "a key must be a word, not a list or mapping")
                )
            elif key.style is None and key.text == "<<":
                self.problems.append(
                    Problem(self.file, key.line, key.column, "merge keys are refused: <<", "write the keys out")
                )
            elif key.text in entries:
                first = entries[key.text][0]
                message = f"key {quoted(key.text)} is given twice"
                hint = f"first at line {first.line}; one of them would be lost"
                self.problems.append(Problem(self.file, key.line, key.column, message, hint))
            else:
                entries[key.text] = (key, value)
        return tuple(entries.values())

    def _put(self, node: Node) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self.problems.append(
                Problem(self.file, node.line, node.column, f"more than {MAX_NODES} values in one file")
            )
            raise _Stop
        if self._open:
            self._open[-1][1].append(node)
        else:
            self.root = None if isinstance(node, Scalar) and node.is_null else node

    def _properties(self, event: yaml.NodeEvent) -> None:
        if event.anchor:
            self._refuse(event, f"anchors are refused: &{event.anchor}", "name the values once under 'lists:' instead")
        tag = getattr(event, "tag", None)
        if tag:
            short = tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(event, f"tags are refused: {short}", "the field tells a value's type: leave the tag out")

    def _refuse(self, event: yaml.Event, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.file, *_mark(event), message, hint))


class _Mark(Protocol):
    line: int
    column: int
    index: int


def _index(mark: _Mark | None) -> int:
    return mark.index if mark else 0


def _mark(event: yaml.Event) -> tuple[int, int]:
    """Line and column from 1. Events from a parser always have marks."""
    mark: _Mark | None = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    """The parser's complaint in our words: what is wrong there, and the mend."""
    said, context = error.problem or "broken", error.context or ""
    mark = error.problem_mark or error.context_mark
    line, column, index = (mark.line + 1, mark.column + 1, mark.index) if mark else (1, 1, 0)
    opened = error.context_mark
    here = text[index : index + 1]
    at_end = not text[index:].strip()
    if "end of stream" in said and "quoted" in context and opened:
        return Problem(file, opened.line + 1, opened.column + 1, "this quote is never closed", "add the closing quote")
    if "flow" in context and opened and "expected ',' or" in said:
        what, close = ("list", "]") if "sequence" in context else ("mapping", "}")
        if at_end:
            opener = "[" if close == "]" else "{"
            message = f"this '{opener}' is never closed"
            return Problem(file, opened.line + 1, opened.column + 1, message, f"add '{close}'")
        message = f"expected ',' or '{close}' in the {what} opened at {opened.line + 1}:{opened.column + 1}"
        return Problem(file, line, column, message, f"close it with '{close}', or quote a value that holds ',' or ': '")
    if "cannot start any token" in said and here == "\t":
        return Problem(file, line, column, "a tab cannot indent", "indent with blanks")
    if "cannot start any token" in said:
        return Problem(file, line, column, f"a value cannot start with '{here}'", "put the value in quotes")
    if "tab character" in said:
        return Problem(file, line, column, "a tab cannot indent", "indent with blanks")
    if "mapping values are not allowed" in said:
        hint = "quote a value that holds ': ', or mend the indentation"
        return Problem(file, line, column, "':' cannot stand here: this is inside a value", hint)
    if "escape" in said:
        hint = "in double quotes a backslash starts an escape: use single quotes, or write \\\\"
        return Problem(file, line, column, "unknown escape", hint)
    if "block mapping" in context and opened:
        message = f"expected a key of the mapping that starts at {opened.line + 1}:{opened.column + 1}"
        return Problem(file, line, column, message, "indent it like the keys before it, and end the key with ':'")
    if "block collection" in context and opened:
        message = f"expected '- ' as in the list that starts at {opened.line + 1}:{opened.column + 1}"
        return Problem(file, line, column, message, "indent it like the items before it")
    return Problem(file, line, column, f"not YAML: {said}{f' {context}' if context else ''}")
