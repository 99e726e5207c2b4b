"""Files that open and are never answered for (a real file system, of a workload): they hold up nobody else's judgement."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from killswitch.commands import Containment
from tests.e2e.test_disguised_tools import CONFIG, built, rules
from tests.rig.daemon import Daemon

SILENT = Path(__file__).parents[1] / "rig" / "programs" / "silent.py"
CUT_OFF = Containment(severed=True, frozen=True)


def test_a_workload_whose_files_never_answer_holds_up_no_others_judgement(daemon: Daemon, tmp_path: Path) -> None:
    program, there, config = built(tmp_path, "trainer"), tmp_path / "there", tmp_path / "settings"
    there.mkdir()
    config.write_text(CONFIG)
    daemon.watched("silent")
    silent = daemon.spawn(
        "silent", "/usr/bin/env", "TIMES=40", sys.executable, str(SILENT), str(there), str(program), "--config=FILE",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert silent.stdout and silent.stdout.readline() == b"ready\n"
    try:
        for n in range(3):
            name = f"miner{n}"
            daemon.watched(name)
            daemon.spawn(name, str(program), f"--config={config}")
            began = time.monotonic()
            daemon.wait_for("cut off", lambda name=name: (w := daemon.workload(name)) and w.observed == CUT_OFF)  # type: ignore[misc]
            assert time.monotonic() - began < 5, "before the first of them is given up"
            assert "miner-config" in rules(daemon, name)
        lost = daemon.wait_for(
            "told",
            lambda: {f.summary for i in daemon.client.incidents() for f in i.findings if f.rule == "events-lost"},
        )
        assert all("do not answer" in text for text in lost)
        assert not daemon.workload("silent").desired.severed  # type: ignore[union-attr]
        assert all(h.ok for h in daemon.client.status().health)
    finally:
        silent.kill()  # until it has ended nothing that reads of it can: not the daemon, either
        silent.wait()
