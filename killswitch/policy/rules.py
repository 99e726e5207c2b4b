"""One rule of the source tree → ``model.Rule``: what the shape cannot say is checked here, and all of it at once."""

from __future__ import annotations

import re

from killswitch.commands import Act, Evidence, Level, Response
from killswitch.errors import Problem
from killswitch.policy.condition import KEYWORDS, ConditionError, parse_condition
from killswitch.policy.duration import parse_duration
from killswitch.policy.lists import Lists
from killswitch.policy.model import And, Expr, FoundBefore, InlineTest, Or, Rule
from killswitch.policy.schema import DURATION, EVENTS, IDENTIFIER, describe
from killswitch.policy.source import Map, Node, Scalar, Seq
from killswitch.policy.suggest import quoted
from killswitch.policy.sums import SUMS, sums_of
from killswitch.policy.values import Reader

MAX_PROBLEMS = 500  # of one file that are told: past that it is no policy
MAX_GROUPS = 200
_BROKEN: Expr = And(())  # stands for a group with problems, so that the condition is still checked


class RuleBuilder:
    """Reads the rules of one file. Problems pile up in ``problems``; a rule with any is None."""

    def __init__(self, file: str, lists: Lists, problems: list[Problem]) -> None:
        self.file = file
        self.lists = lists
        self.problems = problems

    def build(self, node: Map) -> Rule | None:
        before = len(self.problems)
        on = self._text(node, "on")
        groups = self._match(node.get("match"), on if on in EVENTS else "")
        condition = self._condition(node.get("condition"), groups)
        for_ns = self._for(node.get("for"), on)
        # What a group with problems would have asked for is not known.
        timespan_ns = self._timespan(node, on, condition if len(self.problems) == before else None)
        response = self._response(node.get("response"), on)
        act, evidence = self._act(node, on)
        tests = self._tests(node.get("tests"), on if on in EVENTS else "")
        identity, level = self._text(node, "id"), self._text(node, "level")
        if len(self.problems) > before or condition is None or level not in tuple(Level) or on not in EVENTS:
            return None
        if not re.fullmatch(IDENTIFIER, identity):
            return None
        return Rule(
            id=identity,
            title=self._text(node, "title"),
            level=Level(level),
            on=on,
            condition=condition,
            response=response,
            for_ns=for_ns,
            timespan_ns=timespan_ns,
            description=self._text(node, "description"),
            references=self._texts(node.get("references")),
            false_positives=self._texts(node.get("falsepositives")),
            tests=tests,
            line=node.line,
            act=act,
            evidence=evidence,
        )

    def _enough(self) -> bool:
        """No more problems are told anyway: do not look for them."""
        return len(self.problems) > MAX_PROBLEMS

    def _problem(self, node: Node, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.file, node.line, node.column, message, hint))

    def _text(self, node: Map, key: str) -> str:
        value = node.get(key)
        return value.text.strip() if isinstance(value, Scalar) else ""

    def _texts(self, node: Node | None) -> tuple[str, ...]:
        return tuple(i.text for i in node.items if isinstance(i, Scalar)) if isinstance(node, Seq) else ()

    def _act(self, node: Map, on: str) -> tuple[Act | None, Evidence | None]:
        """``act`` and ``evidence``, which go together. What is none of their words is told by the shape's check."""
        act, evidence = self._text(node, "act"), self._text(node, "evidence")
        if on == "finding":
            for key in ("act", "evidence"):
                if (given := node.get(key)) is not None:
                    hint = f"remove it, or ask for 'finding.{key}'"
                    self._problem(given, f"'{key}' has no sense with 'on: finding': the findings say it", hint)
            return None, None
        if bool(act) != bool(evidence):
            here, lacks = ("act", "evidence") if act else ("evidence", "act")
            words = Evidence if act else Act
            hint = f"one of {', '.join(words)}"
            self._problem(node.get(here) or node, f"'{here}' says half of it: the rule needs '{lacks}' as well", hint)
        if act not in tuple(Act) or evidence not in tuple(Evidence):
            return None, None
        return Act(act), Evidence(evidence)

    def _match(self, node: Node | None, on: str) -> dict[Scalar, Expr]:
        """Each name of ``match`` and what it stands for; {} when there is none to be read."""
        if not isinstance(node, Map):
            return {}
        groups: dict[Scalar, Expr] = {}
        for name, value in node.entries[:MAX_GROUPS]:
            if name.text in KEYWORDS:
                self._problem(name, f"'{name.text}' cannot be a name: it is a word of the condition")
            groups[name] = self._group(name.text, value, on)
        return groups

    def _group(self, name: str, node: Node, on: str) -> Expr:
        """A mapping is the AND of its fields, a list of mappings the OR of them."""
        if isinstance(node, Map):
            if not node.entries:
                self._problem(node, f"'{name}' is empty", "an empty group would match every event")
                return _BROKEN
            reader = Reader(self.file, on, self.lists, self.problems)
            parts = [p for k, v in node.entries if not self._enough() and (p := reader.predicate(k, v)) is not None]
            return parts[0] if len(parts) == 1 else And(tuple(parts))
        if isinstance(node, Seq) and node.items:
            if any(not isinstance(i, Map) for i in node.items):
                bad = next(i for i in node.items if not isinstance(i, Map))
                hint = "say which field: {process.name: …}; words without a field are not searched for"
                self._problem(bad, f"'{name}' must list mappings from fields to values, found {describe(bad)}", hint)
                return _BROKEN
            alternatives = tuple(self._group(name, i, on) for i in node.items if not self._enough())
            return alternatives[0] if len(alternatives) == 1 else Or(alternatives)
        hint = "say which field: {process.name: …}"
        self._problem(node, f"'{name}' must be a mapping from fields to values, found {describe(node)}", hint)
        return _BROKEN

    def _condition(self, node: Node | None, groups: dict[Scalar, Expr]) -> Expr | None:
        if not isinstance(node, Scalar) or node.is_null or not node.text.strip() or not groups:
            return None
        try:
            expr, used = parse_condition(node.text, {name.text: e for name, e in groups.items()})
        except ConditionError as error:
            line, column = node.at(error.offset)
            self.problems.append(Problem(self.file, line, column, error.message, error.hint))
            return None
        for name in groups:
            if name.text not in used:
                hint = "use it there or remove it: now it changes nothing"
                self._problem(name, f"{quoted(name.text)} is not used in the condition", hint)
        return expr

    def _for(self, node: Node | None, on: str) -> int:
        if isinstance(node, Scalar) and re.fullmatch(DURATION.pattern, node.text) and on in EVENTS and on != "cpu":
            hint = "'on: cpu' comes in windows, and is the only one that lasts: remove 'for'"
            if on == "finding":
                hint = "how far back findings add up is 'timespan'"
            self._problem(node, f"'for' has no sense with 'on: {on}', which happens in an instant", hint)
            return 0
        return self._duration(node)

    def _timespan(self, node: Map, on: str, condition: Expr | None) -> int:
        """How far back findings add up: needed where the condition has sums, refused where nothing adds up."""
        given = node.get("timespan")
        if given is not None and on in EVENTS and on != "finding":
            self._problem(given, f"'timespan' has no sense with 'on: {on}'", "findings add up with 'on: finding'")
            return 0
        summed = condition is not None and sums_of(condition)
        if given is None and summed:
            hint = "say over how long they add up, as in timespan: 10m"
            self._problem(node, f"a rule that asks for '{sorted(summed)[0]}' needs the key 'timespan'", hint)
        elif given is not None and condition is not None and on == "finding" and not summed:
            hint = f"ask for one of {', '.join(SUMS)}, or remove 'timespan'"
            self._problem(given, "'timespan' changes nothing: the condition adds nothing up", hint)
        return self._duration(given)

    def _duration(self, node: Node | None) -> int:
        """Nanoseconds, 0 = none given. What does not even look like a duration is told by the shape's check."""
        if not isinstance(node, Scalar) or not re.fullmatch(DURATION.pattern, node.text):
            return 0
        try:
            return parse_duration(node.text)
        except ValueError as error:
            self._problem(node, str(error))
            return 0

    def _response(self, node: Node | None, on: str) -> tuple[Response, ...]:
        if not isinstance(node, Seq):
            return ()
        chosen: dict[Response, None] = {}
        for item in node.items:
            if not isinstance(item, Scalar) or item.text not in tuple(Response):
                continue
            response = Response(item.text)
            if response in chosen:
                self._problem(item, f"'{response}' is given twice")
            elif response is Response.DENY and on not in ("wire", "exec") and on in EVENTS:
                self._problem(item, f"'deny' is refused: nothing can make an event of 'on: {on}' not happen")
            elif response is Response.KILL_PROCESS and on == "finding":
                hint = "use freeze or terminate, or put kill_process into the rules that find it"
                self._problem(item, "'kill_process' has no sense with 'on: finding': a sum is no process's", hint)
            elif response is Response.KILL_PROCESS and on == "exit":
                self._problem(item, "'kill_process' has no sense with 'on: exit': the process is gone", "remove it")
            chosen[response] = None
        return tuple(chosen)

    def _tests(self, node: Node | None, on: str) -> tuple[InlineTest, ...]:
        if not isinstance(node, Seq):
            return ()
        tests = []
        for item in node.items:
            if not isinstance(item, Map):
                continue
            wanted, other = ("findings", "event") if on == "finding" else ("event", "findings")
            given, wrong, expect = item.get(wanted), item.get(other), item.get("expect")
            if wrong is not None and on:
                self._problem(wrong, f"a test of 'on: {on}' has no '{other}'", f"give '{wanted}'")
            elif given is None and on:
                self._problem(item, f"a test of 'on: {on}' needs the key '{wanted}'")
            if given is None or not isinstance(expect, Scalar):
                continue
            if on == "finding":
                series = self._series(given)
                tests.append(InlineTest({}, expect.text == "match", item.line, item.column, series))
                continue
            fields = Reader(self.file, on, self.lists, self.problems).event(given)
            if fields is not None:
                tests.append(InlineTest(fields, expect.text == "match", item.line, item.column))
        return tuple(tests)

    def _series(self, node: Node) -> tuple[FoundBefore, ...]:
        """``findings`` of a test; the shape has been checked."""
        return tuple(
            FoundBefore(
                self._duration(item.get("after")),
                *(self._text(item, key) for key in ("rule", "policy", "act", "evidence", "level")),
            )
            for item in (node.items if isinstance(node, Seq) else ())
            if isinstance(item, Map)
        )
