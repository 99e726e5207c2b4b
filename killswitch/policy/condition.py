"""A rule's ``condition``, in Sigma's grammar, over the names of its ``match``.

    condition := and_ ("or" and_)*              "not" binds closest, then "and", then "or"
    and_      := not_ ("and" not_)*
    not_      := "not" not_ | "(" condition ")" | quantity "of" ("them" | NAME | NAME*) | NAME
    quantity  := "1" | "any" | "all"

``them`` is every name that does not start with ``_``. A ``*`` stands for any characters, anywhere in a name after ``of``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass

from killswitch.policy.model import And, Expr, Not, Or
from killswitch.policy.suggest import did_you_mean, quoted

MAX_LENGTH = 4096
MAX_DEPTH = 32
KEYWORDS = frozenset({"and", "or", "not", "of", "them", "all", "any"})
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z0-9_*?.$-]+)|(?P<paren>[()])|(?P<other>\S))")


class ConditionError(Exception):
    """The condition is wrong at character ``offset`` (from 0)."""

    def __init__(self, offset: int, message: str, hint: str = "") -> None:
        self.offset = offset
        self.message = message
        self.hint = hint
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    offset: int


def parse_condition(source: str, matches: Mapping[str, Expr]) -> tuple[Expr, frozenset[str]]:
    """The condition with the names put in, and the names that it used. Raises ConditionError."""
    if len(source) > MAX_LENGTH:
        raise ConditionError(0, f"the condition is longer than {MAX_LENGTH} characters", "split the rule")
    parser = _Parser(source, matches)
    expr = parser.or_(0)
    parser.expect_end()
    return expr, frozenset(parser.used)


class _Parser:
    def __init__(self, source: str, matches: Mapping[str, Expr]) -> None:
        self.matches = matches
        self.used: set[str] = set()
        self.end = len(source.rstrip())
        self.tokens = [_Token(m[m.lastgroup or 0], m.start(m.lastgroup or 0)) for m in _TOKEN.finditer(source)]
        self.next = 0
        for token in self.tokens:
            if not re.fullmatch(r"[A-Za-z0-9_*?.$-]+|[()]", token.text):
                hint = {"|": "pipes (aggregations) are not part of conditions here; 'for:' tells how long"}
                message = f"{quoted(token.text)} is not part of a condition"
                raise ConditionError(
                    token.offset, message, hint.get(token.text, "use and, or, not, ( ) and names of 'match'")
                )
        if not self.tokens:
            raise ConditionError(0, "the condition is empty", "name what 'match' must hold, as in 'condition: name'")

    def or_(self, depth: int) -> Expr:
        return self._chain("or", depth)

    def and_(self, depth: int) -> Expr:
        return self._chain("and", depth)

    def _chain(self, word: str, depth: int) -> Expr:
        """One or more operands with ``word`` between them; chains of one kind are kept flat."""
        parts = [self.and_(depth) if word == "or" else self.not_(depth)]
        while self._peek() == word:
            self.next += 1
            parts.append(self.and_(depth) if word == "or" else self.not_(depth))
        if len(parts) == 1:
            return parts[0]
        return Or(tuple(parts)) if word == "or" else And(tuple(parts))

    def not_(self, depth: int) -> Expr:
        token = self._take("a name of 'match', 'not' or '('")
        if depth > MAX_DEPTH:
            raise ConditionError(token.offset, f"nested more than {MAX_DEPTH} deep")
        if token.text == "not":
            return Not(self.not_(depth + 1))
        if token.text == "(":
            inner = self.or_(depth + 1)
            if self._peek() != ")":
                raise ConditionError(
                    token.offset,
                    "this '(' is never closed"
                    if self._peek() is None
                    else f"this '(' is not closed before {quoted(self.tokens[self.next].text)}",
                    "add ')'",
                )
            self.next += 1
            return inner
        if self._peek() == "of":
            return self._of(token)
        return self._name(token)

    def _name(self, token: _Token) -> Expr:
        if token.text == ")" or token.text in KEYWORDS:
            raise ConditionError(token.offset, f"expected a name of 'match' before {quoted(token.text)}")
        if token.text in self.matches:
            self.used.add(token.text)
            return self.matches[token.text]
        if token.text.lower() in KEYWORDS:
            raise ConditionError(
                token.offset,
                f"{quoted(token.text)} is not a name of 'match'",
                f"write '{token.text.lower()}' in lower case",
            )
        hint = did_you_mean(token.text, self.matches)
        if "*" in token.text:
            hint = f"write '1 of {token.text}' or 'all of {token.text}'"
        raise ConditionError(token.offset, f"{quoted(token.text)} is not a name of 'match'", hint)

    def _of(self, quantity: _Token) -> Expr:
        if quantity.text not in ("1", "any", "all"):
            raise ConditionError(quantity.offset, f"{quoted(quantity.text)} of: only '1 of' and 'all of' are known")
        self.next += 1
        target = self._take("'them', a name or a name with '*'")
        if target.text == "them":
            chosen = [n for n in self.matches if not n.startswith("_")]
        else:
            chosen = [n for n in self.matches if fnmatch.fnmatchcase(n, target.text.replace("[", "[[]"))]
        if not chosen:
            hint = did_you_mean(target.text.strip("*"), self.matches)
            raise ConditionError(target.offset, f"{quoted(target.text)} fits no name of 'match'", hint)
        self.used.update(chosen)
        parts = tuple(self.matches[n] for n in chosen)
        if len(parts) == 1:
            return parts[0]
        return And(parts) if quantity.text == "all" else Or(parts)

    def expect_end(self) -> None:
        if self.next < len(self.tokens):
            token = self.tokens[self.next]
            if token.text == ")":
                raise ConditionError(token.offset, "this ')' closes nothing", "remove it, or add the '('")
            hint = f"write '{token.text.lower()}' in lower case" if token.text.lower() in KEYWORDS else ""
            raise ConditionError(token.offset, f"expected 'and' or 'or' before {quoted(token.text)}", hint)

    def _peek(self) -> str | None:
        return self.tokens[self.next].text if self.next < len(self.tokens) else None

    def _take(self, what: str) -> _Token:
        if self.next >= len(self.tokens):
            raise ConditionError(self.end, f"the condition ends where {what} is expected")
        self.next += 1
        return self.tokens[self.next - 1]
