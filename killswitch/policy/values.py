"""Fields, modifiers and values of ``match``, typed by the field catalogue: ``process.args|contains|all: [a, b]`` → Predicate.

A value is the text that was written; the field says what it is. So ``process.name: no`` is a program called "no", and
``user.id: root`` is refused rather than never true.
"""

from __future__ import annotations

import ipaddress
import re
import shlex

from killswitch.commands import Act, Evidence
from killswitch.errors import Problem
from killswitch.policy import hostnames, wildcard
from killswitch.policy.catalogue import FIELDS, FieldType, allowed_modifiers
from killswitch.policy.lists import Lists
from killswitch.policy.model import Predicate
from killswitch.policy.schema import describe
from killswitch.policy.source import Map, Node, Scalar, Seq
from killswitch.policy.suggest import did_you_mean, quoted
from killswitch.policy.sums import COUNTED

Value = str | int | float | bool
MAX_TEXT = 1024  # characters in one value
OPERATORS = ("contains", "startswith", "endswith", "domain", "re", "cidr", "gt", "gte", "lt", "lte", "exists")
FLAGS = ("all", "cased")
MODIFIERS = (*OPERATORS, *FLAGS)
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?")
_LIMITS = {
    "port": (0, 65535),
    "share": (0, 1),
    "count": (0, 2**63 - 1),
    "kinds": (0, len(Evidence)),
    "acts": (0, len(Act)),
    "sum": (0, COUNTED),
}


class ValueProblem(Exception):
    """A value does not fit its field: (message, hint)."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(message)


class Reader:
    """Reads the fields of one rule. Problems pile up in ``problems``. ``on`` is "" when the rule's event is not known."""

    def __init__(self, file: str, on: str, lists: Lists, problems: list[Problem]) -> None:
        self.file = file
        self.on = on
        self.lists = lists
        self.problems = problems

    def predicate(self, key: Scalar, node: Node) -> Predicate | None:
        """One line of a group; None when something is wrong with it."""
        name, *modifiers = key.text.split("|")
        kind = self._field(key, name)
        op, flags = self._modifiers(key, name, kind, modifiers)
        before = len(self.problems)
        scalars = self.lists.expand(node, self.file, self.problems)
        if kind is None or op is None:
            return None
        if not scalars:
            if isinstance(node, Seq) and not node.items:  # a list that is empty is told where it is made
                self._problem(node, f"'{key.text}' has no value")
            return None
        if op == "exists" and len(scalars) > 1:
            self._problem(node, "'exists' takes one value, true or false")
            return None
        values = []
        for scalar in scalars:
            try:
                values.append(read_value(scalar, name, op))
            except ValueProblem as error:
                # Of a value that came in by $name, the place in the list is the one to mend.
                self._problem(scalar, error.message, error.hint)
        if "all" in flags and len(scalars) == 1:
            self._problem(key, "'all' needs a list of two values or more", "leave 'all' out")
        if len(self.problems) > before:
            return None
        return Predicate(name, op, tuple(values), all="all" in flags, cased="cased" in flags)

    def event(self, node: Node) -> dict[str, object] | None:
        """The event of an inline test, typed by its fields: ``process.args`` and such become tuples."""
        if not isinstance(node, Map):
            hint = "write {process.executable: /tmp/x, process.args: [x, -a]}"
            self._problem(node, f"'event' must be a mapping from fields to values, found {describe(node)}", hint)
            return None
        before = len(self.problems)
        fields: dict[str, object] = {}
        for key, value in node.entries:
            if "|" in key.text:
                self._problem(key, f"an event has values, not modifiers: {quoted(key.text)}", "name the field alone")
                continue
            kind = self._field(key, key.text)
            if kind is None:
                continue
            if kind.derived:
                self._problem(key, f"'{key.text}' cannot be given in a test", kind.derived)
                continue
            many = isinstance(value, Seq)
            if many and not kind.many:
                self._problem(value, f"'{key.text}' has one value in an event, found a list")
                continue
            typed: list[Value] = []
            for item in value.items if isinstance(value, Seq) else (value,):
                if not isinstance(item, Scalar):
                    self._problem(item, f"'{key.text}' must be a value, found {describe(item)}")
                    continue
                try:
                    typed.append(_typed(item, key.text, kind, literal=True))
                    if key.text == "process.command_line":
                        shlex.split(item.text)
                except ValueError as error:
                    self._problem(
                        item, f"'{key.text}' cannot be split as a shell would: {error}", "or give process.args"
                    )
                except ValueProblem as error:
                    self._problem(item, error.message, error.hint)
            fields[key.text] = tuple(typed) if kind.many else (typed[0] if typed else "")
        return fields if len(self.problems) == before else None

    def _problem(self, node: Node, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.file, node.line, node.column, message, hint))

    def _field(self, key: Scalar, name: str) -> FieldType | None:
        kind = FIELDS.get(name)
        if kind is None:
            here = [f for f, k in FIELDS.items() if not self.on or self.on in k.events]
            self._problem(key, f"unknown field {quoted(name)}", did_you_mean(name, here))
            return None
        if self.on and self.on not in kind.events:
            hint = f"it is there with 'on: {' | '.join(sorted(kind.events))}'"
            self._problem(key, f"an event of 'on: {self.on}' has no '{name}'", hint)
            return None
        return kind

    def _modifiers(
        self, key: Scalar, name: str, kind: FieldType | None, modifiers: list[str]
    ) -> tuple[str | None, frozenset[str]]:
        """(operator, flags); the operator is None when something is wrong."""
        ok = True
        for modifier in modifiers:
            if modifier not in MODIFIERS:
                self._problem(key, f"unknown modifier {quoted(modifier)}", did_you_mean(modifier, MODIFIERS))
                ok = False
            elif kind is not None and modifier not in allowed_modifiers(name):
                allowed = ", ".join(allowed_modifiers(name)) or "none"
                self._problem(key, f"'{name}' is {kind.what}: it has no '{modifier}'", f"its modifiers: {allowed}")
                ok = False
        repeated = sorted({m for m in modifiers if modifiers.count(m) > 1})
        if repeated:
            self._problem(key, f"modifier '{repeated[0]}' is given twice")
            ok = False
        operators = [m for m in modifiers if m in OPERATORS]
        if len(set(operators)) > 1:
            hint = "use two lines, or two groups joined by 'and'"
            self._problem(key, f"'{operators[0]}' and '{operators[1]}' cannot go together", hint)
            ok = False
        flags = frozenset(m for m in modifiers if m in FLAGS)
        op = operators[0] if operators else "match"
        if ok and op == "exists" and flags:
            self._problem(key, f"'exists' and '{sorted(flags)[0]}' cannot go together")
            ok = False
        return (op if ok else None), flags


def read_value(scalar: Scalar, name: str, op: str) -> Value:
    """The value as its field and operator have it. Raises ValueProblem."""
    if op == "exists":
        return _boolean(scalar, f"{name}|exists")
    kind = FIELDS[name]
    if op == "cidr":
        if scalar.is_null:
            raise ValueProblem(f"'{name}' has no value")
        try:
            return str(ipaddress.ip_network(scalar.text))
        except ValueError as error:
            raise ValueProblem(
                f"{quoted(scalar.text)} is not a network: {error}", "write 10.0.0.0/8 or fd00::/8"
            ) from None
    if op in ("gt", "gte", "lt", "lte"):
        return _number(scalar, name, kind)
    value = _typed(scalar, name, kind, literal=op != "match")
    if op == "domain":
        try:
            return hostnames.domain(str(value))
        except ValueError as error:
            raise ValueProblem(f"'{name}|domain': {error}", "write example.org") from None
    if op == "re":
        _check_expression(str(value))
    elif op in ("contains", "startswith", "endswith") and not value:
        raise ValueProblem(f"an empty text is in every '{name}'", "name what to look for")
    return value


def _typed(scalar: Scalar, name: str, kind: FieldType, *, literal: bool) -> Value:
    """``literal``: the text stands for itself, so it cannot be checked against what a whole value looks like."""
    if scalar.is_null:
        hint = f"quote it for the word '{scalar.text}', or ask '{name}|exists: false'" if scalar.text else ""
        raise ValueProblem(f"'{name}' has no value", hint)
    if kind.kind in ("whole", "decimal"):
        return _number(scalar, name, kind)
    if kind.kind == "boolean":
        return _boolean(scalar, name)
    if kind.kind == "ip":
        try:
            return str(ipaddress.ip_address(scalar.text))
        except ValueError:
            hint = (
                f"for a network write '{name}|cidr'"
                if "/" in scalar.text or "*" in scalar.text
                else "write 192.0.2.1 or 2001:db8::1"
            )
            raise ValueProblem(f"{quoted(scalar.text)} is not an IP address", hint) from None
    if len(scalar.text) > MAX_TEXT:
        raise ValueProblem(f"the value has {len(scalar.text)} characters, more than the {MAX_TEXT} allowed")
    if "\0" in scalar.text:
        raise ValueProblem("a NUL character can never be in a path or an argument")
    if kind.words and scalar.text not in kind.words:
        raise ValueProblem(f"{quoted(scalar.text)} is never a '{name}'", did_you_mean(scalar.text, kind.words))
    if kind.kind == "file" and not scalar.text.startswith("/"):
        raise ValueProblem(
            f"{quoted(scalar.text)} is not an absolute path", "write the path of a file, as /usr/bin/ssh"
        )
    if not literal:
        _check_whole_text(scalar.text, name, kind)
    return scalar.text


def _check_whole_text(text: str, name: str, kind: FieldType) -> None:
    """Values that could never be equal to the field are slips of the pen, not rules."""
    if kind.kind == "opening" and wildcard.parse(text, "match").at_end:
        raise ValueProblem(
            f"'{name}' is judged as it comes, its end is not known: {quoted(text)} would never match",
            f"write '{text}*', or ask '{name}|startswith'",
        )
    if kind.kind == "name" and "/" in text:
        raise ValueProblem(
            f"'{name}' is a name without its folder: {quoted(text)} never matches",
            f"write the last part alone, or ask '{name.rpartition('.')[0]}.executable'",
        )
    if kind.kind == "host" and text.endswith(".") and text != ".":
        raise ValueProblem(f"'{name}' has no dot at its end: {quoted(text)} never matches", f"write '{text[:-1]}'")
    if kind.kind == "path" and text[:1] not in ("/", "*", "?") and not text.startswith("memfd:"):
        raise ValueProblem(
            f"'{name}' is an absolute path: {quoted(text)} never matches", f"write '*/{text}', or ask 'process.name'"
        )


def _number(scalar: Scalar, name: str, kind: FieldType) -> int | float:
    whole = kind.kind == "whole"
    if not (_WHOLE if whole else _DECIMAL).fullmatch(scalar.text):
        form = "a whole number" if whole else "a number"
        hint = "without a leading zero" if re.fullmatch(r"0[0-9]+", scalar.text) else ""
        raise ValueProblem(f"'{name}' must be {form}, found {describe(scalar)}", hint)
    number = int(scalar.text) if whole else float(scalar.text)
    low, high = _LIMITS[kind.limit]
    if not low <= number <= high:
        raise ValueProblem(f"'{name}' lies between {low} and {high}, found {scalar.text}")
    return number


def _boolean(scalar: Scalar, name: str) -> bool:
    if scalar.text not in ("true", "false"):
        raise ValueProblem(f"'{name}' must be true or false, found {describe(scalar)}")
    return scalar.text == "true"


def _check_expression(expression: str) -> None:
    """RE2's only: linear in the text, so that no workload that knows the rule can make it slow."""
    import re2  # a C++ library: only policies with expressions pay for loading it

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(expression, options)
    except re2.error as error:
        said = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        hint = "RE2's syntax: no back-references, no look-around"
        raise ValueProblem(f"{quoted(expression)} is not an expression: {said}", hint) from None
