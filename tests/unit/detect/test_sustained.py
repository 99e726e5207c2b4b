"""``for:`` as scripts of windows: (seconds, holds) in, findings' times out."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.detect.sustained import SEGMENTS, Sustained

S = 1_000_000_000


def fires(state: Sustained, windows: Iterable[tuple[float, bool]], *, window: float = 1.0) -> list[float]:
    """Feed windows that end at the given seconds; the seconds at which a finding was due."""
    return [t for t, holds in windows if state.feed(int(t * S), int(window * S), holds)]


def script(text: str, *, start: int = 1) -> list[tuple[float, bool]]:
    """``#`` holds, ``.`` does not, a blank is a window that never came; one second each."""
    return [(float(start + i), c == "#") for i, c in enumerate(text) if c != " "]


def test_steady_load_fires_once_when_the_span_is_filled() -> None:
    assert fires(Sustained(20 * S), script("#" * 100)) == [20.0]


def test_shorter_than_for_never_fires() -> None:
    assert fires(Sustained(20 * S), script("#" * 19 + "." * 60)) == []
    assert fires(Sustained(20 * S), script("#" * 19 + "...#....")) == [23.0]  # 17 of the last 20


def test_for_zero_fires_at_the_first_window() -> None:
    assert fires(Sustained(0), script("..###")) == [3.0]


def test_a_short_dip_is_forgiven_and_costs_nothing_but_its_share() -> None:
    # 17 of the 20 seconds held: 85 %
    assert fires(Sustained(20 * S), script("#####...############" + "#" * 5)) == [20.0]


def test_a_dip_as_long_as_the_share_allows_still_fires_and_a_longer_one_starts_anew() -> None:
    assert fires(Sustained(20 * S), script("########....########" + "#" * 30)) == [20.0]
    late = fires(Sustained(20 * S), script("########.....#######" + "#" * 30))
    assert late == [8 + 5 + 20]  # 5 s > a fifth of 20 s: counted from the first window after the dip


def test_a_missing_window_is_a_dip() -> None:
    assert fires(Sustained(20 * S), script("########     #######" + "#" * 30)) == [33.0]


def test_duty_cycle_of_nine_in_ten_fires_and_one_in_two_does_not() -> None:
    assert fires(Sustained(20 * S), script("#########." * 10)) == [21.0]  # the 20th window does not hold
    assert fires(Sustained(20 * S), script("#." * 200)) == []
    assert fires(Sustained(20 * S), script("###." * 100)) == []  # 75 %


def test_a_bad_beginning_does_not_have_to_be_averaged_away() -> None:
    """Only the last ``for`` counts: a loud minute after a patchy one is found after a loud ``for``, not later."""
    patchy = "##." * 20  # 67 %
    due = fires(Sustained(20 * S), script(patchy + "#" * 60))
    assert len(due) == 1
    assert 60 < due[0] <= 60 + 20


def test_the_next_finding_needs_an_end_of_the_episode_first() -> None:
    assert fires(Sustained(10 * S), script("#" * 40 + "." + "#" * 40)) == [10.0]  # a dip, but no end
    assert fires(Sustained(10 * S), script("#" * 40 + "..." + "#" * 40)) == [10.0, 53.0]


def test_an_episode_also_ends_when_it_held_less_than_half_of_the_span() -> None:
    state = Sustained(60 * S)
    thin = "###......." * 12  # 30 %, dips of 7 s are shorter than the 12 s that are forgiven
    due = fires(state, script("#" * 70 + thin + "#" * 70))
    assert due[0] == 60.0
    assert len(due) == 2
    assert 70 + len(thin) < due[1] <= 70 + len(thin) + 60


def test_restart_after_silence_counts_from_its_first_window() -> None:
    windows = script("#" * 15) + script("#" * 30, start=1000)
    assert fires(Sustained(20 * S), windows) == [1000 + 19]


def test_jitter_of_the_clock_is_neither_a_dip_nor_counted_twice() -> None:
    early_late = [(i + (0.3 if i % 2 else 0.0), True) for i in range(1, 60)]
    due = fires(Sustained(20 * S), early_late)
    assert len(due) == 1
    assert 20 <= due[0] <= 21.5


def test_overlapping_windows_do_not_make_time_run_faster() -> None:
    twice = [(i / 2, True) for i in range(2, 120)]  # windows of 1 s, every half second
    assert fires(Sustained(20 * S), twice) == [20.0]


def test_time_that_jumps_back_a_little_is_ignored_and_by_much_starts_anew() -> None:
    windows = [*script("#" * 10), (5.0, True), (6.0, True), *script("#" * 10, start=11)]
    assert fires(Sustained(15 * S), windows) == [15.0]
    windows = [*script("#" * 100, start=1000), *script("#" * 14)]
    assert fires(Sustained(15 * S), windows) == [1014.0]
    windows = [*script("#" * 10, start=1000), *script("#" * 30)]
    assert fires(Sustained(15 * S), windows) == [15.0]


def test_a_jump_forward_starts_anew() -> None:
    windows = script("#" * 10) + script("#" * 25, start=10_000)
    assert fires(Sustained(20 * S), windows) == [10_019.0]


def test_a_short_for_forgives_no_window() -> None:
    assert fires(Sustained(3 * S), script("##.##.##.##.##.")) == []
    assert fires(Sustained(3 * S), script("##.###")) == [6.0]


@pytest.mark.parametrize("seconds", [3, 60, 3600])
def test_memory_is_bounded_however_long_the_span(seconds: int) -> None:
    state = Sustained(seconds * S)
    for i in range(1, 40_000):
        state.feed(i * S // 10, S // 10, i % 6 != 0)
    assert len(state._segments) <= 2 * SEGMENTS + 2


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(1, 3_000), st.integers(100, 2_000), st.booleans()), max_size=200),
)
def test_never_due_unless_it_held_in_four_fifths_of_a_filled_span(
    for_s: int, steps: list[tuple[int, int, bool]]
) -> None:
    """Against the definition, computed the slow way in milliseconds: due ⇒ held ≥ 80 % of the last ``for``."""
    state = Sustained(for_s * S)
    held: list[tuple[int, int]] = []  # (from, to) ms
    now = 0
    tolerance = for_s * 1000 // SEGMENTS + 2_000  # the resolution, and jitter that is forgiven at the edges
    for step, window, holds in steps:
        now += step
        due = state.feed(now * 1_000_000, window * 1_000_000, holds)
        if holds:
            held.append((now - max(window, min(step, window * 3 // 2)), now))
        if due:
            assert holds
            since = now - for_s * 1000
            covered, end = 0, since
            for a, b in sorted(held):
                covered += max(0, b - max(a, end))
                end = max(end, b)
            assert covered >= 0.8 * for_s * 1000 - tolerance
