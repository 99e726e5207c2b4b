"""docs/writing-policies.md: every example holds, every error shown is the one that comes out, every field is listed."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from killswitch.commands import Level, Response
from killswitch.policy import catalogue, fields
from killswitch.policy.check import check_text
from killswitch.policy.load import load_text
from killswitch.policy.schema import EVENTS, POLICY, RULE
from killswitch.policy.values import MODIFIERS

DOC = Path(__file__).parents[3] / "docs" / "writing-policies.md"
BLOCKS = re.findall(r"^```(\w+)( broken)?\n(.*?)^```$", DOC.read_text(), re.DOTALL | re.MULTILINE)
HEADER = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {name: example, version: 1}
workloads:
  - cgroup: /example/**
mode: monitor
rules:
"""


def whole(block: str) -> str:
    return block if "apiVersion" in block else HEADER + textwrap.indent(block, "  ")


@pytest.mark.parametrize("block", [text for kind, broken, text in BLOCKS if kind == "yaml" and not broken])
def test_every_example_is_sound_and_tests_itself_both_ways(block: str) -> None:
    assert check_text(whole(block), "example.yaml") == []
    for rule in load_text(whole(block), "example.yaml").rules:
        assert {t.match for t in rule.tests} == {True, False}


def test_the_errors_shown_are_those_that_come_out() -> None:
    (broken,) = [text for kind, broken, text in BLOCKS if kind == "yaml" and broken]
    (shown,) = [text for kind, _, text in BLOCKS if kind == "text"]
    assert "\n".join(map(str, check_text(broken, "example.yaml"))) + "\n" == shown


def test_every_field_is_listed_with_its_events() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| (.*?) \|", DOC.read_text(), re.MULTILINE))
    for name, kind in catalogue.FIELDS.items():
        said = set(EVENTS) - {"finding"} if rows[name] == "every" else set(rows[name].split(", "))
        assert said == kind.events, name
        assert fields.FIELDS[name].description in DOC.read_text(), name


@pytest.mark.parametrize("word", [*POLICY.keys, *RULE.keys, *EVENTS, *MODIFIERS, *map(str, Level), *map(str, Response)])
def test_every_word_of_the_language_is_told(word: str) -> None:
    assert f"`{word}`" in DOC.read_text() or f"{word}:" in DOC.read_text()
