from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from killswitch import config
from killswitch.errors import ConfigError
from killswitch.hostallow import ANY_PORT, DHCP, EITHER, THEY, WE, in_port, parse


@pytest.mark.parametrize(
    ("text", "network", "protocol", "local", "remote", "device", "begun_by"),
    [
        ("in tcp 22", None, 6, (22, 22), ANY_PORT, "", THEY),
        ("in tcp 22 from 198.51.100.0/24", "198.51.100.0/24", 6, (22, 22), ANY_PORT, "", THEY),
        ("  in  tcp  8000-8010 from ::1 ", "::1/128", 6, (8000, 8010), ANY_PORT, "", THEY),
        ("in udp 51820", None, 17, (51820, 51820), ANY_PORT, "", EITHER),
        ("out tcp 203.0.113.5 443", "203.0.113.5/32", 6, ANY_PORT, (443, 443), "", WE),
        ("out tcp 203.0.113.5", "203.0.113.5/32", 6, ANY_PORT, ANY_PORT, "", WE),
        ("out udp 10.0.0.53 53", "10.0.0.53/32", 17, ANY_PORT, (53, 53), "", EITHER),
        ("address 10.1.2.3/8", "10.0.0.0/8", 0, ANY_PORT, ANY_PORT, "", EITHER),
        ("device wg0", None, 0, ANY_PORT, ANY_PORT, "wg0", EITHER),
    ],
)
def test_forms(
    text: str, network: str | None, protocol: int, local: object, remote: object, device: str, begun_by: int
) -> None:
    rule = parse(text)
    assert rule.network == (ipaddress.ip_network(network) if network else None)
    assert (rule.protocol, rule.local, rule.remote) == (protocol, local, remote)
    assert (rule.device, rule.begun_by) == (device, begun_by)
    assert rule.lets_in == (begun_by != WE)


@pytest.mark.parametrize(
    "text",
    [
        "", "tcp 22", "in tcp", "in tcp 0", "in tcp 65536", "in tcp 30-20", "in tcp ssh", "in sctp 22", "in tcp 22 from",
        "in tcp 22 from example.org", "out tcp 443", "out tcp 203.0.113.5 https", "address", "address everything",
        "device", "device averyveryverylongname", "device ../x", "in tcp 22- ", "in tcp -22",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_an_error_that_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 'in tcp|names are not looked up|a range of them"):
        parse(text)


def test_addresses_are_mapped_and_masked() -> None:
    address, mask = parse("address 198.51.100.7/24").address
    assert address == bytes(10) + b"\xff\xff" + bytes([198, 51, 100, 0])
    assert mask == b"\xff" * 15 + b"\0"
    assert parse("in tcp 22").address == (bytes(16), bytes(16))
    address, mask = parse("address fd00::1").address
    assert (address[0], mask) == (0xFD, b"\xff" * 16)
    assert DHCP[0].address == (bytes(10) + b"\xff\xff" + bytes(4), b"\xff" * 12 + bytes(4))
    assert in_port(22, "sshd").lets_in


def settings(tmp_path: Path, **environ: str) -> config.Config:
    file = tmp_path / "config.yaml"
    file.write_text("host_allow:\n  - in tcp 22 from 198.51.100.0/24\n  - address 2001:db8::/32\n")
    return config.load(file, environ)


def test_the_host_is_the_machine_or_wholly_another(tmp_path: Path) -> None:
    own = settings(tmp_path)
    assert (own.host_cgroup, own.host_netns) == ("/", None)
    assert [a.text for a in own.host_allow] == ["in tcp 22 from 198.51.100.0/24", "address 2001:db8::/32"]
    other = settings(
        tmp_path,
        KILLSWITCH_HOST_CGROUP="/x",
        KILLSWITCH_HOST_NETNS="/run/netns/x",
        KILLSWITCH_HOST_ALLOW="address ::1; device lo",
    )
    assert (other.host_cgroup, other.host_netns) == ("/x", Path("/run/netns/x"))
    assert [a.text for a in other.host_allow] == ["address ::1", "device lo"]
    assert settings(tmp_path, KILLSWITCH_HOST_CGROUP="none").host_cgroup == "none"
    for half in ({"KILLSWITCH_HOST_CGROUP": "/x"}, {"KILLSWITCH_HOST_NETNS": "/run/netns/x"}):
        with pytest.raises(ConfigError, match="set both, or neither"):
            settings(tmp_path, **half)
    with pytest.raises(ConfigError, match=r"KILLSWITCH_HOST_ALLOW.*write"):
        settings(tmp_path, KILLSWITCH_HOST_ALLOW="everything")
