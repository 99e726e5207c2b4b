from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.cli.session import Session


def test_the_more_powerful_socket_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILLSWITCH_RUNTIME_DIR", str(tmp_path))
    admin, view = tmp_path / "admin.sock", tmp_path / "view.sock"
    assert Session().path() == admin
    view.touch()
    assert Session().path() == view
    admin.touch()
    assert Session().path() == admin


def test_the_socket_that_was_asked_for_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILLSWITCH_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "admin.sock").touch()
    assert Session(socket=tmp_path / "other.sock").path() == tmp_path / "other.sock"
