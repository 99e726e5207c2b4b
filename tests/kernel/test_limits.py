from __future__ import annotations

import subprocess
import sys

import pytest

LOWERED = """
import os, resource, sys
from killswitch.errors import KernelError
from killswitch.kernel.limits import OwnLimits

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
own = OwnLimits()
assert own.put_back() == []
resource.setrlimit(resource.RLIMIT_NOFILE, (150, 200))
assert own.put_back() == [], "more than it had"
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 200))
resource.setrlimit(resource.RLIMIT_CORE, (0, 1 << 20))
if sys.argv[1] == "bounded":
    resource.setrlimit(resource.RLIMIT_NOFILE, (20, 50))
    import ctypes
    os.setgroups([]); os.setresuid(65534, 65534, 65534)
try:
    print(*own.put_back(), sep="\\n")
except KernelError as e:
    print(e)
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize("bounded", [False, True])
def test_what_was_lowered_is_put_back_or_said(bounded: bool) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))" + LOWERED
    said = subprocess.run(
        [sys.executable, "-c", code, "bounded" if bounded else ""], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if bounded:
        assert "put back RLIMIT_" in said[0] and "CAP_SYS_RESOURCE" in said[0]
        assert said[-1] == "(20, 50)"
    else:
        assert set(said[:-1]) == {"RLIMIT_NOFILE 3/200 (was 100/200)", "RLIMIT_CORE 0/1048576 (was 1048576/1048576)"}
        assert said[-1] == "(100, 200)"
