"""The house's import rule: a row imports only the rows above it. Read from the source, so that no import can hide in a function.

events (with machinecode, facts), commands, errors → config → policy → detect → engine → kernel → contain, ledger → control →
daemon → cli
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import killswitch

ROOT = Path(killswitch.__file__).parent
WORDS = {"events", "machinecode", "facts", "commands", "errors", "hostallow"}
# Each part, and all that it may import of ours. A part that is not here fails the test: give it its place.
MAY = {
    "machinecode": set(),
    "events": {"machinecode"},
    "facts": {"events"},
    "commands": {"events"},
    "errors": set(),
    "hostallow": set(),
    "config": {"errors", "hostallow"},
    "policy": WORDS,
    "detect": WORDS | {"policy"},
    "engine": WORDS | {"policy", "detect"},
    "kernel": WORDS,
    "contain": WORDS | {"kernel"},
    "ledger": WORDS,
    "v1": {"v1"},
    "control": WORDS | {"policy", "v1"},
    "daemon": WORDS | {"config", "policy", "detect", "engine", "kernel", "contain", "ledger", "control"},
    "cli": WORDS | {"config", "policy", "control.client", "control.service"},
    "__main__": {"cli"},
    "_build": set(),
}
# "killswitch daemon" has to start it; the rest of the command line reaches it through gRPC alone.
# What "killswitch policy replay" does needs no daemon: the engine judges recorded events.
EXCEPTIONS = {("cli/daemon.py", "daemon"), ("cli/replay.py", "engine")}
GRPC = {"grpc", "grpc_health", "grpc_reflection", "grpc_status", "google"}
# The core has no clock and makes no system call of its own: it cannot reach for these.
OUTSIDE_WORLD = {
    "asyncio", "ctypes", "fcntl", "io", "mmap", "multiprocessing", "os", "pathlib", "random", "select", "signal", "socket",
    "subprocess", "sys", "tempfile", "threading", "time",
}  # fmt: skip

Import = tuple[int, str]  # (line, dotted module)


def imports(source: str, package: str) -> Iterator[Import]:
    """All imports in a file of the package with this dotted name, also those in functions and under ``if``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            # ``from killswitch import config`` and ``from killswitch.control import client`` name modules, too
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name | ast.Attribute)
            and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr) in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def violations(path: str, source: str) -> list[str]:
    """``path`` is below the package, "cli/main.py"."""
    part = path.split("/")[0].removesuffix(".py")
    if part == "__init__":
        allowed: set[str] = set()
    elif part not in MAY:
        return [f"killswitch/{path}: no row is called {part!r}; give it its place in MAY of {Path(__file__).name}"]
    else:
        allowed = MAY[part] | {part}
    package = ".".join(["killswitch", *path.split("/")[:-1]])
    found = []
    for line, module in imports(source, package):
        top, _, rest = module.partition(".")
        if top == "killswitch":
            target = rest.split(".")[0]
            ours = target in MAY
            inside = any(rest == a or rest.startswith(f"{a}.") for a in allowed)
            if ours and not inside and (path, target) not in EXCEPTIONS:
                found.append(f"killswitch/{path}:{line}: {part} must not import {module}")
        elif top in GRPC and part not in ("control", "v1"):
            found.append(f"killswitch/{path}:{line}: only control imports {top}")
        elif top in OUTSIDE_WORLD and part in ("detect", "engine"):
            found.append(f"killswitch/{path}:{line}: {part} is sans-io, and must not import {top}")
    return found


def test_every_import_goes_up() -> None:
    files = [p for p in ROOT.rglob("*.py") if "__pycache__" not in p.parts]
    assert len(files) > 30
    found = [v for p in files for v in violations(str(p.relative_to(ROOT)), p.read_text())]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("policy/x.py", "from killswitch.engine import Engine"),
        ("policy/x.py", "def f():\n    from killswitch import engine"),
        ("detect/x.py", "import killswitch.kernel.procfs"),
        ("kernel/x.py", "from killswitch.policy.load import load_files"),
        ("kernel/x.py", "from ..policy import load"),
        ("ledger/x.py", "from killswitch.contain.switch import Switch"),
        ("contain/x.py", "from killswitch import ledger"),
        ("daemon/x.py", "from killswitch.cli.main import main"),
        ("cli/x.py", "from killswitch.control.server import serve"),
        ("cli/x.py", "from killswitch.kernel import procfs"),
        ("cli/x.py", "from killswitch.daemon import main"),
        ("cli/x.py", "import grpc.aio"),
        ("daemon/x.py", "import grpc"),
        ("engine.py", "import time"),
        ("detect/x.py", "from os import path"),
        ("events.py", "from killswitch.commands import Command"),
        ("cli/x.py", "import importlib\nimportlib.import_module('killswitch.kernel.procfs')"),
        ("newcomer.py", ""),
    ],
)
def test_the_rule_has_teeth(path: str, source: str) -> None:
    assert violations(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cli/daemon.py", "from killswitch.daemon import main"),
        ("cli/x.py", "from killswitch.control.client import Client\nfrom killswitch import __version__"),
        ("cli/x.py", "from killswitch.control.service import EventFilter"),
        ("control/x.py", "import grpc.aio\nfrom killswitch.v1 import types_pb2"),
        ("engine.py", "from killswitch.detect.load import LoadTable\nfrom collections import deque"),
        ("kernel/x.py", "import os\nfrom . import maps\nfrom .maps import Map"),
    ],
)
def test_what_goes_up_is_allowed(path: str, source: str) -> None:
    assert not violations(path, source)
