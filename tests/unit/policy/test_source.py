"""The reader: every complaint has its exact place, and nothing but a policy's text gets through."""

# ruff: noqa: E501 - messages are compared whole

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.policy import source
from killswitch.policy.source import Map, Scalar, Seq


def problems(text: str) -> list[str]:
    return [str(p) for p in source.parse(text, "p.yaml")[1]]


def tree(text: str) -> Map:
    node, found = source.parse(text, "p.yaml")
    assert not found
    assert isinstance(node, Map)
    return node


def scalar(text: str, key: str) -> Scalar:
    node = tree(text).get(key)
    assert isinstance(node, Scalar)
    return node


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 'x\nb: 3\n", "p.yaml:1:4: this quote is never closed (add the closing quote)"),
        ("a: [1, 2\n", "p.yaml:1:4: this '[' is never closed (add ']')"),
        ("a: {b: 1\n", "p.yaml:1:4: this '{' is never closed (add '}')"),
        (
            "a: [1, 2\nb: 3\n",
            "p.yaml:2:2: expected ',' or ']' in the list opened at 1:4 (close it with ']', or quote a value that holds ',' or ': ')",
        ),
        ("a:\n\tb: 1\n", "p.yaml:2:1: a tab cannot indent (indent with blanks)"),
        (
            "a: b: c\n",
            "p.yaml:1:5: ':' cannot stand here: this is inside a value (quote a value that holds ': ', or mend the indentation)",
        ),
        (
            "a:\n  b: 1\n c: 2\n",
            "p.yaml:3:2: expected a key of the mapping that starts at 1:1 "
            "(indent it like the keys before it, and end the key with ':')",
        ),
        ("a: @x\n", "p.yaml:1:4: a value cannot start with '@' (put the value in quotes)"),
        (
            "- a\nb: 1\n",
            "p.yaml:2:1: expected '- ' as in the list that starts at 1:1 (indent it like the items before it)",
        ),
        (
            'a: "\\d+"\n',
            "p.yaml:1:5: unknown escape (in double quotes a backslash starts an escape: use single quotes, or write \\\\)",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "p.yaml:2:1: a second document starts here (one policy a file: move it to its own)",
        ),
        ("a: &x 1\n", "p.yaml:1:4: anchors are refused: &x (name the values once under 'lists:' instead)"),
        (
            "a: *x\n",
            "p.yaml:1:4: aliases are refused: *x "
            "(write it out, or name the values once under 'lists:' and refer to them as $name)",
        ),
        (
            "a: !!python/object/apply:os.system [id]\n",
            "p.yaml:1:4: tags are refused: !!python/object/apply:os.system "
            "(the field tells a value's type: leave the tag out)",
        ),
        ("a: ! x\n", "p.yaml:1:4: tags are refused: ! (the field tells a value's type: leave the tag out)"),
        ("a:\n  <<: {b: 1}\n", "p.yaml:2:3: merge keys are refused: << (write the keys out)"),
        ("id: 1\nx: 2\nid: 3\n", "p.yaml:3:1: key 'id' is given twice (first at line 1; one of them would be lost)"),
        ("[a]: b\n", "p.yaml:1:1: a key must be a word, not a list or mapping"),
        ("", "p.yaml:1:1: the file is empty (a policy starts with 'apiVersion: killswitch/v1')"),
        ("# only this\n", "p.yaml:1:1: the file is empty (a policy starts with 'apiVersion: killswitch/v1')"),
        (
            "a: \u202ex\n",
            "p.yaml:1:4: character U+202E is not allowed in a policy (remove it, or write it as an escape in double quotes)",
        ),
        (
            "é: 1\nb: \x00\n",
            "p.yaml:2:4: character U+0000 is not allowed in a policy (remove it, or write it as an escape in double quotes)",
        ),
    ],
)
def test_each_way_of_being_broken_has_its_place_and_mend(text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_all_that_is_refused_is_told_at_once() -> None:
    found = problems("a: &x 1\nb: *x\nc: !t 1\na: 2\n")
    assert [p.split(": ")[0] for p in found] == ["p.yaml:1:4", "p.yaml:2:4", "p.yaml:3:4", "p.yaml:4:1"]


@pytest.mark.parametrize(
    "written", ["no", "on", "yes", "off", "true", "010", "0x1f", "22:22", "1_000", "1e3", "2026-01-01", "."]
)
def test_a_scalar_is_what_was_written(written: str) -> None:
    assert scalar(f"on: {written}\n", "on").text == written


def test_nothing_is_told_from_the_word_for_nothing() -> None:
    assert scalar("a:\nb: 1\n", "a").is_null
    assert scalar("a: null\n", "a").is_null
    assert not scalar("a: 'null'\n", "a").is_null


@pytest.mark.parametrize("opener", ["[", "{a: ", "- "])
def test_depth_is_bounded(opener: str) -> None:
    assert any("nested more than 16 deep" in p for p in problems(opener * 400))


def test_size_is_bounded() -> None:
    assert source.decode(b"#" * (source.MAX_BYTES + 1), "p.yaml")[1][0].message.startswith("the file has 1048577 bytes")
    assert "more than 100000 values" in problems("[" + "a," * source.MAX_NODES + "a]")[0]


def test_not_utf8_names_the_byte_and_its_place() -> None:
    _, found = source.decode("a: é\nb: ö".encode() + b"\xff", "p.yaml")
    assert str(found[0]) == "p.yaml:2:5: not UTF-8: byte 0xff (save the file as UTF-8)"


def test_a_byte_order_mark_and_dos_line_ends_are_read() -> None:
    text, found = source.decode(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "p.yaml")
    assert not found
    second = scalar(text, "b")
    assert (second.text, second.line, second.column) == ("2", 2, 4)


@pytest.mark.parametrize(
    ("text", "offset", "place"),
    [
        ("a: one and two\n", 8, (1, 12)),
        ("é: 'one and two'\n", 8, (1, 13)),
        ("a: 'it''s two'\n", 5, (1, 11)),
        ("a: >-\n  one\n  and two\n", 4, (3, 3)),
        ("a: |\n  one\n\n  and two\n", 9, (4, 7)),
        ("a: one\n   and two\n", 8, (2, 8)),
        ("a: one\n", 3, (1, 7)),
        ('a: "one\\tx two"\n', 6, (1, 4)),
    ],
)
def test_a_place_inside_a_text_is_found_through_its_notation(text: str, offset: int, place: tuple[int, int]) -> None:
    assert scalar(text, next(k.text for k, _ in tree(text).entries)).at(offset) == place


@given(st.text(max_size=200) | st.text("ab:-[]{}&*!|>'\"%@,#?\n\t ", max_size=60))
def test_any_text_gives_a_tree_or_problems_and_never_raises(text: str) -> None:
    node, found = source.parse(text, "p.yaml")
    assert isinstance(node, (Map, Seq, Scalar)) or found
    lines = text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 2
    assert all(1 <= p.line <= lines and p.column >= 1 for p in found)
