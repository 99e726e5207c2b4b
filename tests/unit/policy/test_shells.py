"""Whether a shell or an interpreter is told on its command line what to run."""

from __future__ import annotations

import pytest

from killswitch.policy.shells import reads_program


def asks(line: str, *more: bytes) -> bool:
    args = [word.encode() for word in line.split()]
    return reads_program([args[0].rpartition(b"/")[2], *more], args)


@pytest.mark.parametrize(
    "line",
    [
        "sh", "/bin/sh -i", "-bash", "bash -li", "bash --norc -i", "bash --rcfile x", "bash --rcfile=x -i",
        "bash -s a b", "bash -is", "sh -", "bash -o pipefail", "bash +x", "bash +o vi -i", "bash --", "zsh -f",
        "dash -e", "ksh93", "fish", "busybox sh", "busybox ash -i", "/bin/busybox.static sh", "python3",
        "python3 -u -", "python3 -X dev -", "python3 -Xdev -W error", "python3 -i", "pypy3", "perl", "perl -w",
        "perl -Mstrict -", "perl -I lib", "node", "node -i", "node --require x", "ruby", "php", "lua5.4",
    ],
)  # fmt: skip
def test_the_program_comes_from_standard_input(line: str) -> None:
    assert asks(line)


@pytest.mark.parametrize(
    "line",
    [
        "sh script", "bash -c id", "bash -xec id", "bash -o pipefail script", "bash -- script",
        "bash --rcfile x script", "sh -e build.sh", "python3 x.py", "python3 -m http.server", "python3 -c 1",
        "python3 -uc 1", "python3 -X dev x.py", "perl -e 1", "perl -ne 1", "perl x", "node x.js", "node --eval 1",
        "node -p 1", "node --require x y.js", "ruby -e 1", "php -r 1", "lua x.lua", "busybox nc h 1",
        "busybox sh -c id", "busybox sh x", "git fetch", "ssh host", "rsync -a x y", "publish", "hash",
    ],
)  # fmt: skip
def test_it_does_not(line: str) -> None:
    assert not asks(line)


def test_a_link_is_what_it_was_asked_for_as() -> None:
    assert asks("sh", b"busybox-of-ours")
    assert reads_program([b"python3.11", b"agent"], [b"agent"])


def test_nothing_is_no_command_line() -> None:
    assert reads_program([b"sh"], [])
    assert not reads_program([], [])
    assert not reads_program([b"busybox"], [])
