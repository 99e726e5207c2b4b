from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.config import SHIPPED_POLICIES, Config, load
from killswitch.daemon.spending import configured
from killswitch.errors import ConfigError
from killswitch.policy.limits import Limits


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return file


def problems(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as e:
        load(write(tmp_path, text), environ or {})
    return str(e.value).splitlines()


def test_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, "# nothing\n"), {}) == Config()


def test_file_sets_and_environment_wins(tmp_path: Path) -> None:
    file = write(tmp_path, "state_dir: /a/state\nruntime_dir: /a/run/../run2\nlog_level: debug\nreconcile_seconds: 5\n")
    config = load(file, {"KILLSWITCH_STATE_DIR": "/b/state", "KILLSWITCH_POLICY_DIR": "/p:/q"})
    assert config.state_dir == Path("/b/state")
    assert config.runtime_dir == Path("/a/run2")
    assert config.admin_socket == Path("/a/run2/admin.sock")
    assert config.policy_dirs == (Path("/p"), Path("/q"))
    assert (config.log_level, config.reconcile_seconds) == ("debug", 5.0)


def test_config_file_named_by_environment(tmp_path: Path) -> None:
    file = write(tmp_path, "cgroup_parent: /elsewhere\n")
    assert load(None, {"KILLSWITCH_CONFIG": str(file)}).cgroup_parent == "/elsewhere"


def test_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "absent.yaml", {})


def test_all_problems_at_once_each_with_its_place(tmp_path: Path) -> None:
    text = "state_dirr: /x\nlog_level: loud\ncgroup_parent: /\nstate_dir: here\nstate_dir: /y\nruntime_dir: {a: b}\n"
    found = problems(tmp_path, text, {"KILLSWITCH_PIN_DIR": "relative"})
    file = tmp_path / "config.yaml"
    assert found[0] == f"{file}:1:1: unknown setting 'state_dirr' (did you mean state_dir?)"
    assert found[1].startswith(f"{file}:2:12: log_level must be one of")
    assert found[2].startswith(f"{file}:3:16: cgroup_parent must not be the root")
    assert found[3].startswith(f"{file}:4:12: state_dir must be an absolute path")
    assert found[4].startswith(f"{file}:6:14: runtime_dir must be a plain value")
    assert found[5].startswith("environment: KILLSWITCH_PIN_DIR=relative: must be an absolute path")
    assert len(found) == 6


def test_set_twice(tmp_path: Path) -> None:
    assert "set twice" in problems(tmp_path, "log_level: info\nlog_level: debug\n")[0]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("a: [1, 2", "is not YAML"),
        ("- a\n- b\n", "must be a mapping"),
        ("\tlog_level: info\n", "is not YAML"),
        ("cgroup_parent: /sys/fs/cgroup/x\n", "below the cgroup v2 root"),
        ("reconcile_seconds: 0\n", "from 0.1 to 3600"),
        ("selftest_every: 5s\n", "'off', or a time from 10s to 7d"),
        ("selftest_every: 3600\n", "'off', or a time from 10s to 7d"),
        ("selftest_every: 8d\n", "'off', or a time from 10s to 7d"),
        ("reconcile_seconds: yes\n", "from 0.1 to 3600"),
        ("reconcile_seconds: nan\n", "from 0.1 to 3600"),
        (f"runtime_dir: /{'x' * 120}\n", "too long"),
        ("policy_dirs: /one\nlog_level: inof\n", "did you mean info"),
        ("policy_dirs: [/one, two]\n", "absolute path"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, cause: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert cause in found[0]
    assert found[0].startswith(f"{tmp_path}/config.yaml:")


def test_not_text(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file, {})


def test_own_policies_replace_the_shipped(tmp_path: Path) -> None:
    own = tmp_path / "policies"
    config = Config(policy_dirs=(own,))
    assert all(f.parent == SHIPPED_POLICIES for f in config.policy_files())
    own.mkdir()
    assert all(f.parent == SHIPPED_POLICIES for f in config.policy_files())
    for name in ("b.yaml", "a.yml", ".hidden.yaml", "notes.txt"):
        (own / name).touch()
    assert [f.name for f in config.policy_files()] == ["a.yml", "b.yaml"]


def test_the_budget_is_that_of_policies_that_say_nothing_else(tmp_path: Path) -> None:
    assert configured(Config()) == Limits()
    file = tmp_path / "c.yaml"
    file.write_text("budget_contained: 2\nbudget_seconds: 90\nbudget_share: 10%\n")
    assert configured(load(file, {})) == Limits(2, 90_000_000_000, 0.1)
    assert configured(load(file, {"KILLSWITCH_BUDGET_SHARE": "100%"})).none
    for line in ("budget_contained: -1", "budget_seconds: 0", "budget_share: 0.5", "budget_share: 101%"):
        file.write_text(line + "\n")
        with pytest.raises(ConfigError, match="must be a"):
            load(file, {})


@pytest.mark.parametrize(
    ("given", "seconds"), [("off", 0.0), ("90s", 90.0), ("30m", 1800.0), ("1h", 3600.0), ("7d", 604800.0)]
)
def test_how_often_the_switch_proves_itself(tmp_path: Path, given: str, seconds: float) -> None:
    assert load(write(tmp_path, f"selftest_every: {given}\n"), {}).selftest_every == seconds
