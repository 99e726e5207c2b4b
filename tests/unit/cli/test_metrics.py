"""``metrics``: the exposition format holds whatever a workload calls itself, and says when there is no daemon."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from killswitch.cli import exposition
from killswitch.control.service import Health, Proof, Status
from killswitch.errors import Denied
from tests.unit.cli.conftest import Call
from tests.unit.cli.house import HOSTILE, SEVERED_FROZEN, House, workload

PROOF = Proof(1000.5, True, True, "", 1000.5, 4600.0, 3600.0)
STATUS = Status(
    "0.1.0", 8, 900.0, 1.0, False, (), 2, 1, 3, 77, {"ring_full": 12}, 4096, (Health("ring", True, ""),), PROOF
)

# The grammar of one line, by the format's documentation.
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\n|\\")*"'
_SAMPLE = re.compile(rf"([a-z_][a-z0-9_]*)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (-?[0-9.e+-]+)")


def read(text: str) -> dict[str, list[tuple[str, float]]]:
    """name -> (labels, value); checks the whole of the text on the way."""
    found: dict[str, list[tuple[str, float]]] = {}
    typed: set[str] = set()
    assert text.endswith("\n")
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("#"):
            _, what, name, rest = line.split(" ", 3)
            assert what == "HELP" or (what == "TYPE" and rest in ("gauge", "counter") and name not in typed), line
            typed |= {name} if what == "TYPE" else set()
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample, line
        assert sample[1] in typed, line
        found.setdefault(sample[1], []).append((sample[2] or "", float(sample[3])))
    return found


def test_all_of_it_is_there() -> None:
    cut = workload("cut", observed=SEVERED_FROZEN, desired=SEVERED_FROZEN, cpu_ns=1_500_000_000, held_packets=4)
    told = read(exposition.of(STATUS, [cut]))
    assert told["killswitch_up"] == told["killswitch_proof_stands"] == [("", 1)]
    assert told["killswitch_proof_time_seconds"] == [("", 1000.5)]
    assert told["killswitch_events_lost_total"] == [('reason="ring_full"', 12)]
    assert told["killswitch_part_healthy"] == [('part="ring"', 1)]
    who = 'workload="cut",cgroup="/killswitch/cut"'
    assert told["killswitch_workload_cpu_seconds_total"] == [(who, 1.5)]
    assert told["killswitch_workload_frozen"] == [(f'{who},state="observed"', 1), (f'{who},state="desired"', 1)]
    assert "killswitch_workload_hashing_ratio" not in told  # not known


@pytest.mark.parametrize(
    "proof", [Proof(), replace(PROOF, ok=False), replace(PROOF, fresh=False), replace(PROOF, at_unix=0.0)]
)
def test_what_does_not_stand_is_0(proof: Proof) -> None:
    assert read(exposition.of(replace(STATUS, proof=proof), []))["killswitch_proof_stands"] == [("", 0)]


@pytest.mark.parametrize(
    "name", [HOSTILE.decode("utf-8", "surrogateescape"), 'a"} 1\nkillswitch_up 1', "a\\", 'a\\"b', "\udcff"]
)
def test_no_name_can_add_a_figure(name: str) -> None:
    told = exposition.of(STATUS, [workload(name, cgroup=f"/{name}")])
    told.encode()
    assert len(read(told)["killswitch_up"]) == 1
    assert read(told)["killswitch_workload_processes"][0][1] == 3


def test_it_is_printed_or_put_in_place_whole(house: House, call: Call, tmp_path: Path) -> None:
    printed = call("metrics")
    assert printed.exit_code == 0
    file = tmp_path / "killswitch.prom"
    file.write_text("old")
    assert call("metrics", "--file", str(file)).output == ""
    assert read(file.read_text()).keys() == read(printed.stdout).keys()
    assert file.stat().st_mode & 0o777 == 0o644
    assert [f.name for f in tmp_path.iterdir()] == ["killswitch.prom"]
    assert call("metrics", "--file", str(tmp_path / "none" / "x.prom")).exit_code == 1


def test_no_answer_is_a_figure_too(house: House, call: Call, tmp_path: Path) -> None:
    house.error = Denied("not you")
    file = tmp_path / "killswitch.prom"
    result = call("metrics", "--file", str(file))
    assert (result.exit_code, result.stderr) == (4, "killswitch: not you\n")
    assert read(file.read_text()) == {"killswitch_up": [("", 0)]}
    gone = call("--socket", str(tmp_path / "no.sock"), "metrics")
    assert gone.exit_code == 3
    assert read(gone.stdout) == {"killswitch_up": [("", 0)]}


def test_the_example_alerts_ask_for_what_there_is() -> None:
    rules = (Path(__file__).parents[3] / "systemd/examples/killswitch.rules.yml").read_text()
    assert yaml.safe_load(rules)["groups"][0]["rules"][0]["alert"] == "KillSwitchNotProven"
    asked = set(re.findall(r"\bkillswitch_\w+", rules))
    assert asked
    assert asked <= read(exposition.of(STATUS, [workload()])).keys()
