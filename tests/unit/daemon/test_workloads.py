from __future__ import annotations

import pytest

from killswitch.daemon.workloads import Workloads
from killswitch.errors import TargetError


def test_found_by_name_id_and_path() -> None:
    all_of_them = Workloads()
    w = all_of_them.add(7, "/agents/a", (0, 2), name="alpha")
    assert all_of_them.named("alpha") is w
    assert all_of_them.get(7) is w
    assert all_of_them.at("/agents/a") is w
    assert all_of_them.holding("/agents/a/deep/er") is w
    assert all_of_them.holding("/agents/ab") is None
    assert all_of_them.holding("/") is None
    assert w.mask == 0b101


def test_named_after_the_cgroup_unless_that_is_taken_or_ambiguous() -> None:
    all_of_them = Workloads()
    assert all_of_them.add(1, "/a/job", ()).name == "job"
    assert all_of_them.add(2, "/b/job", ()).name == "b:job"
    assert all_of_them.add(3, "/c/4711", ()).name == "c:4711"
    assert all_of_them.add(4, "/host", ()).name != "host"


def test_same_cgroup_again_keeps_its_name_and_takes_the_policies() -> None:
    all_of_them = Workloads()
    first = all_of_them.add(1, "/a", (), name="x", explicit=True)
    again = all_of_them.add(1, "/a", (3,), explicit=False)
    assert again is first
    assert (again.name, again.policies, again.explicit) == ("x", (3,), True)


def test_cgroup_made_anew_at_the_same_path_is_another_workload() -> None:
    all_of_them = Workloads()
    all_of_them.add(1, "/a", ())
    new = all_of_them.add(2, "/a", ())
    assert [w.id for w in all_of_them] == [2]
    assert all_of_them.at("/a") is new
    assert all_of_them.remove(1) is None


@pytest.mark.parametrize("name", ["", "12", "host", "pid:4", "a/b", "a\nb"])
def test_names_that_would_be_another_kind_of_target(name: str) -> None:
    with pytest.raises(TargetError):
        Workloads().check_name(name, "/x")


def test_name_of_another_workload_is_refused_and_its_own_is_not() -> None:
    all_of_them = Workloads()
    all_of_them.add(1, "/a", (), name="x")
    with pytest.raises(TargetError, match="/a has it already"):
        all_of_them.check_name("x", "/b")
    all_of_them.check_name("x", "/a")


def test_rename() -> None:
    all_of_them = Workloads()
    w = all_of_them.add(1, "/a", (), name="x")
    all_of_them.rename(w, "y")
    assert all_of_them.named("x") is None
    assert all_of_them.named("y") is w


def test_suggests_what_was_meant() -> None:
    all_of_them = Workloads()
    assert all_of_them.suggest("x") == "nothing is watched"
    all_of_them.add(1, "/a", (), name="trainer")
    assert all_of_them.suggest("trainre") == "did you mean trainer?"
