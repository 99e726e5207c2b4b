"""The list of what is tried, read from the files themselves: one way out a file, its docstring says which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
GROUNDS = {"inside": "run", "loose": "watched"}  # fixture -> what the workload is
JUDGES = ("judge", "judge_leaver")  # their second argument is what doctor calls it
DOCUMENT = HERE.parents[2] / "docs" / "escapes.md"
HEAD = """# Ways out, and what became of them

What a workload may try to get past the kill switch, each for real, in one file of `tests/e2e/escapes/`: while it is free (an
attempt that could not succeed proves nothing), in the middle of being severed and frozen, and severed but running. The far side
counts packets, and none comes after the reply to the kill. `python -m tests.e2e.escapes` runs them all and prints what was seen
on this kernel.

*run*: in what `killswitch run` starts, with its least privilege. *watched*: in a workload that is only watched, where root is the
host's root, with every capability and nothing hidden from it. *named*: not covered, or not by every kernel; `killswitch doctor`
says under that name whether this one covers it, and the README's threat model lists it. This page is made by
`python -m tests.e2e.escapes --document`.

| way out | tried as | file `test_…` | |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Way:
    file: str  # without test_ and .py
    what: str
    tried: tuple[str, ...]  # "run root", "watched user", …
    named: tuple[str, ...]  # what ``doctor`` calls it, where it may be open

    @property
    def row(self) -> str:
        named = "named: " + ", ".join(f"`{n}`" for n in self.named) if self.named else ""
        return f"| {self.what} | {', '.join(self.tried)} | {self.file} | {named} |\n"


def ways() -> list[Way]:
    return [_way(path) for path in sorted(HERE.glob("test_*.py"))]


def document() -> str:
    return HEAD + "".join(w.row for w in ways())


def _way(path: Path) -> Way:
    tree = ast.parse(path.read_text())
    what = (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")
    tried = dict.fromkeys(t for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for t in _tried(f))
    return Way(path.stem.removeprefix("test_"), what, tuple(tried), tuple(dict.fromkeys(_named(tree))))


def _tried(function: ast.FunctionDef) -> Iterator[str]:
    if not function.name.startswith("test_"):
        return
    arguments = {a.arg for a in function.args.args}
    body = ast.unparse(function)
    grounds = {GROUNDS[a] for a in arguments & GROUNDS.keys()} or {"watched" if "Loose(" in body else "run"}
    one = ["user"] if "'nobody'" in body else ["root"]
    users = ["root", "user"] if "user" in arguments else one
    for ground in sorted(grounds):
        yield from (f"{ground} {user}" for user in users)


def _named(tree: ast.Module) -> Iterator[str]:
    """The capabilities by which ``judge`` and its kind are told what holds here."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in JUDGES:
            name = call.args[1]
            assert isinstance(name, ast.Constant) and isinstance(name.value, str)
            yield name.value
