"""Globs of ``workloads:``: one subtree, never the host."""

from __future__ import annotations

import pytest

from killswitch.policy.workloads import HOST, glob_pattern, glob_problem


@pytest.mark.parametrize(
    ("glob", "matches", "not_"),
    [
        ("/killswitch/**", ["/killswitch/a", "/killswitch/a/b"], ["/killswitch", "/killswitchx/a", "/", "/x/killswitch/a"]),
        ("/a/*/b/**", ["/a/x/b/c", "/a/x/b/c/d"], ["/a/b/c", "/a/x/y/b/c", "/a/x/b"]),
        ("/a.slice/x-?.service", ["/a.slice/x-1.service"], ["/a.slice/x-10.service", "/aXslice/x-1.service"]),
        ("/a/**/z", ["/a/b/z", "/a/b/c/z"], ["/a/z", "/a/b/z/y"]),
        ("/a", ["/a"], ["/a/b", "/A"]),
    ],
)  # fmt: skip
def test_what_a_glob_matches(glob: str, matches: list[str], not_: list[str]) -> None:
    assert glob_problem(glob) is None
    pattern = glob_pattern(glob)
    assert [p for p in matches if not pattern.fullmatch(p)] == []
    assert [p for p in not_ if pattern.fullmatch(p)] == []


@pytest.mark.parametrize(
    "glob", ["/", "/**", "/*", "/*/**", "/**/*", "/?*", "a/b", "//a", "/a/", "/a/../b", "/./a", "/a**", "/a/**b/c"]
)
def test_what_is_no_workload_is_refused(glob: str) -> None:
    assert glob_problem(glob) is not None


@pytest.mark.parametrize("path", HOST)
def test_no_glob_may_reach_what_holds_the_host_together(path: str) -> None:
    folder, _, name = path.rpartition("/")
    reaching = [
        path,
        f"{folder}/{name[:3]}*",
        f"{folder}/*{name[-5:]}",
        *([f"{folder}/**", f"{folder}/*"] if folder else []),
    ]
    for glob in reaching:
        assert glob_problem(glob) is not None, glob


@pytest.mark.parametrize(
    "glob", ["/system.slice/agent.service", "/user.slice/user-1000.slice/**", "/system.slice/docker-*.scope"]
)
def test_a_service_beside_them_may_be_watched(glob: str) -> None:
    assert glob_problem(glob) is None
