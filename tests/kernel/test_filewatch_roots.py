from __future__ import annotations

import os
import subprocess
from pathlib import Path

from killswitch.kernel.filewatch import FileWatch
from killswitch.kernel.places import Place


def test_a_new_folder_is_looked_at_when_the_first_process_of_its_root_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "cron.d"
    watch = FileWatch([Place("cron", str(folder))])
    try:
        with subprocess.Popen(["/bin/sleep", "60"]) as first:
            watch.add_root(1, f"/proc/{first.pid}/root")
            first.kill()
        folder.mkdir()
        _, (fresh,), _ = watch.read()
        watch.enter(fresh)
        (folder / "job").write_text("x")
        changes, _, _ = watch.read()
        assert {(c.pid, c.root, c.path, c.kind) for c in changes} == {(os.getpid(), 1, str(folder / "job"), "cron")}
    finally:
        watch.close()
