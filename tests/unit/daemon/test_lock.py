from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from killswitch.daemon.lock import Lock, Locked

HOLD = "import sys; from pathlib import Path; from killswitch.daemon.lock import Lock; Lock(Path(sys.argv[1])); {}"
ROOT = Path(__file__).parents[3]


def test_second_holder_is_refused_and_names_the_first(tmp_path: Path) -> None:
    first = Lock(tmp_path)
    with pytest.raises(Locked, match=f"pid {os.getpid()} is already running there") as e:
        Lock(tmp_path)
    assert e.value.pid == os.getpid()
    first.release()
    Lock(tmp_path).release()


def test_lock_dies_with_its_holder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD.format("print('held', flush=True); sys.stdin.read()"), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Locked, match=f"pid {holder.pid} "):
            Lock(tmp_path)
        holder.kill()
        holder.wait()
        Lock(tmp_path).release()
