from __future__ import annotations

from pathlib import Path

from killswitch.contain import symbols


def stand_in(folder: Path, body: str) -> Path:
    """A program that is run in Python's place: its answer is what is under test."""
    program = folder / "python3"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return program


def test_a_machine_without_bcc_says_so(tmp_path: Path) -> None:
    bare = stand_in(tmp_path, 'echo "bcc is not there: No module; install python3-bpfcc" >&2; exit 3')
    named, problem = symbols.name(((1, 0x1000, 5),), python=bare)
    assert problem == "functions are not named: bcc is not there: No module; install python3-bpfcc"
    assert named == [symbols.Named(1, 0x1000, 5, "", "")]


def test_a_helper_that_hangs_is_ended(tmp_path: Path) -> None:
    named, problem = symbols.name(((1, 0x1000, 5),), timeout_s=0.2, python=stand_in(tmp_path, "exec sleep 60"))
    assert "timed out" in problem and len(named) == 1


def test_an_answer_that_is_no_json_is_no_answer(tmp_path: Path) -> None:
    _, problem = symbols.name(((1, 0x1000, 5),), python=stand_in(tmp_path, "echo '{'"))
    assert "cannot be read" in problem


def test_too_few_answers_name_nothing(tmp_path: Path) -> None:
    hot = ((1, 0x1000, 5), (1, 0x2000, 6))
    named, problem = symbols.name(hot, python=stand_in(tmp_path, """echo '{"1": [["f", "m"]]}'"""))
    assert "cannot be read" in problem and {n.function for n in named} == {""}


def test_the_hottest_comes_first_and_each_address_is_asked_once(tmp_path: Path) -> None:
    program = stand_in(tmp_path, f"""cat > {tmp_path}/asked; echo '{{"1": [["f+0x1", "m"], ["g", "m"]]}}'""")
    named, problem = symbols.name(((1, 0x20, 1), (1, 0x10, 9), (1, 0x10, 2)), python=program)
    assert problem == ""
    assert [(n.address, n.samples, n.function) for n in named] == [
        (0x10, 9, "f+0x1"),
        (0x10, 2, "f+0x1"),
        (0x20, 1, "g"),
    ]
    assert (tmp_path / "asked").read_text() == '{"1": [16, 32]}'
