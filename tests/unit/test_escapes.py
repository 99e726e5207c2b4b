"""The page about ways out lists what is tried, and what may be open is a thing that `doctor` speaks of."""

from __future__ import annotations

from killswitch.kernel import lsm, probe
from tests.e2e.escapes import ways


def test_the_page_lists_what_is_tried() -> None:
    hint = "python -m tests.e2e.escapes --document"
    assert ways.DOCUMENT.read_text() == ways.document(), hint


def test_every_file_says_what_it_tries_and_as_whom() -> None:
    found = ways.ways()
    assert len(found) >= 40
    assert not [w.file for w in found if not w.what or not w.tried or len(w.what) > 200]
    both = {t.rpartition(" ")[2] for w in found for t in w.tried}
    assert both == {"root", "user"}


def test_what_may_be_open_is_named_by_doctor() -> None:
    rows = {t.name for t in probe._TRIALS} | {s.name for s in lsm.STRENGTHENED}
    assert {n for w in ways.ways() for n in w.named} <= rows
