"""Rules about the wire: names by whole labels, addresses and ports as automata, and what the loader refuses."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.commands import Clause
from killswitch.errors import PolicyError
from killswitch.events import Done, Transport, Wire
from killswitch.policy import hostnames, matcher
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.load import load_text
from killswitch.policy.model import And, Expr, Not, Or, Predicate
from tests.unit.policy.compiling import policy_of, rule_of, where

RULE = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {{name: test, version: 1}}
workloads: [{{cgroup: /test/**}}]
mode: enforce
rules:
  - {{id: r, title: t, level: high, on: wire, match: {{a: {{{field}}}}}, condition: {condition}, response: [{response}]}}
"""


def problems(field: str, *, condition: str = "a", response: str = "deny") -> str:
    try:
        compile_policies([load_text(RULE.format(field=field, condition=condition, response=response), "f.yaml")])
    except PolicyError as error:
        return "\n".join(map(str, error.problems))
    return ""


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("dns.question.name|domain: com", "top-level domain"),
        ("dns.question.name|domain: '*.example.org'", "itself and all below it"),
        ("dns.question.name|domain: .example.org", "itself and all below it"),
        ("dns.question.name|domain: bücher.example", "ASCII form"),
        ("dns.question.name|domain: 'a b.example'", "no host's name"),
        ("dns.question.name: example.org.", "no dot at its end"),
        ("dns.question.name|cased: example.org", "has no 'cased'"),
        ("process.name|domain: example.org", "has no 'domain'"),
        ("tls.client.server_name|domain|endswith: example.org", "cannot go together"),
        ("remote.ip|cidr: 10.0.0.1/8", "not a network"),
        ("remote.port: 70000", "between 0 and 65535"),
        ("network.direction: sideways", "never a 'network.direction'"),
        ("wire.sent|endswith: x", "has no 'endswith'"),
        ("wire.sent: SSH", "its end is not known"),
        ("wire.sent|re: 'x$'", "where it ends is not known"),
        ("remote.port: 22", "without anything seen on the wire"),
        ("network.transport: udp", "without anything seen on the wire"),
        ("remote.ip|exists: true", "without anything seen on the wire"),
    ],
)
def test_refused(field: str, told: str) -> None:
    assert told in problems(field)


def test_refused_when_it_could_match_without_the_wire() -> None:
    assert "without anything seen on the wire" in problems("wire.sent|contains: x", condition="not a")
    assert "without anything seen on the wire" in problems("dns.question.name|domain: a.example", condition="not a")
    assert problems("dns.question.name|domain: a.example") == ""
    assert problems("tls.client.server_name|exists: true", response="alert") == ""


def test_a_domain_is_what_is_looked_for() -> None:
    assert hostnames.domain("Example.ORG.") == "example.org"
    fits = matcher.judge_of(where("dns.question.name", "example.org", op="domain"))
    for name, expected in {
        b"example.org": True, b"a.b.EXAMPLE.org": True, b"example.org.": True, b"notexample.org": False,
        b"example.org.net": False, b"org": False, b".example.org": True, b"": False,
    }.items():  # fmt: skip
        assert fits((name,)) is expected, name


def wire(**given: object) -> Wire:
    fields: dict[str, object] = {
        "time_ns": 1, "workload": 1, "cgroup_id": 1, "pid": 1, "start_ticks": 1, "uid": 0, "comm": b"", "remote_ip": "192.0.2.1",
        "transport": Transport.TCP, "remote_port": 443, "direction": "sent", "sent": b"", "received": b"", "predicates": 0,
        "maker_known": True, "generation": 0, "clause": -1, "done": Done.NOTHING, "verdict_ns": 0,
    }  # fmt: skip
    return Wire(**{**fields, **given})  # type: ignore[arg-type]


def compiled(condition: Expr) -> Compiled:
    return compile_policies([policy_of(rule_of(condition, on="wire"))])


SEEN = where("wire.sent", "x", op="startswith")


def tier_2_and_3(condition: Predicate, event: Wire) -> tuple[bool, bool]:
    """By the automata, and by the values."""
    made = compiled(And((SEEN, condition)))
    assert made.rules[0].tier == 2, made.rules[0].why
    bits = made.wire_predicates(event)
    by_tables = any(bits & t.mask == t.value for t in made.programs[0].terms)
    value = {"remote.ip": event.remote_ip, "remote.port": event.remote_port}[condition.field]
    return by_tables, matcher.judge(condition, (value,))


PORTS = st.sampled_from([0, 1, 21, 22, 23, 254, 255, 256, 257, 1023, 1024, 3333, 65280, 65534, 65535])


@settings(max_examples=60, deadline=None)
@given(
    op=st.sampled_from(["match", "gt", "gte", "lt", "lte"]), values=st.lists(PORTS, min_size=1, max_size=3), port=PORTS
)
def test_ports(op: str, values: list[int], port: int) -> None:
    by_tables, by_value = tier_2_and_3(Predicate("remote.port", op, tuple(values)), wire(sent=b"x", remote_port=port))
    assert by_tables is by_value


ADDRESSES = st.one_of(
    st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address),
    st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address),
    st.sampled_from(["10.0.0.1", "10.255.255.255", "127.0.0.1", "::1", "fd00::1", "fc00::", "::ffff:10.0.0.1"]).map(
        ipaddress.ip_address
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), address=ADDRESSES,
    others=st.lists(st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "fc00::/7", "::1/128", "172.16.0.0/12"]), max_size=3),
)  # fmt: skip
def test_networks(
    data: st.DataObject, address: ipaddress.IPv4Address | ipaddress.IPv6Address, others: list[str]
) -> None:
    prefix = data.draw(st.integers(0, address.max_prefixlen))
    near = str(ipaddress.ip_network((int(address) ^ data.draw(st.integers(0, 3)), prefix), strict=False)
               if address.version == 4 else ipaddress.ip_network(f"{address}/{prefix}", strict=False))  # fmt: skip
    condition = Predicate("remote.ip", "cidr", (near, *others))
    by_tables, by_value = tier_2_and_3(condition, wire(sent=b"x", remote_ip=str(address)))
    assert by_tables is by_value


def test_names_of_dns_and_tls_share_their_automaton_and_are_told_apart() -> None:
    names = ("supportxmr.com", "2miners.com")
    one = compiled(where("dns.question.name", *names, op="domain"))
    both = compiled(
        Or((where("dns.question.name", *names, op="domain"), where("tls.client.server_name", *names, op="domain")))
    )
    assert len(one.tables.rows) == len(both.tables.rows)
    question, server = wire(question=b"x.2miners.com"), wire(server_name=b"x.2miners.com")
    assert one.wire_clause(one.wire_predicates(question), 1, maker_known=True) == -1, (
        "kill is nothing that a packet can do"
    )
    assert [bool(one.matches(e, 1)) for e in (question, server)] == [True, False]
    assert [bool(both.matches(e, 1)) for e in (question, server)] == [True, True]


def test_who_and_where_are_clauses_of_the_kernel() -> None:
    text = RULE.format(
        field="wire.sent|startswith: SSH-, remote.port: 22, network.direction: outbound, network.transport: tcp",
        condition="a", response="deny",
    )  # fmt: skip
    made = compile_policies([load_text(text, "f.yaml")])
    (clause,) = made.tables.wire_clauses
    assert isinstance(clause, Clause) and clause.deny and not clause.mask & ~made.tables.wire_bits
    there = wire(sent=b"SSH-2.0-x", remote_port=22)
    for event, expected in {
        there: 0,
        wire(sent=b"SSH-2.0-x", remote_port=23): -1,
        wire(sent=b"SSH-2.0-x", remote_port=22, outbound=False): -1,
        wire(sent=b"SSH-2.0-x", remote_port=22, transport=Transport.UDP): -1,
    }.items():
        assert made.wire_clause(made.wire_predicates(event), 1, maker_known=False) == expected


def test_a_list_too_long_for_the_kernel_is_judged_by_the_daemon() -> None:
    many = tuple(str(ipaddress.IPv4Address(i * 2654435761 % 2**32)) for i in range(500))
    made = compiled(And((SEEN, Not(where("remote.ip", *many)))))
    assert made.rules[0].tier == 3 and "states" in made.rules[0].why
    assert not made.matches(wire(sent=b"x", remote_ip=many[7]), 1)
    assert made.matches(wire(sent=b"x", remote_ip="192.0.2.1"), 1)


@pytest.mark.parametrize("before", [b"", b"\x05\x01\0\x05\x01\0\x01\xcb\0\x01\x0a\0\x16", b"\0" * 40])
def test_a_nul_ends_nothing_of_what_goes_over_a_wire(before: bytes) -> None:
    """As lengths and addresses before what a proxy or a WebSocket carries have them; by the automata and by the values alike."""
    for value, op in (("^[^a-z]*hello", "re"), ("hello", "contains")):
        condition = where("wire.sent", value, op=op)
        made = compiled(condition)
        for text, expected in ((before + b"hello", True), (before + b"hel\0lo", False)):
            bits = made.wire_predicates(wire(sent=text))
            assert any(bits & t.mask == t.value for t in made.programs[0].terms) is expected, (value, text)
            assert bool(made.matches(wire(sent=text), 1)) is expected, (value, text)


def test_what_must_stand_first_does_not_begin_again_after_a_nul() -> None:
    made = compiled(where("wire.sent", "hello", op="startswith"))
    for text, expected in ((b"hello", True), (b"\0hello", False), (b"x\0hello", False)):
        assert bool(made.wire_predicates(wire(sent=text)) & made.programs[0].terms[0].mask) is expected, text
