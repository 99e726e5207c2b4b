from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from killswitch.contain.folder import Folder, incident_folder, sweep
from killswitch.contain.model import StepFailed


def test_folders_and_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = Folder(incident_folder(tmp_path / "evidence", "inc-1"))
    folder.write("executables/x", [b"abc", b"def"])
    assert (tmp_path / "evidence").stat().st_mode & 0o777 == 0o700
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (folder.path / "executables").stat().st_mode & 0o777 == 0o700
    assert (folder.path / "executables/x").stat().st_mode & 0o777 == 0o600


def test_the_list_has_each_files_hash_and_size(tmp_path: Path) -> None:
    folder = Folder(incident_folder(tmp_path, "inc-1"))
    digest = folder.write("a", [b"abc", b"def"])
    assert digest == hashlib.sha256(b"abcdef").hexdigest()
    assert folder.files == {"a": {"sha256": digest, "bytes": 6}}


def test_a_second_capture_of_an_incident_goes_beside_the_first(tmp_path: Path) -> None:
    folders = [incident_folder(tmp_path, "inc-1") for _ in range(3)]
    assert [f.relative_to(tmp_path).as_posix() for f in folders] == ["inc-1", "inc-1/2", "inc-1/3"]


@pytest.mark.parametrize("name", ["", "..", "../../etc", "a/b", ".hidden", "a" * 200, "inc\n1"])
def test_an_incident_that_is_no_plain_name_makes_no_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="cannot name a folder"):
        incident_folder(tmp_path / "evidence", name)
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_text_survive_as_json(tmp_path: Path) -> None:
    folder = Folder(incident_folder(tmp_path, "inc-1"))
    name = b"\xff\xfe\x1b[2J".decode("utf-8", "surrogateescape")
    folder.write_json("a.json", {"name": name})
    raw = (folder.path / "a.json").read_bytes()
    assert raw.isascii() and b"\x1b" not in raw
    assert json.loads(raw)["name"] == name


def test_what_fails_half_way_leaves_no_file(tmp_path: Path) -> None:
    folder = Folder(incident_folder(tmp_path, "inc-1"))

    def broken() -> object:
        yield b"first"
        raise OSError(5, "Input/output error")

    with pytest.raises(StepFailed, match="cannot be written"):
        folder.write("a", broken())  # type: ignore[arg-type]
    assert list(folder.path.iterdir()) == [] and folder.files == {}


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    folder = Folder(incident_folder(tmp_path, "inc-1"))
    target = tmp_path / "target"
    target.write_text("precious")
    (folder.path / "a.partial").symlink_to(target)
    with pytest.raises(StepFailed):
        folder.write("a", [b"x"])
    assert target.read_text() == "precious"


def test_what_was_being_written_when_it_was_cut_short_is_swept_up(tmp_path: Path) -> None:
    old, new, whole = (tmp_path / "inc-1" / name for name in ("a.partial", "2/executables/b.partial", "c.json"))
    new.parent.mkdir(parents=True)
    for file in (old, new, whole):
        file.write_text("x")
        os.utime(file, (1000, 1000))
    os.utime(new, (3000, 3000))
    assert sweep(tmp_path, 2000) == 1
    assert not old.exists() and new.exists() and whole.exists()
    assert sweep(tmp_path / "none", 2000) == 0
