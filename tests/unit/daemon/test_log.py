from __future__ import annotations

import logging

import pytest

from killswitch.daemon import log


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain words", "plain words"),
        ("two\nlines", "two\\x0alines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("not utf-8: \udcff", "not utf-8: \\xff"),
        ("müßig", "müßig"),
        ("right\u202eleft", "right\\u202eleft"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_nothing_a_workload_writes_can_forge_a_line(raw: str, shown: str) -> None:
    assert log.escape(raw) == shown


def test_fields() -> None:
    assert log.fields(a=1, b="two words", c="", d=None, e='say "x"') == 'a=1 b="two words" e="say \\"x\\""'


def test_every_line_has_its_priority(capsys: pytest.CaptureFixture[str]) -> None:
    root, ours = logging.getLogger(), logging.getLogger("killswitch")
    before, levels = root.handlers[:], (root.level, ours.level)
    try:
        log.set_up("info")
        test = logging.getLogger("killswitch.test")
        test.debug("not shown")
        test.warning("evil %s", "x\n<0>forged")
        try:
            raise ValueError("why\x07")
        except ValueError:
            test.exception("failed")
        lines = capsys.readouterr().err.splitlines()
    finally:
        root.handlers[:] = before
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
    assert lines[0] == "<4>evil x\\x0a<0>forged"
    assert lines[1] == "<3>failed"
    assert all(line.startswith("<3>") for line in lines[1:])
    assert lines[-1] == "<3>ValueError: why\\x07"
