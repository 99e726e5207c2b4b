"""The rules in force, put to one event: which of them match it, and what has to be known besides the event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from killswitch.commands import Mode, Response
from killswitch.detect.answered import ANSWERED, OBEYED, answered, obeyed
from killswitch.detect.correlate import Correlator
from killswitch.detect.fields import extra_fields, wanted_fields
from killswitch.detect.load import LOOKED_AT
from killswitch.detect.pipeline import PIPED
from killswitch.detect.processes import Process
from killswitch.detect.reach import FANOUT
from killswitch.detect.relay import RELAY
from killswitch.detect.traffic import OUTSIDE
from killswitch.detect.workload import Workload
from killswitch.events import Cpu, Denied, Exec, Flow
from killswitch.facts import Inspected
from killswitch.policy.compiled import Compiled, CompiledRule
from killswitch.policy.fields import EVENT_TYPES, Judged
from killswitch.policy.limits import on_flood

NOTHING: Mapping[str, object] = MappingProxyType({})


class Judge:
    """Of one generation of policies: a reload makes another one."""

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        self.correlator = Correlator(compiled)
        self.judges = frozenset(EVENT_TYPES[r.rule.on] for r in compiled.rules)  # events that some rule looks at
        self.reaching = any(r.fields.intersection(FANOUT) for r in compiled.rules)
        self.relaying = any(r.fields.intersection(RELAY) for r in compiled.rules)
        self.piping = any(PIPED in r.fields for r in compiled.rules)
        self.obeying = any(r.fields.intersection(OBEYED) for r in compiled.rules)
        self.answering = self.obeying or any(ANSWERED in r.fields for r in compiled.rules)
        self._outside = frozenset(EVENT_TYPES[r.rule.on] for r in compiled.rules if r.fields.intersection(OUTSIDE))
        # The policies for which code has to be looked at.
        self.hashing = mask(r.policy_index for r in compiled.rules if not LOOKED_AT.isdisjoint(r.fields))
        self._wanted = {EVENT_TYPES[on]: fields for on, fields in wanted_fields(compiled.rules).items()}
        self._enforcing = mask(i for i, p in enumerate(compiled.policies) if p.mode is Mode.ENFORCE)

    def matches(
        self, workload: Workload, event: Judged, process: Process | None, more: Mapping[str, object] = NOTHING
    ) -> tuple[CompiledRule, ...]:
        """The rules that the event matches. ``more``: fields that neither the event nor its process holds."""
        kind = type(event)
        if kind not in self.judges:
            return ()
        wanted = self._wanted.get(kind)
        if wanted is not None:
            more = {**extra_fields(wanted, event, process, workload.cgroup, self.compiled.files), **more}
        return self.compiled.matches(event, workload.policies, more)

    def denied_by(self, event: Denied) -> CompiledRule | None:
        """The rule for which the exec was denied, if it is in force still."""
        clauses = self.compiled.tables.clauses
        if event.generation != self.compiled.generation or not 0 <= event.clause < len(clauses):
            return None
        return self.compiled.rules[clauses[event.clause].rule]

    def held_outside(self, workload: Workload, event: Flow | Cpu) -> Mapping[str, object]:
        """What the workload holds of connections to the outside, where some rule asks for it."""
        if type(event) not in self._outside:
            return NOTHING
        return dict(zip(OUTSIDE, workload.traffic.outside(event.time_ns), strict=True))

    def of_flow(self, workload: Workload, event: Flow) -> Mapping[str, object]:
        """What is known of a connection, and of all that the workload holds, where some rule asks for it."""
        held = self.held_outside(workload, event)
        if not self.answering:
            return held
        connection = workload.traffic.connections[event.cookie]
        more = {**held, ANSWERED: answered(connection)}
        if self.obeying:
            more |= zip(OBEYED, obeyed(connection, workload.runs), strict=True)
        return more

    def later(self, workload: Workload, event: Inspected, process: Process | None) -> tuple[CompiledRule, ...]:
        """The rules that the program matches by what was found out about it since it began."""
        wanted = self._wanted.get(Exec)
        more = (
            extra_fields(wanted, event.exec, process, workload.cgroup, self.compiled.files)
            if wanted is not None
            else NOTHING
        )
        return self.compiled.later(event.exec, workload.policies, event.facts, more)

    def mode(self, workload: Workload) -> Mode:
        """Of a built-in finding: that of the strictest policy which watches the workload."""
        return Mode.ENFORCE if workload.policies & self._enforcing else Mode.MONITOR

    def on_flood(self, workload: Workload) -> tuple[Response, ...]:
        """What its policies want done with it when it floods."""
        policies = self.compiled.policies
        return on_flood(p for i, p in enumerate(policies) if workload.policies >> i & 1).responses

    def carried_over(self, policies: int, cgroup: str, old: Judge) -> int:
        """The policies of a workload that had these (a bit set of ``old``'s): by name where they were given by hand, and
        otherwise those whose globs fit its cgroup now."""
        before = old.compiled
        if policies == mask(before.policies_for(cgroup)):
            return mask(self.compiled.policies_for(cgroup))
        index = {policy.name: i for i, policy in enumerate(self.compiled.policies)}
        names = (p.name for i, p in enumerate(before.policies) if policies >> i & 1)
        return mask(index[name] for name in names if name in index)


def mask(bits: Iterable[int]) -> int:
    found = 0
    for bit in bits:
        found |= 1 << bit
    return found
