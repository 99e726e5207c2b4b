"""The shape of a policy file, declared once: what the loader checks, and what the JSON schema for editors is made from.

``KEYS`` below is the whole of it. The check walks the source tree, so each problem has its line and column, and it goes on
after one. What a shape cannot say (fields, conditions, durations' sense) is checked by ``load``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from killswitch.commands import Act, Evidence, Guard, Level, Mode, Response
from killswitch.errors import Problem
from killswitch.policy.limits import OnFlood
from killswitch.policy.model import Hold, OnDaemonLoss
from killswitch.policy.source import Map, Node, Scalar, Seq
from killswitch.policy.suggest import did_you_mean, quoted

API_VERSION = "killswitch/v1"
EVENTS = (
    "exec",
    "fork",
    "exit",
    "connect",
    "unanswered",
    "listen",
    "wire",
    "file",
    "flow",
    "signal",
    "denied",
    "cgroup_move",
    "cpu",
    "finding",
)
GUARDS = tuple(guard.name.lower() for guard in Guard if guard.name)
IDENTIFIER = r"[a-z0-9][a-z0-9._-]{0,63}"
NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar, optionally of a certain form, which ``form`` tells in words."""

    pattern: str = ""
    form: str = ""
    maximum: int = 4096


@dataclass(frozen=True, slots=True)
class Choice:
    words: tuple[str, ...]
    what: str  # "a level"


@dataclass(frozen=True, slots=True)
class Whole:
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Items:
    of: Type
    minimum: int = 1
    maximum: int = 1000


@dataclass(frozen=True, slots=True)
class Named:
    """A mapping whose keys the author chooses."""

    of: Type
    what: str  # "a list"
    key: str = NAME
    maximum: int = 200


@dataclass(frozen=True, slots=True)
class Given:
    """Checked elsewhere (by the field catalogue); the JSON schema comes from ``json``."""

    json: str


@dataclass(frozen=True, slots=True)
class Key:
    type: Type
    doc: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    what: str  # "a rule"
    keys: Mapping[str, Key] = field(default_factory=dict)


Type = Text | Choice | Whole | Items | Named | Given | Record

_TEXTS = Items(Text())
DURATION = Text(r"(\d+(\.\d+)?(ns|us|ms|s|m|h))+", "a duration, as in 20s, 5m or 1h500ms")
FOUND = Record(
    "a finding",
    {
        "rule": Key(Text(), "The rule that was found. Of a rule of this policy the rest is known."),
        "policy": Key(Text(), "Its policy, where it is another one."),
        "act": Key(Choice(tuple(Act), "an act"), "What it is evidence of."),
        "evidence": Key(Choice(tuple(Evidence), "a kind of evidence"), "Of which kind."),
        "level": Key(Choice(tuple(Level), "a level"), "The rule's level."),
        "after": Key(DURATION, "How long after the one before."),
    },
)
TEST = Record(
    "a test",
    {
        "event": Key(Given("event"), "An event, by its fields: {process.executable: /tmp/x, process.args: [x, -a]}."),
        "findings": Key(
            Items(FOUND, maximum=100),
            "For 'on: finding': findings of one workload, in their order. The last one is what is judged.",
        ),
        "expect": Key(
            Choice(("match", "no_match"), "an expectation"), "Whether the rule is to match that event.", True
        ),
    },
)
RULE = Record(
    "a rule",
    {
        "id": Key(
            Text(IDENTIFIER, "lower-case letters, digits, '.', '_' and '-'"), "Unique among all loaded policies.", True
        ),
        "title": Key(Text(maximum=200), "One line for people.", True),
        "description": Key(Text(), "What it detects, and why that matters."),
        "level": Key(Choice(tuple(Level), "a level"), "How serious a match is (Sigma's levels).", True),
        "act": Key(Choice(tuple(Act), "an act"), "What a match is evidence of."),
        "evidence": Key(
            Choice(tuple(Evidence), "a kind of evidence"),
            "Of which kind that evidence is: two kinds agree, one may err.",
        ),
        "on": Key(Choice(EVENTS, "an event"), "Which event the rule looks at.", True),
        "match": Key(
            Named(Given("match"), "a name in 'match'"),
            "Named groups of conditions: fields of one mapping are joined by and, a list of mappings by or.",
            True,
        ),
        "condition": Key(
            Text(), "The names of 'match' joined by and, or, not, parentheses, '1 of x*', 'all of them'.", True
        ),
        "for": Key(
            DURATION,
            "How long the condition must hold (only for 'on: cpu').",
        ),
        "timespan": Key(DURATION, "Over how long findings add up (only for 'on: finding')."),
        "response": Key(Items(Choice(tuple(Response), "a response")), "What is done in mode enforce.", True),
        "tests": Key(Items(TEST), "Events that the rule must match, and must not match."),
        "references": Key(_TEXTS, "Where to read more."),
        "falsepositives": Key(_TEXTS, "Innocent things that match too."),
    },
)
_MARKERS = Items(Text(maximum=200), maximum=200)
PROGRAM = Record(
    "a program",
    {
        "all": Key(_MARKERS, "Texts that its executable has, every one of them."),
        "any": Key(_MARKERS, "Texts of which it has some: see 'least'."),
        "least": Key(Whole(1, 200), "How many of 'any' it has at least; 1 when this is not said."),
        "none": Key(_MARKERS, "Texts that it does not have."),
    },
)
POLICY = Record(
    "a policy",
    {
        "apiVersion": Key(Choice((API_VERSION,), "a version of this format"), "The version of this format.", True),
        "kind": Key(Choice(("Policy",), "a kind"), "Always Policy.", True),
        "metadata": Key(
            Record(
                "metadata",
                {
                    "name": Key(
                        Text(IDENTIFIER, "lower-case letters, digits, '.', '_' and '-'"),
                        "Unique among all policies.",
                        True,
                    ),
                    "version": Key(Whole(1, 2**31 - 1), "Counted up by the author with each change.", True),
                    "description": Key(Text(), "What the policy is for."),
                },
            ),
            "What the policy is called.",
            True,
        ),
        "workloads": Key(
            Items(
                Record(
                    "a workload",
                    {
                        "cgroup": Key(
                            Text(), "A glob over cgroup v2 paths: * is one name, a last ** is everything below.", True
                        ),
                    },
                ),
                maximum=64,
            ),
            "Which cgroups the policy watches.",
            True,
        ),
        "mode": Key(Choice(tuple(Mode), "a mode"), "monitor says what would be done; enforce does it.", True),
        "on_daemon_loss": Key(
            Choice(tuple(OnDaemonLoss), "a word for on_daemon_loss"),
            "What the kernel does to these workloads when no daemon has been there for daemon_grace: allow (the default) lets "
            "them go on, hold lets go on what runs already and holds what is executed meanwhile, sever cuts them off until one "
            "is back, sever_and_keep until an operator releases them.",
        ),
        "daemon_grace": Key(
            Text(r"(\d+(\.\d+)?(ns|us|ms|s|m|h))+", "a duration, as in 10s or 1m30s"),
            "How long the daemon may be away before on_daemon_loss holds: 10s by default, 3s at least.",
        ),
        "budget": Key(
            Record(
                "a budget",
                {
                    "contained": Key(Whole(0, 100_000), "So many workloads may be: 40 by default."),
                    "per": Key(DURATION, "Within this time: 10m by default."),
                    "share": Key(
                        Text(r"\d{1,3}%", "a percentage, as in 25%"),
                        "Or so much of all that are watched, if that is more: 50% by default; 100% is no budget.",
                    ),
                },
            ),
            "How many workloads of the host rules may contain, or kill processes of, by themselves; past that they only monitor. "
            "Of several policies' budgets the strictest holds.",
        ),
        "on_flood": Key(
            Choice(tuple(OnFlood), "a word for on_flood"),
            "What is done with a workload that makes events faster than they are read: alert (the default), sever, or freeze, "
            "which severs and captures, too.",
        ),
        "hold": Key(
            Choice(tuple(Hold), "a word for hold"),
            "Which programs put no packet on the wire, from exec until the daemon has judged them: matched (the default) are "
            "those about which a rule is open that only the daemon can judge to its end, all, off.",
        ),
        "guard": Key(
            Items(Choice(GUARDS, "a guard"), maximum=len(GUARDS)),
            "What LSM programs refuse these workloads also while they are free, where the kernel has them.",
        ),
        "lists": Key(Named(Items(Text(), maximum=10_000), "a list"), "Named values, used in 'match' as $name."),
        "programs": Key(
            Named(PROGRAM, "a program", IDENTIFIER), "What executables are by their content; used in 'file.program'."
        ),
        "rules": Key(Items(RULE, maximum=256), "The detections.", True),
    },
)


def check_shape(root: Node, file: str) -> Iterator[Problem]:
    """All that is wrong with the shape of a policy's tree, as it is found."""
    return _Checker(file).check(root, POLICY, "")


class _Checker:
    def __init__(self, file: str) -> None:
        self.file = file

    def _problem(self, node: Node, message: str, hint: str = "") -> Problem:
        return Problem(self.file, node.line, node.column, message, hint)

    def check(self, node: Node, kind: Type, name: str) -> Iterator[Problem]:
        """``name`` is the key that holds ``node``, for the message; "" is the file itself."""
        match kind:
            case Record():
                yield from self._record(node, kind, name)
            case Named():
                yield from self._named(node, kind, name)
            case Items():
                yield from self._items(node, kind, name)
            case Text() | Choice() | Whole():
                yield from self._scalar(node, kind, name)
            case Given():
                return

    def _record(self, node: Node, kind: Record, name: str) -> Iterator[Problem]:
        if not isinstance(node, Map):
            keys = ", ".join(kind.keys)
            yield self._problem(node, f"{kind.what} must be a mapping, found {describe(node)}", f"its keys: {keys}")
            return
        for key, value in node.entries:
            known = kind.keys.get(key.text)
            if known is None:
                yield self._problem(
                    key, f"unknown key {quoted(key.text)} in {kind.what}", did_you_mean(key.text, kind.keys)
                )
            else:
                yield from self.check(value, known.type, key.text)
        for required, key_kind in kind.keys.items():
            if key_kind.required and node.get(required) is None:
                yield self._problem(node, f"{kind.what} needs the key '{required}'", key_kind.doc.rstrip("."))

    def _named(self, node: Node, kind: Named, name: str) -> Iterator[Problem]:
        if not isinstance(node, Map):
            yield self._problem(node, f"'{name}' must be a mapping from names, found {describe(node)}")
            return
        if not node.entries:
            yield self._problem(node, f"'{name}' is empty")
        if len(node.entries) > kind.maximum:
            yield self._problem(node, f"'{name}' has {len(node.entries)} names, more than the {kind.maximum} allowed")
        for key, value in node.entries:
            if not re.fullmatch(kind.key, key.text):
                yield self._problem(key, f"{quoted(key.text)} cannot name {kind.what}", "use letters, digits and '_'")
            yield from self.check(value, kind.of, key.text)

    def _items(self, node: Node, kind: Items, name: str) -> Iterator[Problem]:
        if not isinstance(node, Seq):
            yield self._problem(
                node, f"'{name}' must be a list, found {describe(node)}", "write [a, b], or lines that start with '- '"
            )
            return
        if len(node.items) < kind.minimum:
            yield self._problem(node, f"'{name}' is empty")
        if len(node.items) > kind.maximum:
            yield self._problem(node, f"'{name}' has {len(node.items)} items, more than the {kind.maximum} allowed")
        for item in node.items:
            yield from self.check(item, kind.of, name)

    def _scalar(self, node: Node, kind: Text | Choice | Whole, name: str) -> Iterator[Problem]:
        if not isinstance(node, Scalar):
            yield self._problem(node, f"'{name}' must be one value, found {describe(node)}")
        elif node.is_null or not node.text.strip():
            yield self._problem(node, f"'{name}' has no value")
        elif isinstance(kind, Choice):
            if node.text not in kind.words:
                yield self._problem(
                    node, f"{quoted(node.text)} is not {kind.what}", did_you_mean(node.text, kind.words)
                )
        elif isinstance(kind, Whole):
            if not re.fullmatch(r"0|[1-9][0-9]{0,17}", node.text) or not kind.minimum <= int(node.text) <= kind.maximum:
                yield self._problem(
                    node, f"'{name}' must be a whole number from {kind.minimum}, found {quoted(node.text)}"
                )
        elif len(node.text) > kind.maximum:
            yield self._problem(node, f"'{name}' is longer than {kind.maximum} characters")
        elif kind.pattern and not re.fullmatch(kind.pattern, node.text):
            yield self._problem(node, f"'{name}' must be {kind.form}, found {quoted(node.text)}")


def describe(node: Node) -> str:
    match node:
        case Seq():
            return "a list"
        case Map():
            return "a mapping"
        case Scalar():
            return "nothing" if node.is_null else quoted(node.text)


JsonOf = Callable[[str], dict[str, object]]


def json_type(kind: Type, given: JsonOf) -> dict[str, object]:
    """``kind`` as a JSON schema; ``given`` says what stands for a ``Given``."""
    match kind:
        case Text():
            found: dict[str, object] = (
                {"type": ["string", "number", "boolean"]} if not kind.pattern else {"type": "string"}
            )
            return found | ({"pattern": f"^(?:{kind.pattern})$"} if kind.pattern else {"maxLength": kind.maximum})
        case Choice():
            return {"enum": [str(w) for w in kind.words]}
        case Whole():
            return {"type": "integer", "minimum": kind.minimum, "maximum": kind.maximum}
        case Items():
            return {
                "type": "array",
                "minItems": kind.minimum,
                "maxItems": kind.maximum,
                "items": json_type(kind.of, given),
            }
        case Named():
            names: dict[str, object] = {f"^{kind.key}$": json_type(kind.of, given)}
            return {"type": "object", "patternProperties": names, "additionalProperties": False, "minProperties": 1}
        case Given():
            return given(kind.json)
        case Record():
            properties = {n: {"description": k.doc} | json_type(k.type, given) for n, k in kind.keys.items()}
            required = [n for n, k in kind.keys.items() if k.required]
            return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
