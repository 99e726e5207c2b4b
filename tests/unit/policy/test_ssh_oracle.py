"""The grammar against the OpenSSH client itself: ``ssh -G`` parses its arguments, says what it understood, and exits.

It connects to nothing, has no home and no configuration (``-F none`` comes first), and so runs nothing either.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from killswitch.policy import ssh

CLIENT = shutil.which("ssh")
pytestmark = pytest.mark.skipif(CLIENT is None, reason="needs the OpenSSH client: apt install openssh-client")

FORWARD = st.sampled_from(["9000:localhost:22", "127.0.0.1:9001:[::1]:22", "9002", "/tmp/s:localhost:22"])
VALUES = {
    "R": FORWARD,
    "L": st.sampled_from(["8000:localhost:80", "/tmp/l:localhost:80"]),
    "D": st.sampled_from(["1080", "127.0.0.1:1081"]),
    "w": st.sampled_from(["0:0", "any"]),
    "l": st.sampled_from(["R", "user"]),
    "p": st.just("22"),
    "i": st.sampled_from(["MyRSAKey", "--", "-R", "R9000:localhost:22", "key"]),
    "e": st.sampled_from(["none", "R", "^R"]),
    "b": st.sampled_from(["127.0.0.1", "R"]),
    "E": st.just("/dev/null"),
    "m": st.just("hmac-sha2-256"),
}
ASSIGN = st.sampled_from(["=", " ", " = ", "  ", "\t", "= ", "\t=\t"])


def spell(word: str) -> st.SearchStrategy[str]:
    return st.sampled_from(
        [word, word.upper(), word.lower(), f'"{word}"', f'{word[:3]}"{word[3:]}"', f" {word}", f"={word}", f" = {word}"]
    )


LINES = st.one_of(
    st.tuples(spell("RemoteForward"), ASSIGN, st.sampled_from(["9000 localhost:22", "9000", '"9000" "localhost:22"'])),
    st.tuples(spell("LocalForward"), ASSIGN, st.just("8000 localhost:80")),
    st.tuples(spell("DynamicForward"), ASSIGN, st.just("1080")),
    st.tuples(
        spell("Tunnel"), ASSIGN, st.sampled_from(["yes", "no", "ethernet", "point-to-point", '"yes"', '"no"', "False"])
    ),
    st.tuples(spell("User"), ASSIGN, st.sampled_from(["RemoteForward", "root"])),
    st.tuples(spell("TunnelDevice"), ASSIGN, st.just("0:0")),
    st.tuples(spell("GatewayPorts"), ASSIGN, st.just("yes")),
).map("".join)
FLAGS = st.sampled_from(list("46ACNTXfgnqstvxyaKk"))


@st.composite
def options(draw: st.DrawFn) -> list[str]:
    """One token, and the next if it is its value."""
    cluster = "".join(draw(st.lists(FLAGS, max_size=3)))
    if cluster and draw(st.booleans()):
        return [f"-{cluster}" + ("-" if draw(st.integers(0, 15)) == 0 else "")]
    letter = draw(st.sampled_from([*VALUES, "o", "o", "R"]))
    value = draw(LINES if letter == "o" else VALUES[letter])
    return [f"-{cluster}{letter}{value}"] if draw(st.booleans()) else [f"-{cluster}{letter}", value]


WORDS = st.sampled_from(["ls", "-R", "-R9000:localhost:22", "tar", "--", "-", "-oTunnel=yes", "-N", "x"])


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    before = [token for option in draw(st.lists(options(), max_size=4)) for token in option]
    ended = draw(st.sampled_from([[], [], [], ["--"], ["--x"]]))
    host = draw(st.sampled_from(["host", "user@host", "ssh://host:22", "-"]))
    after = [token for option in draw(st.lists(options(), max_size=2)) for token in option]
    return [*before, *ended, host, *after, *draw(st.lists(WORDS, max_size=4))]


def asked_for(arguments: list[str]) -> set[str]:
    dfa, bits = ssh.grammar()
    seen = dfa.walk(b"".join(a.encode("utf-8", "surrogateescape") + b"\0" for a in ["ssh", *arguments]))
    return {kind for kind, bit in zip(ssh.KINDS, bits, strict=True) if seen & bit}


def understood(arguments: list[str], home: Path) -> set[str] | None:
    """What the client makes of it; None when it refuses the command line."""
    assert CLIENT is not None
    done = subprocess.run(
        [CLIENT, "-G", "-F", "none", *arguments], env={"HOME": str(home), "PATH": os.defpath}, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    if done.returncode:
        return None
    found = set()
    for line in done.stdout.decode(errors="replace").splitlines():
        keyword, _, value = line.partition(" ")
        kind = {"remoteforward": "remote", "localforward": "local", "dynamicforward": "dynamic"}.get(keyword)
        if kind:
            found.add(kind)
        if keyword == "tunnel" and value not in ("false", "no"):
            found.add("tun")
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(arguments=command_lines())
@example(arguments=["-fNR9000:localhost:22", "host"])
@example(arguments=["-i", "--", "host", "-R", "9000:localhost:22"])
@example(arguments=["host", "-4NR9000:localhost:22", "ls"])
def test_the_grammar_understands_what_the_client_does(arguments: list[str], tmp_path: Path) -> None:
    real = understood(arguments, tmp_path)
    assume(real is not None)
    assert real is not None  # for the type checker
    judged = asked_for(arguments)
    # The first value of an option wins in the client: "no" before -w unsays it, and stays asked for here.
    if not any("no" in a.lower() or "false" in a.lower() for a in arguments):
        assert judged == real
    assert (judged ^ real) <= {"tun"}


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        (["-R", "9000:localhost:22", "h"], {"remote"}),
        (["-R9000:localhost:22", "h"], {"remote"}),
        (["-fNR9000:localhost:22", "h"], {"remote"}),
        (["-4NR", "9000:localhost:22", "h"], {"remote"}),
        (["h", "-R", "9000"], {"remote"}),
        (["-oRemoteForward=9000 localhost:22", "h"], {"remote"}),
        (["-o", "remoteforward 9000 localhost:22", "h"], {"remote"}),
        (["-iMyRSAKey", "h"], set()),
        (["h", "ls", "-R"], set()),
        (["-l", "R", "h"], set()),
        (["-p", "22", "h", "--", "tar", "-R"], set()),
        (["-o", "Tunnel=no", "h"], set()),
        (["-L", "8000:localhost:80", "-D", "1080", "h"], {"local", "dynamic"}),
        (["-w", "0:0", "h"], {"tun"}),
        (["-R", ":9000:localhost:22", "h"], {"remote"}),
        (["-R", "/tmp/s:localhost:22", "h"], {"remote"}),
        (["-46CqgR9000:localhost:22", "h"], {"remote"}),
        (["-oremoteforward\t9000 localhost:22", "h"], {"remote"}),
        (["-o", "RemoteForward= 9000 localhost:22", "h"], {"remote"}),
        (["-o", '"RemoteForward" 9000 localhost:22', "h"], {"remote"}),
        (["-o", '""RemoteForward 9000 localhost:22', "h"], {"remote"}),
        (["-o", "\n=\rRemoteForward\n=\n9000 localhost:22", "h"], {"remote"}),
        (["-o", '"RemoteForward 9000', "h"], set()),  # a quote that is not closed: the line is ignored
        (["-o", "RemoteCommand=x\nRemoteForward=9000", "h"], set()),  # one line, whatever it holds
        (["-o", "#RemoteForward=9000", "h"], set()),
        (["-o", "", "-R", "9000", "h"], {"remote"}),
        (["", "-R", "9000:localhost:22"], {"remote"}),
        (["ssh://user@h:22/", "-NR", "9000:localhost:22"], {"remote"}),
        (["h", "-4-", "-R", "9000"], set()),  # "-4-" is no option, so the remote command begins
        (["h", "-", "-R", "9000"], set()),
        (["h", "", "-R", "9000"], set()),
        (["--", "h", "-R", "9000"], set()),
        (["-E", "/dev/null", "-F", "none", "-J", "j", "-R", "9000", "h"], {"remote"}),
        (["-S", "none", "-O", "forward", "-R", "9000", "h"], {"remote"}),
        (["-o", "SendEnv=" + "x" * 5000, "-R", "9000", "h"], {"remote"}),
        (["-v"] * 3000 + ["-R", "9000", "h"], {"remote"}),
        (["-v"] * 3000 + ["h", "ls", "-R", "9000"], set()),
    ],
)
def test_the_client_itself_says_so(arguments: list[str], kinds: set[str], tmp_path: Path) -> None:
    assert asked_for(arguments) == kinds
    assert understood(arguments, tmp_path) == kinds
