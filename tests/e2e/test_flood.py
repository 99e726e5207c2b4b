"""One workload floods the daemon with events of every kind; what another does meanwhile is seen, judged and stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.commands import Containment
from tests.e2e.test_disguised_tools import CONFIG, built, rules
from tests.rig.build import program
from tests.rig.daemon import Daemon

CUT_OFF, FREE = Containment(severed=True, frozen=True), Containment()
SECONDS = "60"  # they are ended much sooner, with the test


def flood(daemon: Daemon, name: str, *kinds: str) -> None:
    for kind in kinds:
        daemon.spawn(name, str(program("flood")), kind, SECONDS, "/bin/true")


@pytest.mark.timeout(150)
def test_what_others_do_meanwhile_is_seen_and_stopped(daemon: Daemon, tmp_path: Path) -> None:
    trainer, config = built(tmp_path, "trainer"), tmp_path / "settings"
    config.write_text(CONFIG)
    for name in ("flooder", "bystander", "miner", "tunneller"):
        daemon.watched(name)
    flood(daemon, "flooder", "connect", "connect", "fork", "exec", "exec")
    daemon.wait_for("told", lambda: "flood" in rules(daemon, "flooder"), 40)
    # One event each, of which the first needs the daemon's own reading and the second the kernel alone.
    daemon.spawn("miner", str(trainer), f"--config={config}")
    tunnel = daemon.spawn("tunneller", "/usr/bin/ssh", "-N", "-R", "9000:localhost:22", "nobody@127.0.0.1")
    assert tunnel.wait(20) == -9
    for name in ("miner", "tunneller"):
        daemon.wait_for(f"{name} cut off", lambda name=name: daemon.workload(name).observed == CUT_OFF, 40)  # type: ignore[misc,union-attr]
    known = {w.name: w for w in daemon.client.workloads()}
    assert known["flooder"].lost_events > 0
    assert {name: known[name].lost_events for name in ("bystander", "miner", "tunneller")} == {
        "bystander": 0, "miner": 0, "tunneller": 0,
    }  # fmt: skip
    assert known["flooder"].desired == FREE, "by default it is told of, and tightened"
    assert all(h.ok for h in daemon.client.status().health if h.part != "ring")


def test_who_floods_is_cut_off_where_the_policy_says_so(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    policy = daemon.policy_dir / "rogue-agent.yaml"
    policy.write_text(policy.read_text().replace("\nrules:\n", "\non_flood: freeze\nrules:\n", 1))
    daemon.start()
    daemon.watched("flooder")
    daemon.watched("busy")
    flood(daemon, "flooder", "connect", "connect")
    daemon.wait_for("cut off", lambda: daemon.workload("flooder").observed == CUT_OFF, 40)  # type: ignore[union-attr]
    assert "flood" in rules(daemon, "flooder") and daemon.workload("busy").desired == FREE  # type: ignore[union-attr]
