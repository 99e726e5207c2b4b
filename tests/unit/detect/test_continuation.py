"""Which executables are an incident's, and where they count as its continuation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from killswitch.commands import Act, Contain, Containment, Evidence, Finding, KillProcess, Level, Mode, Response
from killswitch.detect.continuation import DAY_NS, MAX_MARKS, Continuations, Mark, everybodys, vouches
from tests.unit.detect.scenes import S, Scene, cpu, ex, findings

BOTH = (Response.KILL_PROCESS, Response.SEVER, Response.FREEZE)


def mark(sha: str = "a" * 64, *, size: int = 1000, cgroup: str = "/a", at: int = 0, incident: str = "inc-1") -> Mark:
    return Mark(sha, size, incident, cgroup, "p/miner", Level.CRITICAL, BOTH, "/tmp/x", at)


def test_seen_elsewhere_it_matches_and_at_home_or_when_it_is_old_it_does_not() -> None:
    table = Continuations()
    assert not table.ran(1000, "/b"), "nobody looks for anything yet"
    table.mark(mark())
    assert table.ran(1000, "/b") and not table.ran(1001, "/b")
    found = table.match("a" * 64, "/b", S)
    assert found is not None and found.incident == "inc-1"
    assert table.match("a" * 64, "/a", S) is None
    assert table.match("b" * 64, "/b", S) is None
    assert table.match("a" * 64, "/b", DAY_NS) is None
    assert [m.sha256 for m in table.prune(DAY_NS)] == ["a" * 64] and not table.ran(1000, "/b")


def test_what_ran_elsewhere_before_is_everybodys() -> None:
    table = Continuations()
    table.ran(1000, "/a")
    assert not table.common(1000, "/a")
    table.ran(1000, "/b")
    assert table.common(1000, "/a") and table.common(1000, "/c")
    for n in range(10):
        table.ran(1000, f"/{n}")
    assert table.common(1000, "/9")


def test_they_are_bounded_and_forgotten_by_incident_or_digest() -> None:
    table = Continuations()
    dropped = [m for n in range(MAX_MARKS + 3) for m in table.mark(mark(f"{n:064x}", size=n, incident=f"inc-{n % 2}"))]
    assert [m.size for m in dropped] == [0, 1, 2] and len(table.marks) == MAX_MARKS
    assert table.forget("0" * 7) == [] and len(table.forget(f"{3:064x}")) == 1
    assert {m.incident for m in table.forget("inc-0")} == {"inc-0"}
    assert {m.incident for m in table.marks} == {"inc-1"}
    assert not table.ran(4, "/x") and table.ran(5, "/x")
    off = Continuations(0)
    off.mark(mark())
    assert not off.marks


def finding(scene_event: object, **more: object) -> Finding:
    event = scene_event
    base = Finding(
        1,
        77,
        "p",
        "r",
        "t",
        Level.HIGH,
        Mode.ENFORCE,
        BOTH,
        (),
        10,
        1010,
        "s",
        event,
        0,
        Act.MINING,
        Evidence.NAME,  # type: ignore[arg-type]
    )
    return replace(base, **more)  # type: ignore[arg-type]


def test_only_what_the_executable_itself_has_shown_marks_it() -> None:
    assert vouches(finding(ex("/tmp/xmrig")))
    assert vouches(finding(cpu(1), evidence=Evidence.BEHAVIOUR))
    for innocent in (
        finding(ex("/usr/bin/ssh"), evidence=Evidence.ARGUMENTS),
        finding(cpu(1), evidence=Evidence.BEHAVIOUR, act=Act.PROBING),
        finding(ex("/tmp/x"), evidence=None),
        finding(ex("/tmp/x"), mode=Mode.MONITOR),
        finding(ex("/tmp/x"), responses=(Response.ALERT, Response.CAPTURE)),
        finding(cpu(1, pid=0), evidence=Evidence.BEHAVIOUR, pid=0),
    ):
        assert not vouches(innocent), innocent


@pytest.mark.parametrize(
    "name", ["python3", "python3.11", "node", "bash", "ssh", "qemu-x86_64", "java", "perl5.36.0", "sshd"]
)
def test_what_runs_other_peoples_text_is_nobodys_own(name: str) -> None:
    assert everybodys(name)


@pytest.mark.parametrize("name", ["xmrig", "trainer", "pythonic-miner", "nodeminer", "bashed", "sshuttle", "agent"])
def test_what_only_sounds_like_it_is(name: str) -> None:
    assert not everybodys(name)


def test_a_continuation_is_answered_as_its_incident_was_in_the_mode_of_who_watches() -> None:
    scene = Scene()
    out = scene.engine.continued(ex("/srv/build", at=S), mark())
    (found,) = findings(out)
    assert (found.policy, found.rule, found.level, found.mode) == ("built-in", "continuation", "critical", "enforce")
    assert "the program of inc-1, there called /tmp/x and found by p/miner" in found.summary
    assert isinstance(out[1], KillProcess) and out[1].pid == 10
    assert isinstance(out[2], Contain) and out[2].desired == Containment(True, True)
    watching = Scene(mode="monitor")
    assert [type(c).__name__ for c in watching.engine.continued(ex("/srv/build", at=S), mark())] == ["RecordFinding"]
