from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.commands import ACCEPTS, MAX_STATES
from killswitch.policy.automaton import Dfa, TableBuilder, TooBig, end_at_nul, minimise, prune, union
from killswitch.policy.literals import Literal, build
from killswitch.policy.nfa import ANY, At, Nfa, determinise, fold, mask_of


@st.composite
def automata(draw: st.DrawFn) -> Dfa:
    count, width = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    state = st.integers(0, count - 1)
    rows = draw(st.lists(st.lists(state, min_size=width, max_size=width), min_size=count, max_size=count))
    bits = draw(st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=count, max_size=count))
    classes = bytes(byte % width for byte in range(256))
    return Dfa(classes, rows, bits, draw(state))


TEXTS = st.binary(max_size=12)
QUICK = settings(max_examples=200, deadline=None)


@QUICK
@given(automata(), automata(), TEXTS)
def test_a_union_reports_what_either_reports(one: Dfa, other: Dfa, text: bytes) -> None:
    assert union(one, other, 100).walk(text) == one.walk(text) | other.walk(text)


@QUICK
@given(automata(), TEXTS)
def test_smaller_forms_report_the_same(dfa: Dfa, text: bytes) -> None:
    assert minimise(dfa).walk(text) == dfa.walk(text)
    assert prune(dfa).walk(text) == dfa.walk(text)
    assert len(minimise(dfa).rows) <= len(dfa.rows)


@QUICK
@given(automata(), TEXTS.filter(lambda t: b"\0" not in t), TEXTS)
def test_a_token_is_over_at_its_nul(dfa: Dfa, token: bytes, rest: bytes) -> None:
    assert end_at_nul(dfa).walk(token + b"\0" + rest) == dfa.walk(token + b"\0")


@QUICK
@given(st.lists(automata(), min_size=1, max_size=4), TEXTS)
def test_the_table_walks_as_its_automata_do(found: list[Dfa], text: bytes) -> None:
    table = TableBuilder()
    starts = [table.add(prune(dfa)) for dfa in found]
    rows = memoryview(table.rows).cast("H")
    for dfa, state in zip(found, starts, strict=True):
        seen = 0
        for byte in text:
            entry = rows[state << 8 | byte]
            state = entry & ~ACCEPTS
            seen |= table.accepts[state] if entry & ACCEPTS else 0
        assert seen == dfa.walk(text)


def test_what_can_report_nothing_is_dead_and_takes_no_row() -> None:
    never = Dfa(bytes(256), [[1], [0]], [0, 0], 0)
    table = TableBuilder()
    assert table.add(prune(never)) == 0
    assert table.states == 1


def test_a_name_that_no_rule_can_match_any_more_is_left_at_once() -> None:
    dfa = end_at_nul(build([Literal(b"xmrig", True, True, 1)], fold=True, line=False, limit=100))
    state = dfa.rows[dfa.start][dfa.classes[ord("b")]]
    assert state == 0
    assert not any(dfa.rows[0])


def test_a_hundred_substrings_stay_linear() -> None:
    words = [f"--option-{i}-of-a-miner".encode() for i in range(100)]
    dfa = build([Literal(w, False, False, 1 << i) for i, w in enumerate(words)], fold=True, line=False, limit=4000)
    assert len(dfa.rows) <= sum(map(len, words)) + 2
    both = words[3] + words[77].upper()
    assert dfa.walk(b"x" + both + b"\0") == 1 << 3 | 1 << 77


def test_the_bound_on_states_holds_everywhere() -> None:
    words = [f"{i:04}".encode() * 5 for i in range(500)]
    with pytest.raises(TooBig, match="more than 100 states"):
        build([Literal(w, True, True, 1) for w in words], fold=False, line=False, limit=100)
    nfa = Nfa(searching=True)
    node = nfa.read(0, mask_of(b"a"))
    for _ in range(14):  # "a, and 14 bytes later the end": 2^14 states
        node = nfa.read(node, ANY)
    nfa.accept(nfa.at(node, At.END))
    with pytest.raises(TooBig):
        determinise(nfa, 1, line=False, limit=512)
    big = Dfa(bytes(256), [[(i + 1) % 97] for i in range(97)], [1, *[0] * 96], 0)
    other = Dfa(bytes(256), [[(i + 1) % 89] for i in range(89)], [1, *[0] * 88], 0)
    with pytest.raises(TooBig):
        union(big, other, 1000)
    table = TableBuilder()
    with pytest.raises(TooBig):
        for _ in range(MAX_STATES):
            table.add(prune(big))


def test_every_byte_may_be_in_a_literal() -> None:
    every = bytes(range(1, 256))
    dfa = build([Literal(every, False, False, 1)], fold=False, line=False, limit=1000)
    assert dfa.walk(b"\xff" + every + b"\0") == 1
    assert dfa.walk(every[:-1] + b"\0") == 0


def test_case_folds_in_ascii_only() -> None:
    assert fold(mask_of(b"aZ[@\xe9")) == mask_of(b"aAzZ[@\xe9")
