"""``lists:`` and references to them: ``$miners`` stands for the list's values, inside other lists too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from killswitch.errors import Problem
from killswitch.policy.source import Map, Node, Scalar, Seq
from killswitch.policy.suggest import did_you_mean

MAX_VALUES = 10_000
REFERENCE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists of one file with every reference put in; each value once, so that lists of lists cannot explode."""

    values: Mapping[str, tuple[Scalar, ...]]

    def expand(self, node: Node, file: str, problems: list[Problem]) -> tuple[Scalar, ...]:
        """A value, a list of values, references among them → the values. ``\\$x`` is the text ``$x``."""
        if isinstance(node, Map):
            problems.append(
                Problem(file, node.line, node.column, "expected a value or a list of values, found a mapping")
            )
            return ()
        found: dict[str, Scalar] = {}
        for item in node.items if isinstance(node, Seq) else (node,):
            if not isinstance(item, Scalar):
                hint = "write the values in one list; refer to a named list as $name"
                problems.append(Problem(file, item.line, item.column, "a value cannot be a list or a mapping", hint))
                continue
            reference = REFERENCE.fullmatch(item.text)
            if reference is None:
                found.setdefault(item.text, unescaped(item))
            elif reference[1] in self.values:
                for value in self.values[reference[1]]:
                    found.setdefault(value.text, value)
            else:
                message = f"there is no list '{item.text}' in this file"
                hint = did_you_mean(reference[1], self.values) or "name it under 'lists:'"
                problems.append(Problem(file, item.line, item.column, message, hint))
        if len(found) > MAX_VALUES:
            problems.append(Problem(file, node.line, node.column, f"more than {MAX_VALUES} values"))
        return tuple(found.values())


def unescaped(scalar: Scalar) -> Scalar:
    if not scalar.text.startswith("\\$"):
        return scalar
    return Scalar(scalar.text[1:], scalar.line, scalar.column, scalar.style or "'", scalar.raw)


def resolve_lists(node: Node | None, file: str, problems: list[Problem]) -> Lists:
    """The file's ``lists:``. A list that is part of itself, or refers to none, is a problem."""
    if not isinstance(node, Map):
        return Lists({})
    sources = {key.text: value for key, value in node.entries if isinstance(value, Seq)}
    done: dict[str, tuple[Scalar, ...]] = {}

    def resolve(name: str, above: tuple[str, ...], at: Scalar | Seq) -> None:
        if name in done:
            return
        if name in above:
            circle = " → ".join((*above[above.index(name) :], name))
            problems.append(Problem(file, at.line, at.column, f"a list cannot be part of itself: {circle}"))
            done[name] = ()
            return
        if len(above) > 32:
            problems.append(Problem(file, at.line, at.column, "lists refer to lists more than 32 deep"))
            done[name] = ()
            return
        for item in sources[name].items:
            reference = REFERENCE.fullmatch(item.text) if isinstance(item, Scalar) else None
            if isinstance(item, Scalar) and reference and reference[1] in sources:
                resolve(reference[1], (*above, name), item)
        if name not in done:
            known = Lists(done | {n: () for n in sources if n not in done})
            done[name] = known.expand(sources[name], file, problems if sources[name].items else [])

    for name, source in sources.items():
        resolve(name, (), source)
    return Lists(done)
