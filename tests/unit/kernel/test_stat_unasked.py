from __future__ import annotations

import os
from pathlib import Path

import pytest

from killswitch.kernel.syscalls import Known, stat_unasked


@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/exe", "/etc", "/etc/passwd"])
def test_it_says_what_stat_says(path: str) -> None:
    found, said = stat_unasked(path), Path(path).stat()
    assert {name: getattr(found, name) for name in Known.__slots__} == {
        name: getattr(said, name) for name in Known.__slots__
    }


def test_what_is_not_there_and_what_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stat_unasked(str(tmp_path / "none"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert stat_unasked(str(pipe)).st_mode == pipe.stat().st_mode
