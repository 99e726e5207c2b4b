"""When code is read, and what the engine does with what was read: from ``Cpu`` to a finding, as scripts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.commands import Command, Contain, ReadCode, RecordFinding
from killswitch.detect.load import MAX_LOADS, LoadTable
from killswitch.detect.samples import representative
from killswitch.events import Released
from tests.unit.detect.scenes import (
    ARX,
    HASHING,
    MINER,
    PLAIN,
    WORKLOAD,
    S,
    Scene,
    code,
    cpu,
    ex,
    findings,
    gone,
)


def burn(
    scene: Scene, first: int, last: int, blob: bytes = ARX, *, pid: int = 10, read_a_second: int = 0
) -> list[Command]:
    """A process keeps a CPU busy; code is handed back whenever it is asked for."""
    out: list[Command] = []
    for second in range(first, last + 1):
        commands = scene.play(cpu(second, pid=pid))
        out += commands
        if any(isinstance(c, ReadCode) for c in commands):
            out += scene.play(code(second + 0.01, blob, pid=pid, read=read_a_second * second, cpu_s=second))
    return out


def asked(commands: list[Command]) -> list[int]:
    return [c.pid for c in commands if isinstance(c, ReadCode)]


def test_a_hashing_process_is_found_after_for_and_its_hot_code_goes_to_the_evidence() -> None:
    scene = Scene(HASHING)
    scene.play(ex("/tmp/innocent-name", pid=10))
    out = burn(scene, 1, 10)  # judged from the second window on
    assert findings(out) == []
    out = burn(scene, 11, 20)
    (found,) = findings(out)
    assert found.rule == "hashing"
    assert "innocent-name(10)" in found.summary and "hashing score 1.00" in found.summary and "arx" in found.summary
    (contain,) = (c for c in out if isinstance(c, Contain))
    assert contain.hot and contain.hot[0][:2] == (10, 0x1000)
    assert contain.capture


def test_a_busy_process_that_does_not_hash_is_not_found() -> None:
    assert findings(burn(Scene(HASHING), 1, 60, PLAIN)) == []


def test_hashing_what_it_reads_is_not_found() -> None:
    assert findings(burn(Scene(HASHING), 1, 60, ARX, read_a_second=200_000_000)) == []


def test_code_is_read_once_it_has_run_enough_and_then_every_four_seconds() -> None:
    scene = Scene(HASHING)
    when = [s for s in range(1, 15) if asked(scene.play(cpu(s)))]
    assert when == [1, 5, 9, 13]


@pytest.mark.parametrize("cores", [0.05, 0.15, 0.3])
def test_a_process_that_gets_little_of_a_cpu_is_read_less_often_but_it_is_read(cores: float) -> None:
    scene = Scene(HASHING)
    reads = len(asked(scene.play(*(cpu(s, cores=cores) for s in range(1, 101)))))
    assert 0.7 * cores * 100 / 0.41 <= reads <= cores * 100 / 0.4 or cores > 0.1
    assert 10 <= reads <= 25


def test_pauses_only_delay_the_reading() -> None:
    scene = Scene(HASHING)
    assert len(asked(scene.play(*(cpu(s, cores=0.9) for s in range(100, 200, 5))))) == 20


def test_what_hardly_runs_is_not_read() -> None:
    scene = Scene(HASHING)
    assert asked(scene.play(*(cpu(s, cores=0.003) for s in range(1, 100)))) == []


def test_a_process_whose_code_was_seen_to_be_ordinary_is_not_read() -> None:
    scene = Scene(HASHING)
    hot = tuple((0x1000 + 64 * i, 9) for i in range(10))
    plain = [replace(cpu(s, hot=hot), code=(PLAIN,) * 10, machine="x86_64") for s in range(1, 60)]
    assert asked(scene.play(*plain)) == []
    arx = [replace(cpu(s, hot=hot), code=(ARX,) * 10, machine="x86_64") for s in range(60, 70)]
    commands = [c for c in scene.play(*arx) if isinstance(c, ReadCode)]
    assert commands and commands[0].code == (ARX,) * 10, "what was seen goes along, and need not be read again"


def test_a_process_that_waits_at_few_addresses_is_read() -> None:
    """What lies around them was not seen when it was sampled."""
    scene = Scene(HASHING)
    assert asked(scene.play(replace(cpu(1), code=(PLAIN,), machine="x86_64"))) == [10]


def test_nothing_is_read_when_no_rule_of_this_workload_asks() -> None:
    assert asked(Scene(MINER).play(*(cpu(s) for s in range(1, 20)))) == []
    scene = Scene(HASHING, added=False)
    scene.add(policies=())
    assert asked(scene.play(*(cpu(s) for s in range(1, 20)))) == []


def test_at_most_two_readings_in_a_window_and_every_process_has_its_turn() -> None:
    scene = Scene(HASHING)
    turns: dict[int, list[int]] = {pid: [] for pid in range(10, 40)}
    for second in range(1, 61):
        pids = asked(scene.play(*(cpu(second, pid=pid) for pid in turns)))
        assert len(pids) <= 2
        for pid in pids:
            turns[pid].append(second)
    assert all(len(seconds) >= 2 for seconds in turns.values()), turns


def test_the_request_names_the_hottest_addresses_since_the_last_one() -> None:
    scene = Scene(HASHING)
    scene.play(cpu(1, hot=((1, 5), (2, 50)), cores=0.3))
    (command,) = (c for c in scene.play(cpu(2, hot=((1, 60), (3, 1)))) if isinstance(c, ReadCode))
    assert command.hot == ((1, 65), (2, 50), (3, 1))


def test_a_program_that_runs_itself_anew_does_not_shake_off_its_score() -> None:
    scene = Scene(HASHING)
    out: list[Command] = []
    for second in range(1, 40):
        if second % 5 == 0:
            out += scene.play(ex("/tmp/x", at=second * S))
        out += burn(scene, second, second)
    assert [f.rule for f in findings(out)] == ["hashing"]


def test_another_program_in_the_same_process_is_judged_for_itself() -> None:
    scene = Scene(HASHING)
    burn(scene, 1, 9)
    scene.play(ex("/usr/bin/cc1"))
    assert findings(burn(scene, 10, 60, PLAIN)) == []


def test_a_score_is_not_believed_for_ever() -> None:
    scene = Scene(HASHING)
    burn(scene, 1, 5)
    assert findings(scene.play(*(cpu(s) for s in range(6, 60)))) != []  # fifteen seconds are enough for this rule
    scene = Scene(HASHING.replace("for: 10s", "for: 30s"))
    burn(scene, 1, 5)
    assert findings(scene.play(*(cpu(s) for s in range(6, 100)))) == []  # no answer to any later request


def test_code_of_a_process_that_is_gone_or_was_never_seen_is_ignored() -> None:
    scene = Scene(HASHING)
    assert scene.play(code(1)) == []
    burn(scene, 1, 3)
    assert scene.play(gone(10), code(4), cpu(5, cores=0.3)) == []


def test_it_is_found_again_after_a_release() -> None:
    scene = Scene(HASHING)
    assert len(findings(burn(scene, 1, 30))) == 1
    scene.play(Released(30 * S, WORKLOAD))
    out = burn(scene, 31, 60)
    assert [c.incident for c in out if isinstance(c, RecordFinding)] == ["inc-2"]
    assert any(isinstance(c, Contain) for c in out)


def test_processes_whose_exit_was_lost_are_forgotten() -> None:
    loads = LoadTable()
    for pid in range(100):
        loads.cpu(cpu(1, pid=pid), wanted=True)
    assert len(loads) == 100
    loads.prune(1000 * S)
    assert len(loads) == 0


def test_what_is_read_stands_for_all_samples_not_for_the_hottest() -> None:
    """A long unrolled stretch with 900 samples, one each, beside a loop of four addresses with 100."""
    unrolled = {0x10000 + 4 * i: 1 for i in range(900)}
    loop = {0x90000 + i: 25 for i in range(4)}
    taken = dict(representative({**unrolled, **loop}, 96))
    assert len(taken) <= 96
    share = sum(n for a, n in taken.items() if a in loop) / sum(taken.values())
    assert 0.08 <= share <= 0.12
    assert 900 <= sum(taken.values()) <= 1000


@given(st.dictionaries(st.integers(0, 2**47), st.integers(1, 500), max_size=300), st.integers(1, 128))
def test_representatives_are_of_the_given_and_no_more_than_asked(hot: dict[int, int], limit: int) -> None:
    taken = representative(hot, limit)
    assert len(taken) <= limit
    assert {a for a, _ in taken} <= hot.keys()
    assert [n for _, n in taken] == sorted((n for _, n in taken), reverse=True)
    if hot:
        assert taken and sum(n for _, n in taken) <= sum(hot.values()) + limit


def test_who_has_not_run_for_longest_gives_way() -> None:
    loads = LoadTable()
    loads.cpu(cpu(1, pid=10, cores=0.1), wanted=True)
    for pid in range(1000, 1000 + MAX_LOADS - 1):
        loads.cpu(cpu(2, pid=pid, cores=0.1), wanted=True)
    loads.cpu(cpu(3, pid=10, cores=0.1), wanted=True)  # it runs again
    loads.cpu(cpu(3, pid=99, cores=0.1), wanted=True)
    assert len(loads) == MAX_LOADS
    again = loads.cpu(cpu(4, pid=10, cores=0.3), wanted=True)
    assert again is not None, "a tenth, a tenth and three tenths of a second: it was not forgotten"


def test_what_mixes_is_told_as_the_mean_of_the_last_readings() -> None:
    loads = LoadTable()
    assert "cpu.mixing" not in loads.fields(cpu(1))
    for second, blob, told in ((1, ARX, 1.0), (6, PLAIN, 0.5), (11, PLAIN, 1 / 3), (16, PLAIN, 0.0)):
        loads.cpu(cpu(second), wanted=True)
        loads.code(code(second + 0.01, blob))
        assert loads.fields(cpu(second))["cpu.mixing"] == pytest.approx(told)
