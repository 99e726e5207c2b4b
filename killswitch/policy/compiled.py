"""Compiled policies, and the judgement of events by them: the same tables, walked the same way, as in the kernel."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from killswitch.commands import (
    ACCEPTS,
    BIT_DNS,
    BIT_MEMFD,
    BIT_OUTBOUND,
    BIT_TLS,
    BIT_TRUNCATED,
    BIT_UDP,
    BIT_UNLINKED,
    WIRE_WINDOW,
    KernelTables,
)
from killswitch.events import Event, Exec, Transport, Wire
from killswitch.facts import Facts
from killswitch.policy import runners, ssh
from killswitch.policy.clauses import Formula, Term
from killswitch.policy.decide import Decision, decision
from killswitch.policy.fields import COMMAND_LINE_BYTES, EVENT_TYPES, INSPECTED, PROGRAM, names, tokens
from killswitch.policy.foregone import Foregone, values_of
from killswitch.policy.model import Policy, Rule
from killswitch.policy.programs import Recogniser
from killswitch.policy.workloads import glob_pattern

_NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class CompiledRule:
    policy: Policy
    policy_index: int
    rule: Rule
    tier: int
    fields: frozenset[str]
    why: str  # why not a lower tier, "" = it is judged in the kernel


class Program(NamedTuple):
    """How the daemon judges a rule: one of the terms must hold, and then the formula, if there is one."""

    terms: tuple[Term, ...]
    formula: Formula | None


class _Plan(NamedTuple):
    """The rules for one set of policies."""

    keys: int  # an exec that has none of these bits can match none of ``exec``...
    always: bool  # ...unless some rule needs none
    exec: tuple[tuple[CompiledRule, Program, Decision | None], ...]  # None: the terms alone decide
    later: Foregone  # of the rules on ``exec``, those that ask what is found out then
    wants: frozenset[str]  # fields that have to be found out
    wire: tuple[tuple[CompiledRule, Program, Decision | None], ...]
    other: Mapping[type, tuple[tuple[CompiledRule, Decision], ...]]


@dataclass(frozen=True, eq=False)
class Compiled:
    policies: tuple[Policy, ...]  # index = the bit in a workload's policy set
    rules: tuple[CompiledRule, ...]  # index = Clause.rule
    tables: KernelTables
    programs: tuple[Program, ...]  # of each rule
    args_bits: int = 0  # the predicates that the arguments decide
    ssh_bits: int = 0  # the same, if ``ssh_gate`` holds
    ssh_gate: int = 0
    ssh_means: Mapping[str, int] = field(default_factory=dict)  # each kind of forwarding -> the bits that it sets
    recogniser: Recogniser = field(default_factory=lambda: Recogniser(()), repr=False)
    warnings: tuple[str, ...] = ()
    # (device, inode) -> the paths of ``file.inode_of`` that lead there, of the rules that the daemon judges
    files: Mapping[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)
    generation: int = 0  # set by who loads it
    _rows: memoryview = field(init=False, repr=False)
    _inodes: Mapping[tuple[int, int], int] = field(init=False, repr=False)
    _globs: tuple[tuple[re.Pattern[str], ...], ...] = field(init=False, repr=False)
    _plans: dict[int, _Plan] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "_rows", memoryview(self.tables.rows).cast("H"))
        put(self, "_inodes", {(device, inode): bits for device, inode, bits in self.tables.inodes})
        put(self, "_globs", tuple(tuple(map(glob_pattern, policy.workloads)) for policy in self.policies))
        put(self, "_plans", {})

    def __reduce__(self) -> tuple[object, ...]:
        """What was compiled, without what is made of it while judging: it may be handed to another process."""
        return Compiled, tuple(getattr(self, f.name) for f in dataclasses.fields(self) if f.init)

    def plan(self, policies: Iterable[int]) -> None:
        """Make ready to judge by these sets of policies. Otherwise that is done when the first event of each comes."""
        for number in policies:
            if number not in self._plans:
                self._plan(number)

    # --- which workloads ---------------------------------------------------------------------------------------------

    def policies_for(self, cgroup: str) -> tuple[int, ...]:
        """Which policies watch the workload at this cgroup path (below the cgroup v2 root, "/a/b")."""
        return tuple(i for i, globs in enumerate(self._globs) if any(glob.fullmatch(cgroup) for glob in globs))

    def root_of(self, cgroup: str) -> str | None:
        """The workload that this cgroup belongs to: the outermost of it and its ancestors that is watched, None if none is."""
        return next(self.roots_of(cgroup), None)

    def roots_of(self, cgroup: str) -> Iterator[str]:
        """Those of this cgroup and its ancestors that are watched, the outermost first."""
        names = cgroup.strip("/").split("/")
        paths = ("/" + "/".join(names[:depth]) for depth in range(1, len(names) + 1))
        return (path for path in paths if self.policies_for(path))

    # --- the kernel's judgement --------------------------------------------------------------------------------------

    def predicates(self, event: Exec) -> int:
        """What the kernel computes, computed here: the predicate bits of this event, arguments no further than the window."""
        tables = self.tables
        bits = event.memfd << BIT_MEMFD | (event.nlink == 0) << BIT_UNLINKED | event.truncated << BIT_TRUNCATED
        bits |= self._inodes.get((event.device, event.inode), 0)
        executable, asked = names(event)
        walk = self._walk
        bits |= walk(tables.start_name, executable + b"\0") | walk(tables.start_name, asked + b"\0")
        bits |= walk(tables.start_path, event.executable + b"\0") | walk(tables.start_path, event.filename + b"\0")
        bits |= walk(tables.start_parent, event.parent_name + b"\0")
        # The last argument ends at its NUL, or where the window cuts it.
        argv = event.argv if event.argv.endswith(b"\0") else event.argv + b"\0"
        bits |= walk(tables.start_args, argv)
        for grammar in tables.grammars:
            if bits >> grammar.gate & 1:
                bits |= walk(grammar.start, argv)
        return bits

    def wire_predicates(self, event: Wire) -> int:
        """The same of a flow, as far as its first bytes were kept, without those of the program behind it."""
        tables = self.tables
        bits = event.outbound << BIT_OUTBOUND | (event.transport is Transport.UDP) << BIT_UDP
        bits |= self._walk(tables.start_sent, event.sent[:WIRE_WINDOW])
        bits |= self._walk(tables.start_received, event.received[:WIRE_WINDOW])
        for name, kind in ((event.question, BIT_DNS), (event.server_name, BIT_TLS)):
            if name:
                bits |= self._walk(tables.start_host, name + b"\0") | 1 << kind
        address = ipaddress.ip_address(event.remote_ip)
        address = getattr(address, "ipv4_mapped", None) or address
        start = tables.start_address4 if address.version == 4 else tables.start_address6
        bits |= self._walk(start, address.packed)
        return bits | self._walk(tables.start_port, event.remote_port.to_bytes(2, "big"))

    def _walk(self, state: int, text: bytes) -> int:
        rows, accepts, bits = self._rows, self.tables.accepts, 0
        if state:
            for byte in text:
                state = rows[state << 8 | byte]
                if state >= ACCEPTS:
                    state -= ACCEPTS
                    bits |= accepts[state]
                elif not state:
                    break
        return bits

    def clause(self, predicates: int, policies: int) -> int:
        """Index of the first enforcing clause that holds for a workload with this set of policies, -1 = none."""
        for index, clause in enumerate(self.tables.clauses):
            if policies >> clause.policy & 1 and predicates & clause.mask == clause.value:
                return index
        return -1

    def wire_clause(self, predicates: int, policies: int, *, maker_known: bool) -> int:
        """The same for the first bytes of a flow. Of a program that these tables have not judged nothing is assumed."""
        for index, clause in enumerate(self.tables.wire_clauses):
            if not maker_known and clause.mask & ~self.tables.wire_bits:
                continue
            if policies >> clause.policy & 1 and predicates & clause.mask == clause.value:
                return index
        return -1

    # --- the daemon's judgement --------------------------------------------------------------------------------------

    def matches(self, event: Event, policies: int, extra: Mapping[str, object] = _NOTHING) -> tuple[CompiledRule, ...]:
        """The rules of these policies (a bit set) that match the event, in their order.

        The event's own predicates are trusted when they come from these tables and from all of its arguments.
        ``extra`` has fields that the event does not hold, and ``process.command_line_bytes``: all arguments,
        NUL-terminated, of an event whose own were cut. A field that is nowhere has no value: only ``exists: false`` and
        ``not`` hold for it.
        """
        plan = self._plans.get(policies) or self._plan(policies)
        if type(event) is Wire:
            return self._wire_matches(plan, event, extra)
        if type(event) is not Exec:
            rules = plan.other.get(type(event))
            return tuple([rule for rule, decide in rules if decide(0, event, extra)]) if rules else ()
        if event.generation == self.generation and self.generation and event.argv_total <= len(event.argv):
            bits = event.predicates
        else:
            event, bits = self._whole(event, extra)
        if not bits & plan.keys and not plan.always:
            return ()
        return tuple(rule for rule, program, decide in plan.exec if _holds(program, decide, bits, event, extra))

    def wants(self, policies: int) -> frozenset[str]:
        """What these policies want found out about a program that has begun: fields of ``INSPECTED``, and ``ssh.forward``."""
        return (self._plans.get(policies) or self._plan(policies)).wants

    def is_client(self, event: Exec) -> bool:
        """Whether it is OpenSSH's client by its name or its file."""
        return bool(self._bits(event) & self.ssh_gate)

    def later(
        self, event: Exec, policies: int, facts: Facts, extra: Mapping[str, object] = _NOTHING
    ) -> tuple[CompiledRule, ...]:
        """The rules that match by what was found out since, and did not by the event alone."""
        plan = self._plans.get(policies) or self._plan(policies)
        before = self._bits(event)
        kinds = set(facts.forwards)
        if ssh.CLIENT in facts.programs and self.ssh_means:
            argv = tokens(event.argv)
            kinds |= ssh.asked_for(argv[runners.inner(names(event), argv) or 0 :])
        bits = before
        for kind in kinds:
            bits |= self.ssh_means.get(kind, 0)
        known = {**extra, **values_of(facts)}
        found = [
            rule
            for rule, program, decide in plan.later.left(event, facts)
            if _holds(program, decide, bits, event, known)
        ]
        if bits != before:
            found += [
                rule
                for rule, program, decide in plan.exec
                if "ssh.forward" in rule.fields
                and _holds(program, decide, bits, event, extra)
                and not _holds(program, decide, before, event, extra)
            ]
        return tuple(found)

    def _bits(self, event: Exec) -> int:
        known = event.generation == self.generation and self.generation
        return event.predicates if known else self.predicates(event)

    def _wire_matches(self, plan: _Plan, event: Wire, extra: Mapping[str, object]) -> tuple[CompiledRule, ...]:
        ours = bool(event.generation == self.generation and self.generation)
        bits = event.predicates if ours else self.wire_predicates(event)  # other tables: what was kept of it has to do
        if not ours or not event.maker_known:
            program = extra.get(PROGRAM)
            if isinstance(program, Exec):
                bits |= self.predicates(program) & ~self.tables.wire_bits
        return tuple(rule for rule, program, decide in plan.wire if _holds(program, decide, bits, event, extra))

    def undecided(self, event: Exec, policies: int) -> tuple[CompiledRule, ...]:
        """The rules for which it matters what the arguments say beyond the window. Empty when nothing was cut."""
        if not event.truncated:
            return ()
        bits = self._bits(event)
        known = ~(self.args_bits | (self.ssh_bits if bits & self.ssh_gate else 0))
        plan = self._plans.get(policies) or self._plan(policies)
        return tuple(
            rule
            for rule, program in (*((rule, program) for rule, program, _ in plan.exec), *plan.later.rules)
            if any(
                (bits ^ value) & mask & known == 0
                and (mask & ~known or (program.formula and rule.fields & _OF_ARGUMENTS))
                for mask, value in program.terms
            )
        )

    def wants_full_argv(self, event: Exec, policies: int) -> bool:
        """Whether to read the process's whole command line before asking ``matches``: it was cut, and it matters."""
        return event.argv_total > len(event.argv) and bool(self.undecided(event, policies))

    def _whole(self, event: Exec, extra: Mapping[str, object]) -> tuple[Exec, int]:
        """The event with all of its arguments, if they are known, and its predicates."""
        later = extra.get(COMMAND_LINE_BYTES)
        if not event.truncated or not isinstance(later, bytes) or len(later) <= len(event.argv):
            return event, self.predicates(event)
        # The process may have overwritten its arguments since: what the kernel read before it ran stays as it was.
        whole = dataclasses.replace(event, argv=event.argv + later[len(event.argv) :], argv_total=0)
        return whole, self.predicates(whole) | 1 << BIT_TRUNCATED

    def _plan(self, policies: int) -> _Plan:
        chosen = [pair for pair in zip(self.rules, self.programs, strict=True) if policies >> pair[0].policy_index & 1]
        execs, wires = (
            tuple(
                (r, p, decision(p.formula, kind) if p.formula is not None else None)
                for r, p in chosen
                if EVENT_TYPES[r.rule.on] is kind
            )
            for kind in (Exec, Wire)
        )
        later = tuple(one for one in execs if one[0].fields & INSPECTED)
        execs = tuple(one for one in execs if not one[0].fields & INSPECTED)
        wants = frozenset(f for r, _ in chosen for f in r.fields & (INSPECTED | {"ssh.forward"}))
        values = [term.value for _, program, _ in execs for term in program.terms]
        other = {
            kind: tuple((r, decision(p.formula, kind)) for r, p in chosen if r.rule.on == on and p.formula is not None)
            for on, kind in EVENT_TYPES.items()
            if kind not in (Exec, Wire)
        }
        plan = _Plan(_keys(values), not all(values), execs, Foregone((r, p) for r, p, _ in later), wants, wires, other)
        self._plans[policies] = plan
        return plan


_OF_ARGUMENTS = frozenset({"process.args", "process.command_line"})


def _holds(program: Program, decide: Decision | None, bits: int, event: Event, extra: Mapping[str, object]) -> bool:
    return any(bits & mask == value for mask, value in program.terms) and (decide is None or decide(bits, event, extra))


def _keys(values: Sequence[int]) -> int:
    """A set of bits that has at least one of each value (but of 0)."""
    keys = 0
    for value in values:
        if value and not value & keys:
            keys |= value & -value
    return keys
