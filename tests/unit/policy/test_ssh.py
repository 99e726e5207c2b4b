from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.policy import ssh
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from tests.unit.policy.compiling import policy_of, rule_of, where
from tests.unit.policy.matcher_strategies import make_exec


def walk(*tokens: str) -> set[str]:
    dfa, bits = ssh.grammar()
    seen = dfa.walk(b"".join(t.encode() + b"\0" for t in tokens))
    return {kind for kind, bit in zip(ssh.KINDS, bits, strict=True) if seen & bit}


@pytest.mark.parametrize(
    ("tokens", "kinds"),
    [
        (["-W", "target:22", "h"], {"stdio"}),
        (["-Wtarget:22", "h"], {"stdio"}),
        (["-O", "forward", "-R", "9000:localhost:22", "h"], {"remote"}),  # the control master will open it
        (["-Oproxy", "-R", "9000:localhost:22", "h"], {"remote"}),
        (["-O", "cancel", "-R", "9000:localhost:22", "h"], set()),
        (["-NOstop", "-R", "9000:localhost:22", "h"], set()),
        (["-O", "forwards", "-R", "9000", "h"], set()),  # refused
        (["-P", "tag", "-R", "9000", "h"], {"remote"}),  # -P takes a value since OpenSSH 9.6...
        (["-PR9000", "h"], {"remote"}),  # ...and was a flag before
        (["-V", "-R", "9000", "h"], set()),  # prints its version and exits
        (["-G", "-R", "9000", "h"], set()),  # prints its configuration and exits
        (["-Q", "cipher", "-R", "9000"], set()),
        (["-%", "-R", "9000", "h"], set()),  # a usage error
        (["--", "h", "-R", "9000"], set()),
        (["-i", "--", "h", "-R", "9000"], set()),  # ssh.c takes the value for the end of the options
        (["h", "-N", "ls", "-R", "9000"], set()),
        (["-o", "RemoteForward", "h"], set()),  # no argument: ssh refuses
        (["-o", "RemoteForward=#x", "h"], set()),
        (["-oRemoteForwarding=9000 x:1", "h"], set()),
        (["-o", "", "-R", "9000", "h"], {"remote"}),
        ([], set()),
        ([""], set()),
    ],
)
def test_what_the_client_cannot_be_asked_about(tokens: list[str], kinds: set[str]) -> None:
    assert walk("ssh", *tokens) == kinds


def test_the_programs_own_name_is_no_option() -> None:
    assert walk("-R9000:localhost:22", "h") == set()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_walked_to_their_end(argv: bytes) -> None:
    dfa, bits = ssh.grammar()
    assert dfa.walk(argv) & ~sum(bits) == 0
    state = dfa.start
    for byte in argv:
        state = dfa.rows[state][dfa.classes[byte]]
        assert 0 <= state < len(dfa.rows)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=12).filter(lambda t: b"\0" not in t), max_size=6))
def test_the_automaton_is_the_step_function(tokens: list[bytes]) -> None:
    argv = b"".join(t + b"\0" for t in tokens)
    states: set[tuple[str | bytes | bool, ...]] = {("argv0", False)}
    asked: set[str] = set()
    for byte in argv:
        made = [ssh.step(state, byte) for state in states]
        asked |= {kind for _, kind in made if kind}
        states = {state for after, _ in made for state in after}
    dfa, bits = ssh.grammar()
    seen = dfa.walk(argv)
    assert {kind for kind, bit in zip(ssh.KINDS, bits, strict=True) if seen & bit} == asked


def forwarding(*kinds: str, all: bool = False) -> Compiled:
    return compile_policies([policy_of(rule_of(where("ssh.forward", *kinds, all=all)))], inode_of=FILES.get)


FILES = {"/usr/bin/ssh": (3, 77)}


def test_only_the_openssh_client_is_judged_by_its_grammar() -> None:
    compiled = forwarding("remote")
    args = ("anything", "-R", "9000:localhost:22", "h")
    assert compiled.matches(make_exec("/usr/bin/ssh", args), 1)
    assert compiled.matches(make_exec("/opt/slogin", args), 1)
    assert compiled.matches(make_exec("/tmp/hidden", args, inode=77, device=3), 1)  # a hard link to the client
    assert not compiled.matches(make_exec("/usr/bin/grep", args), 1)
    assert not compiled.matches(make_exec("/usr/bin/ssh", ("ssh", "h", "ls", "-R")), 1)


def test_values_of_forward_are_alternatives_unless_all_are_asked_for() -> None:
    both = ("ssh", "-R", "9000", "-D", "1080", "h")
    one = ("ssh", "-D", "1080", "h")
    assert [bool(forwarding("remote", "dynamic").matches(make_exec("/usr/bin/ssh", a), 1)) for a in (both, one)] == [
        True,
        True,
    ]
    found = [
        bool(forwarding("remote", "dynamic", all=True).matches(make_exec("/usr/bin/ssh", a), 1)) for a in (both, one)
    ]
    assert found == [True, False]


def test_the_client_is_looked_for_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/srv/tools:relative")
    assert "/srv/tools/ssh" in ssh.paths()
    assert "/usr/bin/ssh" in ssh.paths()
    assert not any(path.startswith("relative") for path in ssh.paths())


def test_a_program_that_is_many_in_one_is_not_the_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its inode would be that of its ``ls`` and ``tar`` as well."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("busybox", "ssh-9.9"):
        (tmp_path / name).touch()
    (tmp_path / "ssh").symlink_to("busybox")
    (tmp_path / "slogin").symlink_to("ssh-9.9")
    assert str(tmp_path / "ssh") not in ssh.paths()
    assert str(tmp_path / "slogin") in ssh.paths()
