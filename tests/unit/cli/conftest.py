"""A scripted daemon behind the real control server, and the command, called as a user would."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli.main import cli
from tests.unit.cli.house import House, Served

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="ks-test-") as runtime:
        running = Served(House(), Path(runtime))
        yield running
        running.stop()


@pytest.fixture
def house(served: Served) -> House:
    """A fresh one for each test, behind the same server."""
    served.house.__init__()  # type: ignore[misc]
    return served.house


@pytest.fixture
def call(served: Served, monkeypatch: pytest.MonkeyPatch) -> Call:
    """``call("status", "-o", "json")``: exit code, stdout and stderr of the command."""
    monkeypatch.setenv("KILLSWITCH_RUNTIME_DIR", str(served.runtime))
    monkeypatch.delenv("KILLSWITCH_SOCKET", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)

    def invoke(*arguments: str, **environment: str) -> Result:
        result = CliRunner().invoke(cli, arguments, env=environment, prog_name="killswitch")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
