from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from killswitch.kernel.syscalls import Known, stat_cached, stat_unasked


@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/exe", "/etc", "/etc/passwd"])
def test_it_says_what_stat_says(path: str) -> None:
    found, said = stat_unasked(path), Path(path).stat()
    assert {name: getattr(found, name) for name in Known._fields} == {
        name: getattr(said, name) for name in Known._fields
    }


def test_what_is_not_there_and_what_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stat_unasked(str(tmp_path / "none"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert stat_unasked(str(pipe)).st_mode == pipe.stat().st_mode


def cached(path: Path, tries: int = 10_000) -> Known:
    """Whoever mounts or renames at that moment makes the kernel say that it does not know: then it is asked again."""
    for _ in range(tries):
        try:
            return stat_cached(str(path))
        except BlockingIOError:
            continue
        except OSError as e:
            if e.errno in (errno.ENOSYS, errno.EINVAL):
                pytest.skip("this kernel cannot be asked for what it has at hand: it is older than 5.12")
            raise
    raise BlockingIOError(errno.EAGAIN, "not at hand", str(path))


def test_what_was_executed_a_moment_ago_is_at_hand(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    subprocess.run([program], check=True)
    found, said = cached(program), program.stat()
    assert found == Known(*(getattr(said, name) for name in Known._fields))


def test_nobody_is_asked_for_what_is_not_at_hand(tmp_path: Path) -> None:
    cached(tmp_path)
    for path in (tmp_path / "never looked for", Path("/proc/self/exe/nothing")):
        with pytest.raises((BlockingIOError, NotADirectoryError)):
            cached(path, tries=1)
