from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.events import Connect, Event, Fork, Transport
from killswitch.policy import matcher
from killswitch.policy.clauses import All, Formula, Inverse, Opaque, Some
from killswitch.policy.decide import decision
from killswitch.policy.fields import FIELDS, reader, values_of
from killswitch.policy.model import Predicate
from tests.unit.policy.formula_reference import holds
from tests.unit.policy.test_clauses import FORMULAS

PREDICATES = [
    Predicate("user.id", "match", (0,)),
    Predicate("destination.ip", "cidr", ("10.0.0.0/8", "fd00::/8")),
    Predicate("destination.port", "gte", (1024,)),
    Predicate("process.name", "startswith", ("ss", "XM")),
    Predicate("process.args", "contains", ("a", "b"), all=True),
    Predicate("cgroup.path", "exists", (False,)),
]
EVENTS: list[Event] = [
    *(
        Connect(1, 1, 1, 5, 1, uid, b"c", Transport.TCP, ip, port, "connect", False)
        for uid in (0, 7)
        for ip, port in (("10.1.2.3", 22), ("::ffff:10.1.2.3", 2222), ("fd00::1", 443), ("192.0.2.1", 80), ("", 0))
    ),
    Fork(1, 1, 1, 5, 1, 4, 1),
]
EXTRAS: list[dict[str, object]] = [
    {},
    {"process.name": (b"ssh", b"sh"), "process.args": ("xa", "b"), "cgroup.path": "/a"},
    {"process.name": "xmrig", "destination.port": 5, "user.id": 0},
]


def with_predicates(formula: Formula, data: st.DataObject) -> Formula:
    """What only tier 3 judges, put in place of the stand-ins."""
    match formula:
        case Opaque():
            return Opaque(data.draw(st.sampled_from(PREDICATES)), "why")
        case Inverse(part):
            return Inverse(with_predicates(part, data))
        case All(parts) | Some(parts):
            return type(formula)(tuple(with_predicates(part, data) for part in parts))
    return formula


@settings(max_examples=300, deadline=None)
@given(FORMULAS, st.data())
def test_it_decides_what_the_formula_means(formula: Formula, data: st.DataObject) -> None:
    formula = with_predicates(formula, data)
    for event in EVENTS:
        decide = decision(formula, type(event))
        for extra in EXTRAS:
            for bits in (0, 1, 6, 31):
                meant = holds(formula, bits, lambda p: matcher.judge(p, values_of(p.field, event, extra)))  # noqa: B023 - called at once
                assert decide(bits, event, extra) is meant


def test_a_field_of_the_event_goes_before_what_is_added() -> None:
    assert reader("destination.port", Connect)(EVENTS[0], {"destination.port": 5}) == (22,)
    assert reader("destination.port", Fork)(EVENTS[-1], {"destination.port": 5}) == (5,)
    assert reader("process.name", Fork)(EVENTS[-1], {"process.name": "x"}) == (b"x",)
    assert {
        name: reader(name, Fork)(EVENTS[-1], {}) for name in FIELDS if Fork not in FIELDS[name].of
    } == dict.fromkeys((name for name in FIELDS if Fork not in FIELDS[name].of), ())


def test_addresses_are_judged_alike_the_second_time() -> None:
    judge = matcher.judge_of(PREDICATES[1])
    for _ in range(2):
        assert [judge((ip,)) for ip in ("10.1.2.3", "192.0.2.1", "fd00::1", "no address")] == [True, False, True, False]
