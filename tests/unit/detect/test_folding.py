"""A flood of like findings gives a trickle; nothing is lost from the count."""

from __future__ import annotations

import re

from killswitch.commands import Finding, Level, Mode
from killswitch.detect.folding import Folder
from killswitch.events import Tick

S = 1_000_000_000


def finding(seconds: float, pid: int = 7, rule: str = "r") -> Finding:
    at = int(seconds * S)
    return Finding(at, 1, "p", rule, "title", Level.HIGH, Mode.ENFORCE, (), (), pid, 1, f"{pid} did it", Tick(at))


def stands_for(shown: list[Finding]) -> int:
    more = [re.search(r"\(and (\d+) more like it in [\d.]+ s\)$", f.summary) for f in shown]
    return len(shown) + sum(int(m[1]) for m in more if m)


def test_the_first_comes_at_once_as_it_is() -> None:
    first = finding(1)
    assert Folder().offer(first) is first


def test_a_flood_is_at_most_one_a_second_and_every_one_is_counted() -> None:
    folder = Folder()
    shown = [f for i in range(10_000) if (f := folder.offer(finding(1 + i / 2_000, pid=i)))]
    assert [round(f.time_ns / S) for f in shown] == [1, 2, 3, 4, 5]
    shown += folder.flush(100 * S)
    assert stands_for(shown) == 10_000


def test_what_is_held_comes_out_when_the_second_is_over_and_only_once() -> None:
    folder = Folder()
    folder.offer(finding(1.0, pid=1))
    assert folder.offer(finding(1.2, pid=2)) is None
    assert list(folder.flush(int(1.9 * S))) == []
    out = list(folder.flush(2 * S))
    assert [f.pid for f in out] == [2]
    assert out[0].summary == "2 did it"  # one finding stands for itself
    assert list(folder.flush(10 * S)) == []


def test_rules_are_folded_apart() -> None:
    folder = Folder()
    assert folder.offer(finding(1, rule="a"))
    assert folder.offer(finding(1, rule="b"))
    assert folder.offer(finding(1.1, rule="b")) is None


def test_one_process_that_repeats_itself_is_told_ever_more_rarely_but_another_is_not() -> None:
    folder = Folder()
    shown = [f for i in range(600) if (f := folder.offer(finding(1 + i / 2)))]  # 5 minutes
    assert len(shown) < 12
    assert folder.offer(finding(301.0, pid=99)) or next(folder.flush(302 * S)).pid == 99


def test_a_quiet_time_restores_the_short_pause() -> None:
    folder = Folder()
    for i in range(100):
        folder.offer(finding(1 + i / 2))
    list(folder.flush(500 * S))
    list(folder.flush(1000 * S))
    assert folder.offer(finding(1001)) is not None


def test_quiet_entries_are_dropped() -> None:
    folder = Folder()
    for i in range(50):
        folder.offer(finding(1, rule=f"rule {i}"))
    list(folder.flush(100 * S))
    assert not folder._folds


def test_weights_are_summed() -> None:
    folder = Folder()
    folder.offer(finding(1), weight=5)
    folder.offer(finding(1.1), weight=10)
    folder.offer(finding(1.2), weight=3)
    assert next(folder.flush(5 * S)).summary.endswith("(and 10 more like it in 4.0 s)")
