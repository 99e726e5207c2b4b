"""``policy``: check, test, list, explain, reload, and what was recorded put to other policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import human
from killswitch.cli.exits import Exit, complain
from killswitch.cli.output import TABLE, emit, output_option
from killswitch.cli.replay import diff, replay
from killswitch.cli.session import Session, command
from killswitch.errors import PolicyError, Problem, TargetError

if TYPE_CHECKING:
    from killswitch.control.service import PolicyInfo

_FILES = click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.group()
def policy() -> None:
    """Check, test, list, explain, reload, replay and diff policies."""


@policy.command()
@_FILES
@click.option("--live", is_flag=True, help="Ask the running daemon, which may be of another release.")
@output_option
@command
def check(session: Session, files: tuple[Path, ...], live: bool, output: str) -> Exit:
    """Check policy files, all their errors at once. Needs no daemon.

    Each error is one line on stderr: FILE:LINE:COLUMN: what is wrong (how to mend it). A directory stands for the
    *.yaml in it. What checks out compiles too, and its inline tests pass.
    """
    paths = _expand(files)
    problems = _ask_daemon(session, paths) if live else _judge(paths)
    return _verdict(problems, f"{human.plural(len(paths), 'file')}: no problems", output)


@policy.command()
@_FILES
@output_option
@command
def test(session: Session, files: tuple[Path, ...], output: str) -> Exit:
    """Run the inline tests of policy files. Needs no daemon.

    Exit status 1 when a test fails, and when there is none.
    """
    from killswitch.policy.load import load_files

    try:
        loaded = load_files(_expand(files))
    except PolicyError as error:
        return _verdict(error.problems, "", output)
    count = sum(len(rule.tests) for one in loaded for rule in one.rules)
    problems = _judge(_expand(files))
    if not count and not problems:
        complain(f"{', '.join(map(str, files))}: no rule has tests; add 'tests:' to one")
        return Exit.FAILED
    return _verdict(problems, f"{human.plural(count, 'test')} passed", output)


@policy.command("list")
@output_option
@command
def list_(session: Session, output: str) -> None:
    """The policies in force."""
    with session.client() as client:
        loaded = client.policies()
    emit(loaded, output, lambda: _show_policies(loaded))


@policy.command("reload")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit.")
@output_option
@command
def reload_(session: Session, reason: str, output: str) -> None:
    """Load the policy files anew: all of them or, when one is wrong, none."""
    with session.client() as client:
        loaded = client.reload_policies(reason)
    emit(loaded, output, lambda: _show_policies(loaded))


@policy.command()
@click.argument("name", required=False, metavar="[POLICY|RULE]")
@click.option("--tier", is_flag=True, help="Also why a rule is not judged in a lower tier.")
@output_option
@command
def explain(session: Session, name: str | None, tier: bool, output: str) -> None:
    """Where each rule in force is judged, and what it does.

    Tier 1: in the kernel, before the first instruction. Tier 2: in the kernel, on the wire. Tier 3: by the daemon, for
    each event. Tier 4: by the daemon, over time.
    """
    with session.client() as client:
        loaded = client.policies()
    chosen = _choose(loaded, name)
    rows = [{"policy": p.name, "mode": p.mode} | dict(rule) for p, rules in chosen for rule in rules]
    emit(rows, output, lambda: _show_rules(rows, tier=tier))


def _expand(files: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for file in files:
        if file.is_dir():
            inside = sorted(f for f in file.iterdir() if f.suffix in (".yaml", ".yml") and not f.name.startswith("."))
            if not inside:
                raise TargetError(f"{file}: holds no *.yaml")
            found += inside
        elif not file.exists():
            raise TargetError(f"{file}: no such file")
        else:
            found.append(file)
    return found


def _judge(paths: Sequence[Path]) -> Sequence[Problem]:
    """What is wrong with the files: form, compilation, then inline tests."""
    from killswitch.policy.compile import compile_policies
    from killswitch.policy.inline import run_inline_tests
    from killswitch.policy.load import load_files

    try:
        loaded = load_files(paths)
        compiled = compile_policies(loaded)
        for warning in compiled.warnings:
            complain(warning, prefix="warning: ")
        return run_inline_tests(loaded, compiled)
    except PolicyError as error:
        return error.problems


def _ask_daemon(session: Session, paths: Sequence[Path]) -> Sequence[Problem]:
    with session.client() as client:
        return [p for path in paths for p in client.check_policy(_read(path), str(path))]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as e:
        raise TargetError(f"{path}: cannot be read: {e.strerror}") from e


def _verdict(problems: Sequence[Problem], well: str, output: str) -> Exit:
    if output != TABLE:
        emit(problems, output, lambda: None)
    elif not problems:
        click.echo(well)
    for problem in problems:
        complain(str(problem), prefix="")
    return Exit.FAILED if problems else Exit.DONE


def _choose(loaded: Sequence[PolicyInfo], name: str | None) -> list[tuple[PolicyInfo, Sequence[Mapping[str, str]]]]:
    """The policies, or the one policy, or the one rule. Raises TargetError when there is no such thing."""
    if name is None:
        return [(p, p.rules) for p in loaded]
    found: list[tuple[PolicyInfo, Sequence[Mapping[str, str]]]]
    found = [(p, p.rules) for p in loaded if p.name == name]
    found = found or [
        (p, [r for r in p.rules if r["id"] == name]) for p in loaded if any(r["id"] == name for r in p.rules)
    ]
    if found:
        return found
    import difflib

    known = [p.name for p in loaded] + [r["id"] for p in loaded for r in p.rules]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "killswitch policy explain lists them"
    raise TargetError(f"{name!r}: no policy or rule in force is called that; {hint}")


def _show_policies(loaded: Sequence[PolicyInfo]) -> None:
    from rich.text import Text

    from killswitch.cli.screen import Grid, said, show

    if not loaded:
        click.echo("No policies are loaded: nothing is judged. Put one into /etc/killswitch/policies and reload.")
        return
    grid = Grid([("POLICY", 0), (">VERSION", 2), ("MODE", 0), (">RULES", 1), ("WATCHES", 0, 20), ("FILE", 3)])
    for p in loaded:
        mode = Text(p.mode, "bold green" if p.mode == "enforce" else "yellow")
        grid.add(
            said(p.name, "bold"), str(p.version), mode, str(len(p.rules)), said(" ".join(p.workloads)), said(p.file)
        )
    show(grid)


def _show_rules(rows: Sequence[Mapping[str, str]], *, tier: bool) -> None:
    from killswitch.cli.screen import Grid, level, said, show

    if not rows:
        click.echo("No rules are in force.")
        return
    last_column = ("WHY NOT LOWER", 0, 24) if tier else ("TITLE", 5, 24)
    grid = Grid(
        [
            ("RULE", 0),
            (">TIER", 0),
            ("ON", 2),
            ("LEVEL", 1),
            ("RESPONSE", 0, 20),
            ("MODE", 3),
            ("POLICY", 4),
            last_column,
        ]
    )
    for r in rows:
        last = said(r.get("why") or "-") if tier else said(r.get("title", ""))
        grid.add(
            said(r["id"], "bold"),
            str(r.get("tier", "-")),
            said(r.get("on", "")),
            level(r.get("level", "")),
            said(r.get("response", "").replace(",", " ").replace("  ", " ")),
            said(r.get("mode", "")),
            said(r["policy"]),
            last,
        )
    show(grid)


policy.add_command(replay)
policy.add_command(diff)
