"""Files as a process of ours sees them: its root, its folder, its descriptors; pipes are not opened, links do not lead out."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.errors import Gone, KernelError
from killswitch.kernel import processfiles
from killswitch.kernel.processfiles import ProcessFiles


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """In a folder of its own, with a pipe as its standard input."""
    child = subprocess.Popen(["/bin/sleep", "60"], cwd=tmp_path, stdin=subprocess.PIPE, env={"HOME": "/h", "A": "b"})
    end = time.monotonic() + 10  # Popen comes back when the exec has begun, which is before it has an environment
    while not processfiles.environment(child.pid, 100) and time.monotonic() < end:
        time.sleep(0.005)
    yield child
    child.kill()
    child.wait()


def test_relative_paths_start_where_the_process_is(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("text")
    with ProcessFiles(process.pid) as files:
        assert files.read(b"in/file", 100) == b"text" == files.read(str(tmp_path / "in/file").encode(), 4)
        assert set(files.names(str(tmp_path / "in").encode())) == {b"file"}
        assert files.exists(b"in") and not files.exists(b"out")
        with pytest.raises(Gone):
            files.read(b"in/other", 100)
        with pytest.raises(KernelError, match="longer than 3 bytes"):
            files.read(b"in/file", 3)


def test_a_pipe_is_not_opened(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ProcessFiles(process.pid) as files:
        for path in (b"pipe", b"/dev/stdin", b"/dev/fd/0", b"/proc/self/fd/0", b"/dev/null", b"."):
            with pytest.raises(KernelError, match="no regular file"):
                files.read(path, 100)
    with pytest.raises(OSError):  # nobody has become its reader
        os.close(os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK))


def test_links_do_not_lead_out_of_its_root(tmp_path: Path) -> None:
    """In a folder as its root, "/" and ".." and an absolute link stay in it; one through /proc leads nowhere."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/file").write_text("inside")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/file").write_text("outside")
    (root / "up").symlink_to("../../etc/file")
    (root / "absolute").symlink_to("/etc/file")
    (root / "magic").symlink_to("/proc/self/root/etc/passwd")
    script = f"import os,sys; os.chroot({str(root)!r}); os.chdir('/etc'); print('x', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(["/usr/bin/python3", "-c", script], **pipes) as child:  # type: ignore[call-overload]
        assert child.stdout.read(1) == b"x"
        with ProcessFiles(child.pid) as files:
            for path in (b"/etc/file", b"file", b"../up", b"/absolute", b"/../../../etc/file"):
                assert files.read(path, 100) == b"inside", path
            with pytest.raises(KernelError):
                files.read(b"/magic", 100)
        child.stdin.close()


def test_who_it_is_and_what_it_began_with(process: subprocess.Popen[bytes]) -> None:
    assert set(processfiles.environment(process.pid, 1000)) == {b"HOME=/h", b"A=b"}
    assert processfiles.own_user(process.pid) == os.getuid()
    other = subprocess.Popen(
        ["/usr/bin/unshare", "-U", "--map-user=77", "/bin/sh", "-c", "echo x; exec sleep 60"], stdout=-1
    )
    try:
        assert other.stdout and other.stdout.read(1) == b"x"
        assert processfiles.own_user(other.pid) == 77
    finally:
        other.kill()
        other.wait()


def test_a_process_that_is_gone_is_gone(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    with pytest.raises(Gone):
        ProcessFiles(process.pid)
