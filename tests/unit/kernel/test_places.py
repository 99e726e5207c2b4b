"""Which directories are looked at, and what counts in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.kernel.places import KINDS, MAX_HOMES, PLACES, Spot, homes_of, spots
from killswitch.policy import catalogue

PASSWD = b"root:x:0:0::/root:/bin/sh\nann:x:1:1::/home/ann:/bin/sh\ngames:x:5:60::/usr/games:/x\nbin:x:2:2::/bin:/x\nbroken\n"


def kind(path: str, *homes: str) -> str:
    directory, _, name = path.rpartition("/")
    found = spots(PLACES, homes).get(directory or "/")
    return found.kind_of(name) if found else ""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/crontab", "cron"),
        ("/etc/cron.daily/x", "cron"),
        ("/var/spool/cron/crontabs/root", "cron"),
        ("/etc/ld.so.preload", "preload"),
        ("/etc/ld.so.cache", ""),  # ldconfig, with every library
        ("/etc/resolv.conf", ""),
        ("/etc/profile", "profile"),
        ("/etc/profile.d/x.sh", "profile"),
        ("/etc/sudoers.d/x", "sudoers"),
        ("/etc/pam.d/sshd", "pam"),
        ("/etc/systemd/system/x.service", "systemd"),
        ("/run/systemd/system/x.timer", "systemd"),
        ("/home/ann/.config/systemd/user/x.service", "systemd"),
        ("/home/ann/.ssh/authorized_keys", "authorized_keys"),
        ("/home/ann/.ssh/authorized_keys2", "authorized_keys"),
        ("/home/ann/.ssh/config", "ssh"),
        ("/home/ann/.ssh/known_hosts", ""),
        ("/home/ann/.bashrc", "profile"),
        ("/home/ann/.bash_history", ""),
        ("/home/ann/.git/hooks/pre-commit", ""),
        ("/home/bob/.bashrc", ""),  # no home that is known
    ],
)
def test_what_counts(path: str, expected: str) -> None:
    assert kind(path, "/home/ann") == expected


def test_what_leads_to_a_place_is_looked_at_for_its_coming() -> None:
    found = spots(PLACES, ("/home/ann",))
    assert ".ssh" in found["/home/ann"].below and ".config" in found["/home/ann"].below
    assert "cron" in found["/var/spool"].below and not found["/var/spool"].names
    for directory, spot in found.items():
        assert all(f"{directory.rstrip('/')}/{name}" in found for name in spot.below)


def test_drop_ins_belong_to_their_units() -> None:
    below = spots(PLACES, ())["/etc/systemd/system"].into("x.service.d")
    assert below and below.kind_of("override.conf") == "systemd" and below.into("deeper") is None
    assert Spot([("*", "cron")]).into("x") is None


def test_homes() -> None:
    found = homes_of(PASSWD, listed=("zoe",), more=("/srv/agent/", "relative", "/"))
    assert found == ("/srv/agent", "/root", "/home/zoe", "/home/ann", "/usr/games")
    assert len(homes_of(b"".join(b"u%d:x:1:1::/h/%d:/x\n" % (n, n) for n in range(5000)))) == MAX_HOMES


@given(st.binary(max_size=300))
def test_no_passwd_raises(raw: bytes) -> None:
    assert all(home.startswith("/") for home in homes_of(raw))


def test_the_policy_knows_the_same_words() -> None:
    assert set(KINDS) == set(catalogue.PLACES)
