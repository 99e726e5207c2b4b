"""``top``: counters become rates, what comes first, and what a screen, a pipe and a script get."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from killswitch.cli.rates import SORTS, Look, per_second, rows
from killswitch.cli.top import _rate
from killswitch.commands import FREE, Containment
from killswitch.control.service import Status, WorkloadInfo
from killswitch.errors import Denied, TimedOut
from tests.unit.cli.conftest import Call
from tests.unit.cli.house import SEVERED_FROZEN, House, workload

STATUS = Status("1", 8, 1000.0, 1.0, False, (), 2, 0, 0, 100, {}, 1, ())


def look(at: float, *watched: WorkloadInfo, events: int = 100, started: float = 1000.0) -> Look:
    return Look(at, 2000.0 + at, replace(STATUS, events=events, started_unix=started), watched)


def busy(name: str = "a", number: int = 1, **given: object) -> WorkloadInfo:
    base = workload(name, id=number, cpu_ns=0, events=0, tx_packets=0, rx_packets=0)
    return replace(base, **given)  # type: ignore[arg-type]


def test_counters_become_rates() -> None:
    before = look(10.0, busy())
    after = busy(cpu_ns=3_000_000_000, tx_packets=40, rx_packets=20, events=8, dropped_packets=2, hashing=0.75)
    [row] = rows(before, look(12.0, after))
    assert (row.cores, row.sent, row.received, row.events, row.dropping) == (1.5, 20.0, 10.0, 4.0, 1.0)
    assert (row.dropped, row.hashing) == (2, 0.75)


def test_what_is_not_known_is_not_made_up() -> None:
    [row] = rows(None, look(1.0, busy(cpu_ns=5)))
    assert (row.cores, row.sent, row.events, row.hashing) == (None, None, None, None)
    [other] = rows(look(1.0, busy(number=1)), look(2.0, busy(number=2)))  # its cgroup was made anew
    assert other.cores is None
    [gone] = rows(look(1.0, busy(cpu_ns=5)), look(2.0, busy(cpu_ns=-1)))
    assert gone.cores is None
    [reset] = rows(look(1.0, busy(tx_packets=50)), look(2.0, busy(tx_packets=5)))
    assert reset.sent is None


def test_a_restart_forgets_what_the_daemon_counts_and_not_what_the_kernel_does() -> None:
    before, now = look(1.0, busy(events=2)), look(2.0, busy(events=9, tx_packets=3), events=150, started=1500.0)
    [row] = rows(before, now)
    assert (row.events, row.sent) == (None, 3.0)
    assert per_second(before, now) is None
    assert per_second(before, look(3.0, events=150)) == 25.0


def test_what_comes_first() -> None:
    before = look(0.0, *(busy(n, i) for i, n in enumerate("abcd", 1)))
    now = look(
        1.0,
        busy("a", 1, cpu_ns=10**9),
        busy("b", 2, tx_packets=9, events=1),
        busy("c", 3, observed=SEVERED_FROZEN, desired=SEVERED_FROZEN, dropped_packets=5),
        busy("d", 4, cpu_ns=2 * 10**9, events=7, desired=Containment(severed=True)),
    )
    order = {sort: "".join(r.name for r in rows(before, now, sort)) for sort in SORTS}
    assert order == {
        "state": "dcab", "cpu": "dabc", "packets": "bacd", "dropped": "cabd", "events": "dbac", "name": "abcd",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "told"), [(None, "-"), (0.0, "0"), (0.04, "0.0"), (3.25, "3.2"), (12345.6, "12,346")]
)
def test_rates_as_people_read_them(value: float | None, told: str) -> None:
    assert _rate(value) == told


def test_one_look_for_a_script(house: House, call: Call) -> None:
    house.watched = [
        busy("b", 2),
        busy("a\x1b[31m", 1, observed=SEVERED_FROZEN, desired=SEVERED_FROZEN, incident="inc-3"),
    ]
    started = time.monotonic()
    result = call("top", "--once", "-d", "0.2", "-o", "json")
    assert time.monotonic() - started >= 0.2  # two looks: rates are over the interval
    assert result.exit_code == 0, result.stderr
    [line] = result.stdout.splitlines()
    told = json.loads(line)
    assert [w["name"] for w in told["workloads"]] == ["a\x1b[31m", "b"]
    assert "\x1b" not in line
    assert told["workloads"][0]["observed"] == "severed+frozen"
    assert told["workloads"][0]["cores"] == 0
    assert told["status"]["proof"]["ok"] is False
    assert set(told) == {"time", "interval", "events_per_second", "status", "workloads"}


def test_one_look_for_people(house: House, call: Call) -> None:
    house.watched = [busy("agent-1", 1, cpu_ns=7, incident="inc-3", lost_events=12)]
    told = call("top", "--once", "-d", "0.2").stdout
    assert "\x1b" not in told
    assert "1 watched" in told
    assert "1 open incident" in told
    assert "proof: none yet" in told
    row = next(line for line in told.splitlines() if line.startswith("agent-1"))
    assert row.split()[:3] == ["agent-1", "free", "0.00"]
    assert row.split()[-2:] == ["12", "inc-3"]


def test_nobody_watched(house: House, call: Call) -> None:
    house.watched = []
    assert "killswitch run -- CMD" in call("top", "--once", "-d", "0.2").stdout


@pytest.mark.parametrize(("error", "code"), [(Denied("no"), 4), (TimedOut("late"), 6)])
def test_it_ends_with_the_daemon_where_nobody_looks(house: House, call: Call, error: Exception, code: int) -> None:
    house.error = error
    result = call("top", "-d", "0.2")
    assert result.exit_code == code
    assert str(error) in result.stderr


def test_free_is_not_contained() -> None:
    [row] = rows(None, look(1.0, busy(observed=FREE, desired=FREE)))
    assert not row.contained
