"""The compiler against a plain interpreter of the same rules, on random policies and events."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from killswitch.commands import ACCEPTS, MAX_STATES, Mode, Response
from killswitch.events import Exec
from killswitch.policy import walks
from killswitch.policy.compile import compile_policies
from killswitch.policy.model import Policy, Predicate
from tests.unit.policy.matcher_reference import fits, holds
from tests.unit.policy.matcher_strategies import TEXT, execs, policies, text_predicates

SLOW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
NO_FILES = {"inode_of": lambda path: None}


def expected(predicate: Predicate, texts: list[bytes]) -> bool:
    if predicate.op == "exists":
        return any(texts)
    return any(fits(predicate, str(value), text) for value in predicate.values for text in texts)


@SLOW
@given(st.lists(text_predicates("process.name"), min_size=1, max_size=6), st.lists(TEXT, min_size=1, max_size=6))
def test_one_walk_judges_every_predicate_of_a_name_as_each_would_be_judged_alone(
    found: list[Predicate], texts: list[str]
) -> None:
    dfa, left_out = walks.build({1 << i: p for i, p in enumerate(found)}, text="token", limit=2000)
    assert not left_out
    for text in texts:
        bits = dfa.walk(text.encode() + b"\0")
        assert [bool(bits >> i & 1) for i in range(len(found))] == [expected(p, [text.encode()]) for p in found]


@SLOW
@given(
    st.lists(text_predicates("process.args") | text_predicates("process.command_line"), min_size=1, max_size=6),
    st.lists(st.lists(TEXT, min_size=1, max_size=4), min_size=1, max_size=6),
)
def test_one_walk_judges_arguments_and_the_command_line(found: list[Predicate], lines: list[list[str]]) -> None:
    dfa, left_out = walks.build({1 << i: p for i, p in enumerate(found)}, text="arguments", limit=3000)
    for line in lines:
        args = [arg.encode() for arg in line]
        bits = dfa.walk(b"".join(arg + b"\0" for arg in args))
        for i, predicate in enumerate(found):
            texts = args if predicate.field == "process.args" else [b" ".join(args)]
            if 1 << i not in left_out:
                assert bool(bits >> i & 1) == expected(predicate, texts), predicate
            else:
                assert predicate.field == "process.command_line"  # only its end cannot be seen by the walk
                assert left_out[1 << i] == walks.END_UNKNOWN


@SLOW
@given(policies(), st.lists(execs(), min_size=1, max_size=5), st.integers(0, 7))
def test_compiled_policies_judge_as_their_conditions_read(
    made: tuple[Policy, ...], events: list[Exec], mask: int
) -> None:
    compiled = compile_policies(made, **NO_FILES)
    for event in events:
        wanted = [
            (index, rule.id)
            for index, policy in enumerate(made)
            if mask >> index & 1
            for rule in policy.rules
            if holds(rule.condition, event)
        ]
        assert [(m.policy_index, m.rule.id) for m in compiled.matches(event, mask)] == wanted


@SLOW
@given(policies(), st.lists(execs(), min_size=1, max_size=5), st.integers(0, 7))
def test_the_kernels_clauses_hold_exactly_for_the_rules_it_enforces(
    made: tuple[Policy, ...], events: list[Exec], mask: int
) -> None:
    compiled = compile_policies(made, **NO_FILES)
    for event in events:
        wanted = [
            number
            for number, found in enumerate(compiled.rules)
            if mask >> found.policy_index & 1
            and found.policy.mode is Mode.ENFORCE
            and not found.rule.for_ns
            and {Response.KILL_PROCESS, Response.SEVER} & set(found.rule.response)
            and found.tier == 1
            and holds(found.rule.condition, event)
        ]
        clause = compiled.clause(compiled.predicates(event), mask)
        assert (compiled.tables.clauses[clause].rule if clause >= 0 else None) == (wanted[0] if wanted else None)


@SLOW
@given(policies())
def test_tables_keep_to_the_data_planes_terms(made: tuple[Policy, ...]) -> None:
    tables = compile_policies(made, **NO_FILES).tables
    rows = memoryview(tables.rows).cast("H")
    states = len(tables.rows) // 512
    assert len(tables.rows) % 512 == 0
    assert states <= MAX_STATES
    assert not any(rows[:256])  # state 0 is dead
    for entry in rows:
        assert entry & ~ACCEPTS < states
        assert bool(entry & ACCEPTS) == (entry & ~ACCEPTS in tables.accepts)
    assert all(tables.accepts.values())
    assert all(
        clause.rule >= 0 and clause.value & ~clause.mask == 0 and (clause.kill or clause.sever)
        for clause in tables.clauses
    )
