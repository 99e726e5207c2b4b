"""Who started what, in bounded memory, with reused pids and dead parents."""

from __future__ import annotations

from killswitch.detect.processes import MAX_ANCESTORS, ProcessTable
from killswitch.detect.summary import lineage
from tests.unit.detect.scenes import ex, fork


def test_ancestors_outlive_their_processes() -> None:
    table = ProcessTable()
    table.exec(ex("/bin/bash", pid=10))
    table.fork(fork(11, 10))
    table.exec(ex("/usr/bin/setsid", pid=11, ppid=10))
    table.fork(fork(12, 11))
    table.remove(11, 1011)
    table.remove(10, 1010)
    ssh = table.exec(ex("/usr/bin/ssh", pid=12, ppid=1))
    assert lineage(ssh, 12) == "bash(1) → bash(10) → setsid(11) → ssh(12)"  # the maker's parent of pid 10 is "bash"


def test_a_reused_pid_is_another_process() -> None:
    table = ProcessTable()
    table.exec(ex("/bin/old", pid=10))
    table.fork(fork(10, 5, start=9999))
    assert table.get(10, 1010) is None
    fresh = table.get(10, 9999)
    assert fresh is not None and fresh.name == b""
    assert table.remove(10, 1010) is None  # a late exit of the old one
    assert table.get(10, 9999) is fresh


def test_a_child_does_not_inherit_from_a_reused_parent_pid() -> None:
    table = ProcessTable()
    table.exec(ex("/bin/wrong", pid=10, start_ticks=5))
    assert table.fork(fork(11, 10)).name == b""


def test_the_table_is_bounded_and_forgets_the_longest_unheard_of() -> None:
    table = ProcessTable(limit=3)
    for pid in (1, 2, 3):
        table.fork(fork(pid, 99))
    table.exec(ex(pid=1))
    table.fork(fork(4, 99))
    assert sorted(p.pid for p in table) == [1, 3, 4]
    assert table.evicted == 1


def test_a_long_chain_is_cut() -> None:
    table = ProcessTable()
    for pid in range(1, 1000):
        process = table.fork(fork(pid + 1, pid))
    assert len(process.ancestors) == MAX_ANCESTORS
    assert process.ancestors[-1][0] == 999


def test_an_unknown_process_is_told_by_its_exec() -> None:
    process = ProcessTable().exec(ex("/usr/bin/ssh", "ssh", "-R", "9000:localhost:22", pid=13, ppid=12))
    assert lineage(process, 13) == "bash(12) → ssh(13)"
    assert process.args == ("ssh", "-R", "9000:localhost:22")


def test_an_exec_that_is_told_before_the_fork_stands() -> None:
    table = ProcessTable()
    table.exec(ex("/bin/bash", pid=10, ppid=1))
    table.exec(ex("/tmp/miner", pid=11, ppid=10, memfd=True))
    told = table.fork(fork(11, 10))
    assert (told.name, told.executable, told.memfd) == (b"miner", b"/tmp/miner", True)
    assert lineage(told, 11) == "bash(1) → bash(10) → miner(11)"
    orphan = table.exec(ex("/tmp/miner", pid=13, ppid=12))
    assert table.fork(fork(13, 12)) is orphan


def test_who_was_started_beside_whom() -> None:
    """A pipeline's processes have one parent; a tool descends from the agent that talks to it."""
    table = ProcessTable()
    table.exec(ex("/bin/bash", pid=10))
    for pid in (11, 12, 13):
        table.fork(fork(pid, 10))
    table.fork(fork(14, 13))  # by the last of them, and so beside the others
    table.fork(fork(15, 12))
    assert [pid for pid in range(9, 17) if table.beside(pid, 12)] == [11, 13, 14]
    assert not table.beside(11, 99)
