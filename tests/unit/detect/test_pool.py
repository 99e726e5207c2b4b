"""Many small, short-lived, paused or starved processes: what they hash counts together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from killswitch.commands import Command, Contain
from killswitch.detect.pool import Pool
from killswitch.detect.tally import Tally
from killswitch.events import Cpu
from tests.unit.detect.scenes import ARX, PLAIN, WORKLOAD, S, Scene, cpu, findings, gone, tick

WHOLE = """
  - id: together
    title: The workload hashes
    level: high
    on: cpu
    match:
      much: {workload.cpu.hashing_seconds|gte: 5}
      mostly: {workload.cpu.hashing|gte: 0.5}
    condition: much and mostly
    response: [sever, freeze]
"""
SLOW = """
  - id: slow
    title: The process hashes
    level: high
    on: cpu
    match:
      much: {cpu.hashing_seconds|gte: 5}
    condition: much
    response: [alert]
"""


def seen(second: float, pid: int, *, cores: float, blob: bytes = ARX, program: int = 7, read: int = 0) -> Cpu:
    hot = ((0x1000, max(1, round(cores * 99))),)
    window = cpu(second, pid=pid, cores=cores, hot=hot)
    return replace(window, code=(blob,), program=program, machine="x86_64", read_bytes=read)


def crowd(scene: Scene, seconds: int, *, blob: bytes = ARX, programs: int = 1, read: int = 0) -> list[Command]:
    """Twenty new processes every second, each with a twentieth of a CPU, that live for that second."""
    out: list[Command] = []
    for second in range(1, seconds + 1):
        for n in range(20):
            pid = second * 100 + n
            program = 7 + pid % programs
            out += scene.play(seen(second, pid, cores=0.05, blob=blob, program=program, read=read), gone(pid))
        out += scene.play(tick(second))
    return out


def test_many_short_processes_that_hash_are_found_as_one_workload() -> None:
    (found,) = findings(out := crowd(Scene(WHOLE), 20))
    assert (found.rule, found.pid) == ("together", 0)
    assert "CPU-seconds of hashing" in found.summary and "arx" in found.summary
    assert any(isinstance(c, Contain) for c in out)


def test_a_new_copy_of_the_program_for_each_of_them_hides_nothing() -> None:
    assert [f.rule for f in findings(crowd(Scene(WHOLE), 40, programs=10**6))] == ["together"]


def test_many_short_processes_that_do_not_hash_are_not_found() -> None:
    assert findings(crowd(Scene(WHOLE), 60, blob=PLAIN)) == []


def test_many_short_checksums_are_not_found() -> None:
    """Each reads 10 MB in its twentieth of a CPU-second."""
    assert findings(crowd(Scene(WHOLE), 60, read=10_000_000)) == []


@pytest.mark.parametrize(("cores", "on", "off"), [(0.1, 1, 0), (1.0, 3, 7), (0.03, 1, 0)])
def test_low_priority_and_pauses_only_delay_it(cores: float, on: int, off: int) -> None:
    """A starved process, and one that works three seconds of ten."""
    scene = Scene(SLOW, WHOLE)
    out: list[Command] = []
    for second in range(1, 400):
        if second % (on + off) < on:
            out += scene.play(seen(second, 10, cores=cores))
        out += scene.play(tick(second))
    # Its own memory was never read here: what was seen when it ran is judged with the rest of the workload.
    (found,) = findings(out)
    assert found.rule == "together"
    assert found.time_ns < (5 / (cores * on / (on + off)) * 1.5 + 20) * S


def test_a_rule_about_the_whole_is_not_asked_for_each_process() -> None:
    scene = Scene(WHOLE.replace("gte: 5", "gte: 0").replace("gte: 0.5", "gte: 0"))
    assert findings(scene.play(*(seen(1, pid, cores=0.5) for pid in range(10, 20)))) == []
    found = findings(scene.play(tick(2), *(seen(2, pid, cores=0.5) for pid in range(10, 20)), tick(3)))
    assert {f.pid for f in found} == {0}


def test_a_miner_beside_a_build_is_not_diluted() -> None:
    scene = Scene(WHOLE.replace("    condition: much and mostly", "    condition: much or (much and mostly)"))
    out: list[Command] = []
    for second in range(1, 40):
        out += scene.play(seen(second, 10, cores=0.5, program=7))
        builds = (seen(second, second * 100 + n, cores=0.9, blob=PLAIN, program=8) for n in range(8))
        out += scene.play(*builds, tick(second))
    assert [f.rule for f in findings(out)] == ["together"]


def test_the_tally_forgets_after_ten_minutes() -> None:
    tally = Tally()
    for second in range(100):
        tally.add(second * S, 1e9, 0.9)
    assert 95 <= tally.seconds(100 * S) <= 100
    assert tally.score(100 * S) == pytest.approx(0.9)
    assert tally.seconds(800 * S) == 0
    assert tally.score(800 * S) is None


def test_a_pool_stays_small_whatever_runs() -> None:
    pool = Pool()
    for n in range(5000):
        pool.add(seen(n / 100, n, cores=0.01, program=n), 1.0, None, 0)
    assert len(pool._groups) <= 128


def test_a_removed_workload_is_forgotten() -> None:
    scene = Scene(WHOLE)
    crowd(scene, 3)
    assert scene.engine._loads.pools()
    scene.engine._loads.forget_workload(WORKLOAD)
    assert not scene.engine._loads.pools()
