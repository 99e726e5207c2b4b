"""Whatever a workload calls itself, a terminal is never told anything by it."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from killswitch.cli.escape import command_line, printable, wellformed, word
from killswitch.cli.output import _json, _yaml
from killswitch.cli.plain import plain
from killswitch.events import text

anything = st.binary(max_size=64)


@given(anything)
def test_nothing_that_a_terminal_obeys_comes_through(raw: bytes) -> None:
    shown = printable(raw)
    assert shown.isprintable()
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in shown)
    shown.encode()  # no lone surrogate is left


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"/usr/bin/python3", "/usr/bin/python3"),
        ("größe 木".encode(), "größe 木"),
        (b"\x1b[31mred", "\\e[31mred"),
        (b"\x1b]0;title\x07", "\\e]0;title\\x07"),
        (b"a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b31m".encode(), "\\x9b31m"),  # C1: CSI in one character
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u202egpj.exe".encode(), "\\u202egpj.exe"),  # writes right to left
        ("a\u2028b".encode(), "a\\u2028b"),
        (b"back\\slash", "back\\slash"),
    ],
)
def test_escapes_can_be_read(raw: bytes, shown: str) -> None:
    assert printable(raw) == shown


@given(st.lists(anything.filter(lambda b: b"\0" not in b), min_size=1, max_size=4))
def test_a_command_line_of_bytes_is_one_line(args: list[bytes]) -> None:
    assert command_line(args).isprintable()


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12), min_size=1, max_size=5))
def test_a_printable_command_line_reads_back_as_it_was(args: list[str]) -> None:
    assert shlex.split(command_line(args)) == args


def test_bash_reads_an_escaped_word_back() -> None:
    raw = b"it's \x1b[1m\\n\n\xff"
    got = subprocess.run(["bash", "-c", f"printf %s {word(raw)}"], capture_output=True, check=True).stdout
    assert got == raw


@given(st.binary(max_size=64))
def test_json_and_yaml_take_any_bytes(raw: bytes) -> None:
    value = plain({"name": text(raw), "raw": raw})
    as_json = _json(value)
    assert as_json.isascii()
    assert "\x1b" not in as_json
    assert "\x7f" not in as_json
    assert json.loads(as_json)["name"] == wellformed(text(raw))
    out = _yaml(value)
    assert yaml.safe_load(out) == value
    assert not any(ord(c) < 0x20 and c != "\n" for c in out)
    assert "\x7f" not in out
