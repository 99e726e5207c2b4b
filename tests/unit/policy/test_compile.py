from __future__ import annotations

import os
from pathlib import Path

import pytest

from killswitch.commands import MAX_CLAUSES, MAX_INODES, MAX_STATES, Mode, Response
from killswitch.errors import PolicyError
from killswitch.policy.catalogue import FIELDS as CATALOGUE
from killswitch.policy.compile import MAX_POLICIES, compile_policies
from killswitch.policy.fields import EVENT_TYPES, FIELDS
from killswitch.policy.inode import os_inode
from killswitch.policy.model import And, Not, Or
from tests.unit.policy.compiling import policy_of, rule_of, where
from tests.unit.policy.matcher_strategies import make_exec

MINER = where("process.name", "xmrig")


def test_every_field_of_the_catalogue_has_a_value_and_the_other_way_round() -> None:
    assert set(FIELDS) == set(CATALOGUE)
    for name, field in FIELDS.items():
        held = {event for event, kind in EVENT_TYPES.items() if kind in field.of}
        # What an event does not hold comes from ``extra``; what it holds may be more than an author can ask for.
        assert held & CATALOGUE[name].events or not field.of, name


@pytest.mark.parametrize(
    ("rule", "tier", "why"),
    [
        (rule_of(MINER), 1, ""),
        (rule_of(MINER, response=(Response.ALERT,)), 1, ""),
        (rule_of(And((MINER, Not(where("file.memfd", True))))), 1, ""),
        (rule_of(where("process.args", "a(?=b)", op="re")), 3, "process.args|re: it uses a look-ahead"),
        (rule_of(And((MINER, where("user.id", 0)))), 3, "user.id is not in what the kernel walks"),
        (rule_of(where("process.command_line", "x", op="endswith")), 3, "the end of the command line"),
        (rule_of(where("process.args", "(a|b)*a(a|b){12}c", op="re")), 3, "more than 512 states"),
        (rule_of(MINER, for_ns=5), 4, "must hold for some time"),
        (rule_of(where("cpu.cores", 0.5, op="gte"), on="cpu"), 4, "windows"),
        (rule_of(where("destination.port", 3333), on="connect"), 3, "the daemon judges connect events"),
    ],
)
def test_where_a_rule_is_judged_and_why(rule, tier: int, why: str) -> None:  # type: ignore[no-untyped-def]
    (made,) = compile_policies([policy_of(rule)]).rules
    assert (made.tier, made.why[: len(why)] if not why else why in made.why) == (tier, "" if not why else True)


def test_only_what_enforces_becomes_a_clause() -> None:
    def flags(mode: Mode, *response: Response, for_ns: int = 0) -> list[tuple[bool, bool]]:
        compiled = compile_policies([policy_of(rule_of(MINER, response=response, for_ns=for_ns), mode=mode)])
        return [(c.kill, c.sever) for c in compiled.tables.clauses]

    kill, sever, freeze = Response.KILL_PROCESS, Response.SEVER, Response.FREEZE
    assert flags(Mode.ENFORCE, kill, sever, freeze) == [(True, True)]
    assert flags(Mode.ENFORCE, kill) == [(True, False)]
    assert flags(Mode.ENFORCE, sever) == [(False, True)]
    assert flags(Mode.ENFORCE, freeze, Response.ALERT) == []
    assert flags(Mode.ENFORCE, kill, for_ns=1) == []
    assert flags(Mode.MONITOR, kill, sever) == []


def test_clauses_name_their_policy_and_rule() -> None:
    quiet = policy_of(rule_of(MINER), mode=Mode.MONITOR, name="a")
    loud = policy_of(
        rule_of(where("process.name", "bash"), id="x", response=(Response.ALERT,)), rule_of(MINER, id="y"), name="b"
    )
    compiled = compile_policies([quiet, loud])
    (clause,) = compiled.tables.clauses
    assert (clause.policy, compiled.rules[clause.rule].rule.id) == (1, "y")
    bits = compiled.predicates(make_exec("/tmp/xmrig"))
    assert [compiled.clause(bits, mask) for mask in (1, 2, 3)] == [-1, 0, 0]


def test_equal_predicates_of_all_rules_share_a_bit() -> None:
    same = where("process.name", "b", "a"), where("process.name", "a", "b")
    compiled = compile_policies([policy_of(*(rule_of(p, id=str(i)) for i, p in enumerate(same)))])
    assert compiled.tables.clauses[0].mask == compiled.tables.clauses[1].mask


def test_no_rules_need_no_states() -> None:
    tables = compile_policies([]).tables
    assert len(tables.rows) == 512
    assert tables.start_args == tables.start_name == 0
    assert not tables.grammars
    assert not tables.clauses


def test_more_predicates_than_bits_go_to_the_daemon_but_first_those_that_do_not_enforce() -> None:
    rules = [rule_of(where("process.name", f"n{i}"), id=f"n{i}", response=(Response.ALERT,)) for i in range(300)]
    enforced = rule_of(MINER, id="last")
    compiled = compile_policies([policy_of(*rules, enforced)])
    assert compiled.rules[-1].tier == 1
    left = [r for r in compiled.rules if r.tier == 3]
    assert len(left) == 301 - 248
    assert all("248 predicate bits are taken" in r.why for r in left)
    for number in (0, 299):
        found = compiled.matches(make_exec(f"/tmp/N{number}"), 1)
        assert [r.rule.id for r in found] == [f"n{number}"]


def test_more_clauses_than_fit_go_to_the_daemon() -> None:
    def name(i: int, j: int) -> str:
        return f"n{i}-{j}"

    wide = [rule_of(Or(tuple(where("process.name", name(i, j)) for j in range(60))), id=str(i)) for i in range(4)]
    parents = [rule_of(where("process.parent.name", f"p{k}"), id=f"p{k}") for k in range(8)]
    pairs = (
        (where("process.name", name(0, j)), where("process.parent.name", f"p{k}")) for j in range(6) for k in range(8)
    )
    compiled = compile_policies([policy_of(*wide, *parents, rule_of(Or(tuple(map(And, pairs))), id="many"))])
    assert len(compiled.tables.clauses) <= MAX_CLAUSES
    assert "clauses of the kernel are taken" in compiled.rules[-1].why
    assert "many" in [r.rule.id for r in compiled.matches(make_exec("/x/n0-5", parent="p7"), 1)]


def test_an_enforcing_rule_that_the_kernel_has_no_room_for_is_warned_of() -> None:
    alerts = [rule_of(where("process.name", f"n{i}"), id=f"n{i}", response=(Response.ALERT,)) for i in range(10)]
    assert compile_policies([policy_of(*alerts)]).warnings == ()
    many = [rule_of(where("process.name", f"n{i}"), id=f"n{i}") for i in range(260)]
    warnings = compile_policies([policy_of(*many)]).warnings
    assert warnings
    assert all("judged by the daemon and not in the kernel" in w and "are taken; put fewer" in w for w in warnings)
    judged_later = rule_of(where("file.hash.sha256", "0" * 64), id="hash")
    assert compile_policies([policy_of(judged_later)]).warnings == (), "no room would help it"


def test_patterns_that_multiply_are_left_to_the_daemon_until_the_rest_fits() -> None:
    rules = [rule_of(where("process.args", f"*--opt{i}-x*pool{i}*"), id=str(i)) for i in range(16)]
    compiled = compile_policies([policy_of(*rules)])
    assert len(compiled.tables.rows) // 512 <= MAX_STATES
    tiers = [r.tier for r in compiled.rules]
    assert 1 in tiers
    assert 3 in tiers
    assert "beside the other predicates" in next(r.why for r in compiled.rules if r.tier == 3)
    event = make_exec(args=("x", "a--opt15-xbpool15c", "--opt0-xpool0"))
    assert [r.rule.id for r in compiled.matches(event, 1)] == ["0", "15"]


def test_a_list_longer_than_the_table_is_judged_by_the_daemon() -> None:
    names = [f"name-{i * 7919}" for i in range(3000)]
    compiled = compile_policies([policy_of(rule_of(where("process.name", *names)))])
    assert compiled.rules[0].tier == 3
    assert compiled.matches(make_exec("/x/NAME-7919"), 1)


def test_files_are_named_by_inode(tmp_path: Path) -> None:
    tool, link, other = tmp_path / "tool", tmp_path / "link", tmp_path / "hard"
    tool.write_bytes(b"")
    link.symlink_to(tool)
    os.link(tool, other)
    assert os_inode(str(link)) == (tool.stat().st_dev, tool.stat().st_ino)
    assert os_inode(str(tmp_path / "none")) is None
    assert os_inode("a\0b") is None
    compiled = compile_policies([policy_of(rule_of(where("file.inode_of", str(link), "/no/such/file")))])
    assert compiled.rules[0].tier == 1
    assert compiled.warnings == ("file.inode_of: there is no /no/such/file on this host (now)",)
    found = other.stat()
    assert compiled.matches(make_exec("/elsewhere", inode=found.st_ino, device=found.st_dev), 1)
    assert not compiled.matches(make_exec("/elsewhere", inode=found.st_ino, device=found.st_dev + 1), 1)


def test_all_problems_come_at_once_with_their_rule() -> None:
    wrong = policy_of(
        rule_of(where("process.nmae", "x"), id="a"),
        rule_of(where("process.args", "(", op="re"), id="b"),
        rule_of(where("user.id", "root"), id="c"),
        rule_of(where("ssh.forward", "remote", op="contains"), id="d"),
        rule_of(where("process.name"), id="e"),
        rule_of(where("destination.ip", "10.0.0.0/99", op="cidr"), on="connect", id="f"),
    )
    with pytest.raises(PolicyError) as caught:
        compile_policies([wrong])
    assert [p.message.split("'")[1] for p in caught.value.problems] == list("abcdef")
    assert {(p.file, p.line) for p in caught.value.problems} == {("p.yaml", 3)}


def test_too_many_policies_or_files() -> None:
    with pytest.raises(PolicyError, match="more than 64 policies"):
        compile_policies([policy_of(name=str(i)) for i in range(MAX_POLICIES + 1)])
    many = where("file.inode_of", *(f"/{i}" for i in range(MAX_INODES + 1)))
    with pytest.raises(PolicyError, match="at most 1024 fit"):
        compile_policies([policy_of(rule_of(many))], inode_of=lambda path: (1, int(path[1:])))
