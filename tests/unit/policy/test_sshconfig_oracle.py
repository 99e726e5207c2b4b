"""The configuration against the OpenSSH client itself: ``ssh -G`` reads our own files, says what it understood, and exits.

Nothing is connected to; no file holds ``Match exec`` but where its command is ``true`` or ``false``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from killswitch.policy.sshargv import readings
from killswitch.policy.sshconfig import Judged, Person, judge
from tests.unit.policy.sshfiles import OnDisk

CLIENT = shutil.which("ssh")
pytestmark = pytest.mark.skipif(CLIENT is None, reason="needs the OpenSSH client: apt install openssh-client")
ME = pwd.getpwuid(os.getuid())

PATTERN = st.sampled_from(["*", "web", "web*", "we?", "!web", "db", "*.example", "WEB", "a", "!*", '"web"', "!d?"])
LISTED = st.sampled_from(
    ["web", "*", "db,web", "!web,*", "WEB", "*.example", "we?,!db", ME.pw_name, "alice", "!alice,*"]
)
FORWARDS = [
    "RemoteForward 9000 localhost:22", "remoteforward=9001 localhost:22", "RemoteForward 9002", 'RemoteForward "9003" "x:22"',
    "LocalForward 8000 localhost:80", "DynamicForward 1080", "Tunnel yes", "Tunnel no", "tunnel=ethernet",
    "ClearAllForwardings yes", "ClearAllForwardings no",
]  # fmt: skip
OTHERS = [
    "HostName db", "HostName %h.example", "HostName web", "User alice", "User bob", "# RemoteForward 9 x:1", "", "   ",
    "SendEnv RemoteForward", "Port 2222", "  \tUser = carol", "GatewayPorts yes", "LocalCommand RemoteForward 9 x:1",
]  # fmt: skip


@st.composite
def criteria(draw: st.DrawFn) -> str:
    if draw(st.integers(0, 7)) == 0:
        return draw(st.sampled_from(["all", "!all", "ALL # why"]))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(["host", "Host", "originalhost", "user", "localuser", "final", "canonical"]))
        negated = draw(st.sampled_from(["", "", "!"]))
        flat = name in ("final", "canonical")
        parts.append(negated + name + ("" if flat else draw(st.sampled_from([" ", "=", " = "])) + draw(LISTED)))
    return " ".join(parts)


LINE = st.one_of(
    st.sampled_from(FORWARDS),
    st.sampled_from(OTHERS),
    st.lists(PATTERN, min_size=1, max_size=3).map(lambda p: "Host " + " ".join(p)),
    criteria().map(lambda c: "Match " + c),
    st.sampled_from(
        ["Include one", "Include ~/.ssh/two", "Include t*", 'Include "one" two', "Include none-there", "Include [ot]*"]
    ),
)
FILE = st.lists(LINE, max_size=8).map("\n".join)
INNER = st.lists(LINE.filter(lambda line: not line.startswith("Include")), max_size=5).map("\n".join)
ARGUMENTS = st.lists(
    st.sampled_from(
        ["-R9:x:1", "-oTunnel=no", "-w0:0", "-lalice", "-oUser=bob", "-oHostName=db", "-oClearAllForwardings=yes", "-D1"]
    ),
    max_size=2,
)  # fmt: skip


def understood(arguments: Sequence[str], home: Path) -> set[str] | None:
    """What the client makes of it; None when it refuses."""
    assert CLIENT is not None
    done = subprocess.run(
        [CLIENT, "-G", *arguments], env={"HOME": str(home), "PATH": os.defpath}, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    if done.returncode:
        return None
    found = set()
    kinds = {"remoteforward": "remote", "localforward": "local", "dynamicforward": "dynamic"}
    for line in done.stdout.decode(errors="replace").splitlines():
        word, _, value = line.partition(" ")
        if word in kinds:
            found.add(kinds[word])
        if word == "tunnel" and value not in ("false", "no"):
            found.add("tun")
    return found


def judged(arguments: Sequence[str], home: Path) -> Judged:
    (reading, *_) = readings([b"ssh", *(a.encode() for a in arguments)])
    person = Person(ME.pw_name.encode(), bytes(home), bytes(home))
    return judge(reading, person, OnDisk())


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    main=FILE,
    one=INNER,
    two=INNER,
    arguments=ARGUMENTS,
    host=st.sampled_from(["web", "WEB", "db", "bob@web", "x.example"]),
)
def test_files_are_understood_as_the_client_does(
    main: str, one: str, two: str, arguments: list[str], host: str, tmp_path: Path
) -> None:
    folder = tmp_path / ".ssh"
    folder.mkdir(exist_ok=True)
    for name, text in (("main", main), ("one", one), ("two", two)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    line = ["-F", str(folder / "main"), *arguments, host]
    real = understood(line, tmp_path)
    assume(real is not None)
    found = judged(line, tmp_path)
    assert (found.forwards, found.hidden) == (real, "")


CASES = [
    ("Host web\n RemoteForward 9 x:1", {"remote"}),
    ("Host !web *\n RemoteForward 9 x:1", set()),
    ("Host db\n RemoteForward 9 x:1\nHost *\n LocalForward 8 x:1", {"local"}),
    ("Match host web\n RemoteForward 9 x:1", {"remote"}),
    ("HostName db\nMatch host web\n RemoteForward 9 x:1", set()),
    ("HostName db\nMatch originalhost web\n RemoteForward 9 x:1", {"remote"}),
    ("Match final host db\n RemoteForward 9 x:1\nHost *\n HostName db", {"remote"}),
    ("Match final\nHost db\n RemoteForward 9 x:1\nHost *\n HostName DB", {"remote"}),
    ("Match all\n RemoteForward 9 x:1", {"remote"}),
    ("Match user nobody\n RemoteForward 9 x:1", set()),
    ("Match !user nobody\n RemoteForward 9 x:1", {"remote"}),
    ("ClearAllForwardings yes\nRemoteForward 9 x:1", set()),
    ("RemoteForward 9 x:1\nClearAllForwardings no\nClearAllForwardings yes", {"remote"}),
    ("Tunnel no\nTunnel yes", set()),
    ("Tunnel yes", {"tun"}),
    ("\tremoteForward\t=\t9 \"x:1\"  \f", {"remote"}),
    ('"RemoteForward" 9 x:1', {"remote"}),
    ("Match exec true\n RemoteForward 9 x:1", {"remote"}),
    ("RemoteForward 9 x:1 # a comment", {"remote"}),
    ("Host web\n Include *-not-there\n RemoteForward 9 x:1", {"remote"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kinds"), CASES)
def test_the_client_itself_says_so(text: str, kinds: set[str], tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)
    line = ["-F", str(tmp_path / "config"), "web"]
    assert judged(line, tmp_path).forwards == kinds
    assert understood(line, tmp_path) == kinds


def test_what_would_have_to_be_run_may_be_true(tmp_path: Path) -> None:
    """And what stands in such a block is not certain either: it takes nothing back."""
    ran = tmp_path / "ran"
    block = f'Match exec "touch {ran}; false"\n RemoteForward 9 x:1\n ClearAllForwardings yes\n HostName db\n'
    (tmp_path / "config").write_text(block + "Match host db\n Tunnel yes\n")
    assert judged(["-F", str(tmp_path / "config"), "web"], tmp_path).forwards == {"remote", "tun"}
    assert not ran.exists()


def test_jump_host_and_copy_clients_take_the_forwards_back(tmp_path: Path) -> None:
    """``ssh -J`` starts ``ssh -W`` for the jump host, scp starts ``ssh -oClearAllForwardings=yes``."""
    (tmp_path / "config").write_text("RemoteForward 9 x:1\n")
    config = ["-F", str(tmp_path / "config")]
    assert judged([*config, "-W", "[target]:22", "web"], tmp_path).forwards == {"stdio"}
    assert judged([*config, "-oClearAllForwardings=yes", "-s", "--", "web", "sftp"], tmp_path).forwards == set()


def test_a_file_that_includes_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"Include {tmp_path}/config {tmp_path}/config\nRemoteForward 9 x:1\n")
    found = judged(["-F", str(tmp_path / "config"), "web"], tmp_path)
    assert "remote" in found.forwards or found.hidden
    assert "more than" in found.hidden
