"""A case of the corpus, and how one is read from YAML. Pure but for reading files.

A file of the corpus is a mapping: ``cases:`` (a list), and anything else is a default for each case of the file. Whether a
case is malicious is said by the directory that its file lies in. ``docs/evaluation.md`` explains every key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

CORPUS = Path(__file__).parent / "corpus"
SHARED = CORPUS / "shared"
EVIDENCE = ("name", "arguments", "wire", "behaviour")
MALICIOUS = ("mining", "hashing", "tunnel", "probing", "disguise", "persistence")
GOALS = ("logins", "shares", "shells", "relayed", "listens", "reached", "questions", "cpu", "output", "received")
ID = re.compile(r"[a-z0-9][a-z0-9-]{1,60}")


class CorpusError(Exception):
    """A file of the corpus cannot be used: names file, case, cause and mend."""


@dataclass(frozen=True, slots=True)
class Case:
    id: str
    malicious: bool
    kind: str  # YAML ``class``: one of MALICIOUS; of an innocent any word (build, git, database, …)
    title: str
    run: str  # a bash script (``set -eu``), the workload; $PWD is a fresh directory, $HOME (and /root) its ``home``
    setup: str = ""  # the same, before it and not watched: compile, copy, make keys and data
    far: str = (
        ""  # the same, at the far side's end of the network and not watched: a server, killed when the case is over
    )
    seconds: float = 30.0  # what it is given; an innocent that takes longer is broken
    disguises: tuple[str, ...] = ()  # which kinds of evidence it hides, of EVIDENCE
    evidence: tuple[str, ...] = ()  # which kinds should catch it, of EVIDENCE
    debian: tuple[str, ...] = ()  # packages
    pypi: tuple[str, ...] = ()
    standins: tuple[str, ...] = ()  # programs of tests/rig/programs, put into the directory under their own names
    shared: tuple[str, ...] = ()  # files of corpus/shared, put into the directory
    files: Mapping[str, str] = field(default_factory=dict)  # path below the directory -> text; "#!" makes it executable
    names: Mapping[str, str] = field(default_factory=dict)  # further DNS names -> address or service
    goal: Mapping[str, int | str] = field(default_factory=dict)  # what a malicious case attains when nobody stops it
    status: int = 0  # how an innocent has to end
    output: tuple[str, ...] = ()  # what has to stand in an innocent's standard output, each
    start: str = "cgroup"  # or "run": by the ``killswitch run`` command, without the privileges that it takes away
    cores: int = 0  # CPUs that it keeps busy: so many less for what runs beside it
    quick: bool = False  # one of the few that ``--quick`` runs
    escapes: str = ""  # why it is known to escape today; reported, and counted as an escape

    @property
    def label(self) -> str:
        return "malicious" if self.malicious else "innocent"


_KEYS = {"class": "kind", **{f.name: f.name for f in fields(Case) if f.name not in ("kind", "malicious")}}
_LISTS = ("disguises", "evidence", "debian", "pypi", "standins", "shared", "output")


def load(directory: Path = CORPUS) -> tuple[Case, ...]:
    """Every case of the corpus, malicious ones first. Raises CorpusError."""
    found: list[Case] = []
    for label in ("malicious", "innocent"):
        for file in sorted((directory / label).glob("*.yaml")):
            found += read(file, malicious=label == "malicious")
    seen: set[str] = set()
    for case in found:
        if case.id in seen:
            raise CorpusError(f"case {case.id}: there are two of that id; rename one")
        seen.add(case.id)
    return tuple(found)


def read(file: Path, *, malicious: bool) -> list[Case]:
    """The cases of one file. Raises CorpusError."""
    try:
        document = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise CorpusError(f"{file}: is not YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("cases"), list):
        raise CorpusError(f"{file}: must be a mapping with a list 'cases'")
    defaults = {k: v for k, v in document.items() if k != "cases"}
    cases = []
    for entry in document["cases"]:
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not ID.fullmatch(name):
            raise CorpusError(f"{file}: id {name!r}: each case needs one, of small letters, digits and '-'")
        cases.append(_case(f"{file}: {name}", {**defaults, **entry}, malicious))
    return cases


def _case(where: str, given: Mapping[str, Any], malicious: bool) -> Case:
    if unknown := sorted(given.keys() - _KEYS.keys()):
        raise CorpusError(f"{where}: no key is called {', '.join(unknown)}; there are {', '.join(sorted(_KEYS))}")
    for key in ("class", "title", "run"):
        if not given.get(key) or not isinstance(given[key], str):
            raise CorpusError(f"{where}: needs a text '{key}'")
    values: dict[str, Any] = {_KEYS[k]: v for k, v in given.items()}
    for key in _LISTS:
        value = values.get(key, ())
        values[key] = (value,) if isinstance(value, str) else tuple(str(v) for v in value)
    values["files"] = {str(k): str(v) for k, v in (values.get("files") or {}).items()}
    values["names"] = {str(k): str(v) for k, v in (values.get("names") or {}).items()}
    case = Case(malicious=malicious, **values)
    _check(where, case)
    return case


def _check(where: str, case: Case) -> None:
    for kind in (*case.disguises, *case.evidence):
        if kind not in EVIDENCE:
            raise CorpusError(f"{where}: there is no evidence {kind!r}; kinds are {', '.join(EVIDENCE)}")
    if unknown := sorted(case.goal.keys() - set(GOALS)):
        raise CorpusError(f"{where}: no goal is called {', '.join(unknown)}; there are {', '.join(GOALS)}")
    if case.malicious and case.kind not in MALICIOUS:
        raise CorpusError(f"{where}: class {case.kind!r}: malicious cases are {', '.join(MALICIOUS)}")
    if case.malicious and not case.goal:
        raise CorpusError(f"{where}: needs a 'goal': what shows that the attack works when nobody stops it")
    if case.malicious and not case.evidence:
        raise CorpusError(f"{where}: needs 'evidence': which kinds should catch it")
    if case.start not in ("cgroup", "run"):
        raise CorpusError(f"{where}: start {case.start!r}: must be cgroup or run")
    for name in case.shared:
        if not (SHARED / name).is_file():
            raise CorpusError(f"{where}: shared file {name!r}: there is none in {SHARED}")
    for path in case.files:
        if path.startswith("/") or ".." in Path(path).parts:
            raise CorpusError(f"{where}: file {path!r}: must lie below the case's directory")


def choose(
    cases: Iterable[Case], *, kinds: Iterable[str] = (), ids: Iterable[str] = (), quick: bool = False
) -> list[Case]:
    """Those of these classes (or labels) and ids (shell globs); none given means all. Raises CorpusError for an unknown one."""
    cases, kinds, ids = list(cases), list(kinds), list(ids)
    for word in kinds:
        if not any(word in (c.kind, c.label) for c in cases):
            raise CorpusError(f"no case is of class {word!r}; there are {', '.join(sorted({c.kind for c in cases}))}")
    for glob in ids:
        if not any(fnmatchcase(c.id, glob) for c in cases):
            raise CorpusError(f"no case is called {glob!r}")
    return [
        c
        for c in cases
        if (not kinds or c.kind in kinds or c.label in kinds)
        and (not ids or any(fnmatchcase(c.id, g) for g in ids))
        and (not quick or c.quick)
    ]
