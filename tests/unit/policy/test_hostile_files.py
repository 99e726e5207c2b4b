"""Whatever a workload writes into its arguments and files: every parser comes to an end, raises nothing, keeps its bounds."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.policy import configfiles, elf, fileglob, runners, ssh
from killswitch.policy.programs import Program, Recogniser
from killswitch.policy.sshargv import readings
from killswitch.policy.sshconfig import MAX_BYTES, MAX_FILES, Judged, Person, Unreadable, judge
from killswitch.policy.sshline import fits, fits_list, keyword, next_word, words
from tests.unit.policy.sshfiles import MadeUp

ME = Person(b"me", b"/home/me", b"/home/me")
TOKEN = st.one_of(
    st.binary(max_size=12).filter(lambda t: b"\0" not in t),
    st.sampled_from(
        b"-R -R9:x:1 -NR -- - -4- h u@h -F -F/c -o -oTunnel=yes -Oforward -O cancel -w0:0 -W -l -P ssh://u@[::1]:2/ -V".split()
    ),
)
WORDS = st.sampled_from(
    b"Host Match Include RemoteForward Tunnel HostName User host user exec final all ! * ? # = , %h %% [ ] ~ / . x".split()
) | st.sampled_from([b'"', b"'", b"\\", b"\0", b"\t"])
LINE = st.lists(st.one_of(WORDS, st.binary(max_size=6)), max_size=8).map(b" ".join)
TEXT = st.lists(LINE, max_size=12).map(b"\n".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(TOKEN, max_size=8))
def test_a_command_line_means_no_more_than_the_automaton_says(args: list[bytes]) -> None:
    letters = {"R": "remote", "L": "local", "D": "dynamic", "w": "tun", "W": "stdio"}
    asked = ssh.asked_for([b"ssh", *args])
    for reading in readings([b"ssh", *args]):
        if reading.opens:
            assert {letters[letter] for letter, _ in reading.settings if letter in letters} <= asked


@settings(max_examples=200, deadline=None)
@given(main=TEXT, other=TEXT, args=st.lists(TOKEN, max_size=4))
def test_any_configuration_is_judged(main: bytes, other: bytes, args: list[bytes]) -> None:
    files = MadeUp(
        {b"/home/me/.ssh/config": main, b"/home/me/.ssh/x": other, b"/etc/ssh/ssh_config": other, b"/c": main}
    )
    for reading in readings([b"ssh", *args, b"h"]):
        found = judge(reading, ME, files)
        assert found.forwards <= set(ssh.KINDS)
        assert isinstance(found.hidden, str)


@settings(max_examples=200, deadline=None)
@given(line=LINE, text=st.binary(max_size=30))
def test_lines_words_and_patterns(line: bytes, text: bytes) -> None:
    parsed = keyword(line)
    assert parsed is None or (parsed[0] == parsed[0].lower() and parsed[1])
    rest: bytes | None = line
    for _ in range(len(line) + 2):
        word, rest = next_word(rest)
        if word is None or rest is None:
            break
    else:
        pytest.fail("no end")
    assert words(line) is None or sum(map(len, words(line) or ())) <= len(line)
    fits(text, line)
    fits_list(text, line, lower=True)


def test_patterns_made_to_take_long_do_not() -> None:
    (reading,) = readings([b"ssh", b"a" * 1000])
    hostile = b"Host " + b"*a" * 500 + b"*b\n"
    found = judge(reading, ME, MadeUp({b"/home/me/.ssh/config": hostile * 900 + b"RemoteForward 9 x:1\n"}))
    assert "too long" in found.hidden
    assert not fileglob.matching(b"/" + b"*a" * 120 + b"b", lambda _: [b"a" * 255], lambda _: True)


class Endless:
    """Every file includes others, and there is no end of them."""

    def __init__(self) -> None:
        self.read_bytes = self.opened = 0

    def read(self, path: bytes) -> bytes:
        self.opened += 1
        content = b"Include /a /b /c\n" + b"#" * 5000
        self.read_bytes += len(content)
        return content

    def matching(self, pattern: bytes) -> Sequence[bytes]:
        return [pattern + b"x", pattern + b"y"]


def test_configurations_without_end_are_given_up() -> None:
    (reading,) = readings([b"ssh", b"h"])
    files = Endless()
    found = judge(reading, ME, files)
    assert found.hidden.startswith(("more than", "configuration files of more"))
    assert files.opened <= MAX_FILES and files.read_bytes <= MAX_BYTES + 6000


def test_what_cannot_be_read_is_said_and_what_was_read_counts() -> None:
    (reading,) = readings([b"ssh", b"h"])
    files = MadeUp({b"/home/me/.ssh/config": b"RemoteForward 9 x:1\nInclude /p\n", b"/p": None})
    assert judge(reading, ME, files) == Judged(frozenset({"remote"}), "b'/p' is a pipe")
    with pytest.raises(Unreadable):
        files.read(b"/p")


@settings(max_examples=300, deadline=None)
@given(args=st.lists(st.binary(max_size=20), max_size=6), name=st.binary(max_size=20))
def test_arguments_are_looked_through(args: list[bytes], name: bytes) -> None:
    at = runners.inner([name, b"ld-linux-x86-64.so.2"], args)
    assert at is None or 0 < at < len(args)
    given_files, named = configfiles.named_in(args)
    assert len(given_files) <= configfiles.MAX_GIVEN and len(named) <= configfiles.MAX_NAMED
    configfiles.beside(name)


@settings(max_examples=300, deadline=None)
@given(pattern=st.lists(st.one_of(WORDS, st.binary(max_size=4)), max_size=6).map(b"".join))
def test_any_glob_is_expanded(pattern: bytes) -> None:
    found = fileglob.matching(b"/" + pattern, lambda _: [b"a", b".b", b"[x", b"c]"], lambda _: True)
    assert len(found) <= fileglob.MAX_PATHS


HEAD = Path("/bin/true").read_bytes()[:4096]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real executable's beginning with some bytes changed, cut anywhere."""
    data = bytearray(HEAD)
    for _ in range(draw(st.integers(0, 12))):
        at = draw(st.integers(0, 1200))
        data[at : at + 4] = draw(st.binary(min_size=4, max_size=4))
    return bytes(data[: draw(st.integers(0, len(data)))])


@settings(max_examples=300, deadline=None)
@given(data=st.one_of(damaged(), st.binary(max_size=200).map(lambda b: b"\x7fELF" + b)))
def test_any_executable_has_parts_within_bounds(data: bytes) -> None:
    asked: list[int] = []

    def read(offset: int, size: int) -> bytes:
        asked.append(size)
        return data[offset : offset + size]

    parts = elf.spans(read, 1 << 20)
    assert sum(size for _, size in parts or ()) <= 1 << 20
    assert len(parts or ()) <= elf.MAX_HEADERS and max(asked) <= elf.MAX_HEADERS * 65535


def test_parts_of_a_real_executable_hold_its_words_and_data_comes_first() -> None:
    whole = Path("/bin/ls").read_bytes()
    parts = elf.spans(lambda offset, size: whole[offset : offset + size], 1 << 30)
    assert parts
    assert b"Usage: %s" in whole[parts[0][0] : sum(parts[0])] or any(b"Usage: %s" in whole[o : o + s] for o, s in parts)
    flags = {
        struct.unpack_from("<IIQ", whole, at)[2]: struct.unpack_from("<II", whole, at)[1]
        for at in range(64, 64 + 56 * 13, 56)
    }
    executable = [bool(flags.get(offset, 0) & 1) for offset, _ in parts]
    assert executable == sorted(executable)
    assert elf.spans(lambda *_: b"#!/bin/sh\n" + b" " * 60, 1 << 20) is None


def test_a_program_is_a_combination() -> None:
    look = Recogniser(
        [
            Program("a", all=("alpha", "beta")),
            Program("b", any=("one ", "two ", "three"), least=2, none=("never",)),
            Program("a", all=("other way", "to say a")),
        ]
    )
    said = {
        b"alpha beta": ("a",), b"alpha": (), b"other way, to say a": ("a",), b"one two three": ("b",), b"one two never": (),
        b"ALPHA BETA": (), b"alpha beta one two ": ("a", "b"),
    }  # fmt: skip
    assert {text: look.names(look.seen(text)) for text in said} == said
    assert look.names(look.seen(b"alpha") | look.seen(b"beta")) == ("a",)
    assert not Recogniser(()) and Recogniser(()).names(Recogniser(()).seen(b"alpha")) == ()
    with pytest.raises(ValueError, match="at most"):
        Recogniser(Program(f"p{i}", all=tuple(f"marker {i} {j}" for j in range(100))) for i in range(11))
