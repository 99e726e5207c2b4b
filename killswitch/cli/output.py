"""``-o table|json|yaml``: the one place where results are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from killswitch.cli.plain import plain

F = TypeVar("F", bound=Callable[..., Any])
TABLE, JSON, YAML = "table", "json", "yaml"


def output_option(command: F) -> F:
    """Adds ``-o/--output`` as the parameter ``output``."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice([TABLE, JSON, YAML]),
        default=TABLE,
        show_default=True,
        help="How to print the answer.",
    )(command)


def emit(value: Any, output: str, table: Callable[[], None]) -> None:
    """Print ``value`` (dataclasses, mappings, sequences) as JSON or YAML, or call ``table``."""
    if output == JSON:
        click.echo(_json(plain(value), indent=2))
    elif output == YAML:
        click.echo(_yaml(plain(value)), nl=False)
    else:
        table()


def emit_item(value: Any, output: str, line: Callable[[], None]) -> None:
    """One element of a stream: an object a line (JSON), a document (YAML), or what ``line`` prints. Flushed."""
    if output == JSON:
        click.echo(_json(plain(value)))
    elif output == YAML:
        click.echo("---\n" + _yaml(plain(value)), nl=False)
    else:
        line()
    sys.stdout.flush()


def _json(value: Any, indent: int | None = None) -> str:
    # ASCII alone, and DEL escaped: what a workload chose cannot steer a terminal from inside a JSON string either.
    return json.dumps(value, indent=indent, ensure_ascii=True, allow_nan=False).replace("\x7f", "\\u007f")


def _yaml(value: Any) -> str:
    import yaml

    text: str = yaml.dump(value, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, width=4096)
    return text
