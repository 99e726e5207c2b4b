"""Policies are compiled in a process of their own while the daemon has other things to do.

It takes most of a second of CPU time, and on a small or busy host many. In a thread of ours that would be in the interpreter
whose lock every order and every event needs, and in the real-time class. The process has an interpreter of its own, is an
ordinary one, and takes the memory that it needs with it when it ends. Where it cannot be had, a thread that stands back does
it: slower for everybody, but done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pickle
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from killswitch.daemon import policyset
from killswitch.daemon.workers import Workers
from killswitch.errors import ConfigError, PolicyError, Problem, TimedOut
from killswitch.kernel import scheduling
from killswitch.policy.compiled import Compiled

T = TypeVar("T")

log = logging.getLogger("killswitch.policy")

SECONDS = 300.0  # a virtual machine without hardware support takes half a minute
NICE = -10  # an operator waits for it; but it is nobody's kill switch
EXPENDABLE = "500"  # of ``oom_score_adj``: where memory runs out, it ends and the daemon does not
MEND = "see that their files can be read, and that the host has memory and CPU time left"
OTHER_CODE = 3  # exit status: killswitch was upgraded, and a daemon of the older release asks
_BOOT = """\
import json, sys
asked = json.load(sys.stdin)
sys.path[:] = asked["path"]
from killswitch.daemon import compiling
compiling.answer(asked)
"""


def _release() -> str:
    """What the code is that policies are compiled by: what one process has compiled, another of the same code can take."""
    package = Path(__file__).parents[1]
    found = []
    for path in sorted([*package.glob("*.py"), *package.glob("policy/*.py"), Path(__file__), Path(policyset.__file__)]):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append([path.name, status.st_mtime_ns, status.st_size])
    return json.dumps([platform.python_version(), found])


RELEASE = _release()


class Compiler:
    """For the event loop. It works on one at a time."""

    def __init__(self) -> None:
        self._threads = Workers("policies", 1)

    async def compile(self, files: Sequence[Path], generation: int) -> Compiled:
        """As ``policyset.compile_files``. Raises PolicyError; TimedOut, or ConfigError where the process was killed."""
        try:
            made = await _apart(files, generation)
        except (OSError, _Unfit) as e:
            log.warning("policies are compiled by the daemon itself, in no process of their own: %s", e)
            return await self._run(lambda: policyset.compile_files(files, generation))
        found = await self._run(lambda: pickle.loads(made))  # of a child of ours, that runs our own code
        if isinstance(found, Compiled):
            return found
        raise PolicyError(found)

    async def problems_of(self, text: str, file: str) -> tuple[Problem, ...]:
        """As ``policyset.problems_of``."""
        return await self._run(lambda: policyset.problems_of(text, file))

    async def prepare(self, work: Callable[[], None]) -> None:
        """Whatever else takes time before policies can be in force."""
        await self._run(work)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._threads.run(work, SECONDS)
        except TimeoutError as e:
            raise TimedOut(f"policies: {e}; {MEND}") from None


class _Unfit(Exception):
    """The process cannot be had, or is of no use."""


async def _apart(files: Sequence[Path], generation: int) -> bytes:
    """What ``answer`` wrote. Raises OSError, _Unfit, TimedOut, ConfigError."""
    asked = {
        "path": sys.path,
        "release": RELEASE,
        "files": [str(f.absolute()) for f in files],
        "generation": generation,
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _BOOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    scheduling.awaited(child.pid, NICE)
    try:
        async with asyncio.timeout(SECONDS):
            made, said = await child.communicate(json.dumps(asked).encode())
    except TimeoutError:
        raise TimedOut(f"policies: not compiled in {SECONDS:g} s; {MEND}") from None
    finally:
        if child.returncode is None:
            child.kill()
    if child.returncode == OTHER_CODE:
        raise _Unfit("killswitch was upgraded since this daemon has started; restart it")
    if child.returncode is not None and child.returncode < 0:
        raise ConfigError(f"policies: the process that compiles them was killed by signal {-child.returncode}; {MEND}")
    if child.returncode:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise _Unfit(f"the process ended with status {child.returncode}: {last}")
    return made


def answer(asked: Mapping[str, Any]) -> None:
    """In the process: compile what is asked for, and write it (or what is wrong, ``Problem``s) to stdout, pickled."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(EXPENDABLE)
    if asked["release"] != RELEASE:
        sys.exit(OTHER_CODE)
    found: Compiled | list[Problem]
    try:
        found = policyset.compile_files([Path(f) for f in asked["files"]], asked["generation"])
    except PolicyError as e:
        found = e.problems
    sys.stdout.buffer.write(pickle.dumps(found, protocol=5))
