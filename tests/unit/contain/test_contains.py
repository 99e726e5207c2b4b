from __future__ import annotations

import pytest

from killswitch.contain.protected import contains


@pytest.mark.parametrize(
    ("outer", "inner", "holds"),
    [
        ("/", "/", True),
        ("/", "/a", True),
        ("/a", "/a", True),
        ("/a", "/a/b", True),
        ("/a", "/ab", False),
        ("/a/b", "/a", False),
        ("/a", "/", False),
    ],
)
def test_a_cgroup_holds_itself_and_what_is_below(outer: str, inner: str, holds: bool) -> None:
    assert contains(outer, inner) is holds
