"""The corpus can be read, says what it has to, and a mistake in it is told by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.eval.model import CorpusError, choose, load, read

GOOD = """
class: mining
seconds: 9
cases:
  - {id: a-case, title: t, run: 'true', goal: {logins: 1}, evidence: [wire], disguises: name}
  - {id: b-case, class: tunnel, title: t, run: 'true', goal: {listens: 19000}, evidence: [wire]}
"""


def put(directory: Path, text: str, label: str = "malicious") -> Path:
    file = directory / label / "x.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_defaults_of_a_file_hold_for_its_cases(tmp_path: Path) -> None:
    a, b = read(put(tmp_path, GOOD), malicious=True)
    assert (a.kind, b.kind, a.seconds, a.disguises) == ("mining", "tunnel", 9, ("name",))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("goal: {logins: 1}", "gaol: {logins: 1}"), "no key is called gaol"),
        (("goal: {logins: 1}", "goal: {coins: 1}"), "no goal is called coins"),
        (("goal: {logins: 1}, ", ""), "needs a 'goal'"),
        (("evidence: [wire], dis", "evidence: [smell], dis"), "no evidence 'smell'"),
        (("class: mining", "class: knitting"), "class 'knitting'"),
        (("id: a-case", "id: A Case"), "id 'A Case'"),
        (("run: 'true', goal: {logins", "goal: {logins"), "needs a text 'run'"),
        (("disguises: name", "files: {../x: y}"), "must lie below"),
        (("cases:", "things:"), "a list 'cases'"),
        (("cases:", "cases: ["), "is not YAML"),
    ],
)
def test_a_mistake_is_told_by_name(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(CorpusError, match=told):
        read(put(tmp_path, GOOD.replace(*change, 1)), malicious=True)


def test_two_cases_of_one_id(tmp_path: Path) -> None:
    put(tmp_path, GOOD)
    put(tmp_path, "cases: [{id: a-case, class: build, title: t, run: 'true'}]", "innocent")
    with pytest.raises(CorpusError, match="a-case: there are two"):
        load(tmp_path)


def test_choosing(tmp_path: Path) -> None:
    put(tmp_path, GOOD)
    put(tmp_path, "cases: [{id: c-case, class: build, title: t, run: 'true', quick: true}]", "innocent")
    cases = load(tmp_path)
    assert [c.id for c in choose(cases, kinds=["tunnel", "innocent"])] == ["b-case", "c-case"]
    assert [c.id for c in choose(cases, ids=["[ab]-case"])] == ["a-case", "b-case"]
    assert [c.id for c in choose(cases, quick=True)] == ["c-case"]
    with pytest.raises(CorpusError, match="class 'tunel'"):
        choose(cases, kinds=["tunel"])
    with pytest.raises(CorpusError, match="called 'z\\*'"):
        choose(cases, ids=["z*"])


def test_the_shipped_corpus_is_read() -> None:
    cases = load()
    assert {c.label for c in cases} == {"malicious", "innocent"}
    assert any(c.quick and c.malicious for c in cases) and any(c.quick and not c.malicious for c in cases)
