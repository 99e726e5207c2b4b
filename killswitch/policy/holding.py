"""``hold: matched``: about which programs a rule is still open when the kernel has judged what it can.

That is a question to the predicate bits, as a verdict is, so it is put in clauses, too. They may say yes too often, and never
no too often.
"""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.commands import BIT_TRUNCATED, Clause, Mode, Response
from killswitch.policy.atoms import predicates
from killswitch.policy.clauses import Term
from killswitch.policy.model import Policy, Rule

_ACTS = frozenset({Response.KILL_PROCESS, Response.SEVER, Response.FREEZE, Response.TERMINATE})
_OF_ARGUMENTS = frozenset({"process.args", "process.command_line", "ssh.forward"})
_ANY = Term(0, 0)
_CUT = Term(1 << BIT_TRUNCATED, 1 << BIT_TRUNCATED)


class Opened:
    """``ssh_gate``: the bits that say that it is OpenSSH's client, whose configuration only the daemon reads. ``recognises``:
    executables are known by their content, so that anything may turn out to be one."""

    def __init__(self, ssh_gate: int, *, recognises: bool) -> None:
        self._ssh = [_ANY] if recognises else [Term(bit, bit) for bit in _bits(ssh_gate)]
        self._terms: dict[int, dict[Term, None]] = {}  # policy -> terms, in the order found

    def add(self, policy: Policy, index: int, rule: Rule, terms: Sequence[Term]) -> None:
        """``terms``: one of them holds whenever the rule does; none when the kernel both judges it to its end and acts on it."""
        if rule.on != "exec" or rule.for_ns or policy.mode is not Mode.ENFORCE or not _ACTS.intersection(rule.response):
            return
        used = {p.field for p in predicates(rule.condition)}
        found = self._terms.setdefault(index, {})
        if terms or used & _OF_ARGUMENTS:
            found[_CUT] = None
        found.update(dict.fromkeys(terms))
        if "ssh.forward" in used:
            found.update(dict.fromkeys(self._ssh))

    def clauses(self, room: int) -> tuple[Clause, ...]:
        """At most ``room``, of which there has to be one for each policy at least: where they do not fit, everything is open."""
        made = {
            index: [_ANY] if _ANY in terms else [t for t in terms if not any(o is not t and o.covers(t) for o in terms)]
            for index, terms in self._terms.items()
        }
        for index in sorted(made, key=lambda i: -len(made[i])):
            if sum(map(len, made.values())) > room:
                made[index] = [_ANY]
        return tuple(
            Clause(term.mask, term.value, index, 0, False, False, False)
            for index, terms in made.items()
            for term in terms
        )


def _bits(mask: int) -> list[int]:
    return [1 << at for at in range(mask.bit_length()) if mask >> at & 1]
