"""Places of the sockets: stale, taken, in the way, too open, too long."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from killswitch.control import sockets
from killswitch.control.client import Client
from killswitch.control.server import ControlServer
from killswitch.errors import ConfigError, Denied, Unreachable
from tests.unit.control.house import House, running


def test_a_socket_that_a_dead_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert not sockets.listening(path)
    with running(tmp_path) as daemon, Client(daemon.admin) as client:
        assert client.status().pid == 7


def test_a_second_daemon_is_refused_and_the_first_is_not_harmed(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        second = ControlServer(House(), admin=first.admin, view=first.view)
        with pytest.raises(ConfigError, match="another daemon listens there"):
            asyncio.run(second.start())
        with Client(first.admin) as client, Client(first.view) as view:
            assert client.status() == view.status()


def test_a_taken_view_socket_leaves_no_admin_socket_behind(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "view.sock"))
        other.listen(1)
        server = ControlServer(House(), admin=tmp_path / "admin.sock", view=tmp_path / "view.sock")
        with pytest.raises(ConfigError, match=r"view\.sock"):
            asyncio.run(server.start())
    assert not (tmp_path / "admin.sock").exists()


def test_a_full_backlog_is_somebody_listening(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.setblocking(False)
        waiting.connect(str(path))  # never accepted
        assert sockets.listening(path)
        with pytest.raises(ConfigError, match="another daemon"):
            sockets.prepare(path)


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is not a socket; remove it"):
        sockets.prepare(path)
    assert path.read_text() == "mine"


def test_a_directory_where_others_write_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod go-w"):
        sockets.prepare(shared / "s")
    shared.chmod(0o1777)  # as /tmp: others may not replace what is ours
    sockets.prepare(shared / "s")


def test_the_directory_is_made_and_a_path_too_long_is_told(tmp_path: Path) -> None:
    sockets.prepare(tmp_path / "run" / "killswitch" / "admin.sock")
    assert stat.S_IMODE((tmp_path / "run" / "killswitch").stat().st_mode) & 0o022 == 0
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        sockets.prepare(tmp_path / ("x" * 108))


def test_a_group_that_is_there_may_connect_and_one_that_is_not_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = grp.getgrgid(os.getgid()).gr_name
    with running(tmp_path, group=own) as daemon:
        assert stat.S_IMODE(daemon.view.stat().st_mode) == 0o660
        assert daemon.view.stat().st_gid == os.getgid()
        assert stat.S_IMODE(daemon.admin.stat().st_mode) == 0o600
    with running(tmp_path, group="ks-test-no-such-group") as daemon:
        assert stat.S_IMODE(daemon.view.stat().st_mode) == 0o600
    assert "groupadd --system ks-test-no-such-group" in caplog.text


def test_making_a_socket_private_leaves_the_umask_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with sockets.private(), socket.socket(socket.AF_UNIX) as made:
            made.bind(str(tmp_path / "s"))
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) & 0o077 == 0
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_the_client_says_what_is_wrong_with_the_socket(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"no such socket.*systemctl start killswitchd"):
        Client(tmp_path / "admin.sock")
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable, match="is not a socket"):
        Client(tmp_path / "file")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    with Client(tmp_path / "dead", timeout=10) as client, pytest.raises(Unreachable, match="systemctl status"):
        client.status()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket away")
def test_the_client_does_not_trust_a_stranger_s_socket(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        os.chown(path, 65534, -1)
        with pytest.raises(Denied, match="belongs to user 65534"):
            Client(path)
