"""The shipped rules on hashing: what only alerts, what acts, and after how much."""

from __future__ import annotations

import pytest

from killswitch.commands import Response
from killswitch.policy.compiled import Compiled
from tests.unit.policy.test_shipped import compiled, matched, stops

__all__ = ["compiled"]  # the fixture

OWN = ["/tmp/x", "/home/a/x", "/root/x", "/var/tmp/x", "/dev/shm/x", "/srv/x", "/build/x", "/snow/x", "/data/x", "/x/usr/bin/y",
       "/usb/x", "/us/x",
       "/usrlocal/x", "/binary/x", "/optimal/x", "/data/x", "/nixos/x", "/sbin2/x", "/proc/1/root/tmp/x",
       "/memfd:x"]  # fmt: skip
SYSTEM = ["/usr/bin/x", "/usr/local/bin/x", "/bin/x", "/sbin/x", "/opt/x/bin/y", "/lib64/ld-linux-x86-64.so.2", "/lib/x",
          "/snap/x/1/y", "/nix/store/x", "/gnu/store/x", "/usr/lib/jvm/bin/java"]  # fmt: skip


def found(compiled: Compiled, path: str, seconds: float, **more: object) -> set[str]:
    given = {
        "cpu__cores": 1.0,
        "cpu__hashing": 0.9,
        "cpu__hashing_seconds": float(seconds),
        "cpu__mixing": 0.8,
        "process__executable": path,
    }
    return matched(compiled, "cpu", **(given | more))


LONG = {"hashing-alone", "hashing-for-long"}  # each must hold for as long as its ``for`` says


@pytest.mark.parametrize("path", OWN)
def test_what_the_workload_brought_is_stopped_sooner(compiled: Compiled, path: str) -> None:
    assert found(compiled, path, 7) & LONG == set()
    assert found(compiled, path, 8) & LONG == {"hashing-alone"}


@pytest.mark.parametrize("path", [*SYSTEM, "/root/.pyenv/bin/python3.11", "/home/a/.nvm/bin/node"])
def test_what_the_system_has_is_stopped_later(compiled: Compiled, path: str) -> None:
    name = path.rpartition("/")[2]
    assert found(compiled, path, 19, process__name=name) & LONG == set()
    assert found(compiled, path, 20, process__name=name) & LONG == {"hashing-for-long"}


@pytest.mark.parametrize("sign", [{}, {"network__outside__age": 60}, {"process__memory__huge_pages": 600 << 20}])
def test_who_hashes_beside_other_work_has_longer(compiled: Compiled, sign: dict[str, object]) -> None:
    """Tests that log in by PBKDF2, lines told apart by their MD5: most of the time goes to what is around the hash."""
    beside = {"process__name": "python3.11", "cpu__mixing": 0.3, **sign}
    assert not stops(compiled, found(compiled, "/usr/bin/python3.11", 89, **beside))
    assert stops(compiled, found(compiled, "/usr/bin/python3.11", 90, **beside))
    assert stops(compiled, found(compiled, "/usr/bin/python3.11", 26, **(beside | {"cpu__mixing": 0.4})))


@pytest.mark.parametrize("name", ["java", "node", "pypy3.9"])
def test_a_runtime_that_makes_its_code_is_not_hidden_by_that(compiled: Compiled, name: str) -> None:
    assert found(compiled, f"/usr/bin/{name}", 600, cpu__jit=1.0, process__name=name) & {"hashing-hidden"} == set()
    assert found(compiled, "/usr/bin/x", 12, cpu__jit=1.0, process__name="x") & {"hashing-hidden"}
    assert stops(compiled, found(compiled, f"/usr/bin/{name}", 20, cpu__jit=1.0, process__name=name))


def test_how_long_it_has_to_go_on(compiled: Compiled) -> None:
    assert {r.rule.id: r.rule.for_ns // 10**9 for r in compiled.rules if r.rule.for_ns and r.rule.on == "cpu"} == {
        "sustained-hashing": 15,
        "hashing-with-connection": 10,
        "hashing-alone": 20,
        "hashing-for-long": 30,
    }


@pytest.mark.parametrize(
    ("sign", "before", "after"),
    [
        ({"file__memfd": True}, 5, 6),
        ({"file__unlinked": True}, 5, 6),
        ({"process__open_msr": True}, 5, 6),
        ({"cpu__jit": 0.6}, 11, 12),
        ({"process__memory__huge_pages": 2080 << 20}, 11, 12),
        ({"network__outside__age": 15}, 24, 25),
    ],
)
def test_with_a_second_sign_it_takes_less(compiled: Compiled, sign: dict[str, object], before: int, after: int) -> None:
    assert not stops(compiled, found(compiled, "/usr/bin/x", before, **sign) - LONG)
    assert stops(compiled, found(compiled, "/usr/bin/x", after, **sign) - LONG)


@pytest.mark.parametrize("seconds", [30, 600])
def test_a_login_service_and_a_benchmark_may_go_on(compiled: Compiled, seconds: int) -> None:
    service = found(compiled, "/usr/bin/python3.11", seconds, process__listens=True, network__outside__age=60)
    assert service == {"sustained-hashing"}
    assert found(compiled, "/usr/bin/openssl", seconds, file__inode_of=("/usr/bin/openssl",)) == set()


def test_many_small_ones_count_together(compiled: Compiled) -> None:
    def shared(seconds: float, **more: object) -> set[str]:
        given = {
            "workload__cpu__hashing": 0.9,
            "workload__cpu__hashing_seconds": seconds,
            "process__executable": "/tmp/x",
        }
        return matched(compiled, "cpu", cpu__cores=0.08, **(given | more))

    assert shared(16.0) == {"shared-hashing"}
    assert stops(compiled, shared(31.0))
    assert shared(31.0, process__executable="/usr/bin/argon2") == set()
    assert shared(31.0, cpu__hashing=0.1) == set()  # a program beside them, which does something else
    assert not stops(compiled, shared(31.0, process__name="node"))


def test_hashing_by_itself_is_one_kind_of_evidence(compiled: Compiled) -> None:
    rules = [
        r.rule
        for r in compiled.rules
        if r.rule.id in found(compiled, "/tmp/x", 600, cpu__jit=1.0, network__outside__age=60)
    ]
    assert len(rules) == 5
    assert {(r.act, r.evidence) for r in rules} == {("mining", "behaviour")}
    weak = next(r for r in rules if r.id == "sustained-hashing")
    assert weak.response == (Response.ALERT,)
