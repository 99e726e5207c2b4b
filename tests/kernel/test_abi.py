"""Both sides of the ABI are the same: what Python unpacks is what the BPF object's own type information says."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from killswitch import commands
from killswitch.kernel import abi, attach, census, frames, libbpf, loader, lsm

HEADERS = [Path(__file__).parents[2] / "bpf" / name for name in ("events.h", "values.h")]
Types = dict[int, dict[str, Any]]


@pytest.fixture(scope="session")
def types(bpf_object: Path) -> Types:
    tool = shutil.which("bpftool") or "/usr/sbin/bpftool"
    out = subprocess.run([tool, "-j", "btf", "dump", "file", bpf_object], check=True, capture_output=True).stdout
    return {t["id"]: t for t in json.loads(out)["types"]}


def named(types: Types, kind: str, name: str) -> dict[str, Any]:
    (found,) = [t for t in types.values() if t["kind"] == kind and t["name"] == name]
    return found


def resolve(types: Types, type_id: int) -> dict[str, Any]:
    t = types[type_id]
    while t["kind"] in ("TYPEDEF", "CONST", "VOLATILE"):
        t = types[t["type_id"]]
    return t


def size(types: Types, type_id: int) -> int:
    t = resolve(types, type_id)
    if t["kind"] == "ARRAY":
        return size(types, t["type_id"]) * int(t["nr_elems"])
    return int(t["size"])


def flattened(types: Types, t: dict[str, Any], base: int = 0) -> list[tuple[str, int, int]]:
    """(member, offset, size); the header is spelt out, as in ``abi``."""
    members = []
    for m in t["members"]:
        offset = base + m["bits_offset"] // 8
        inner = resolve(types, m["type_id"])
        if inner["kind"] == "STRUCT" and m["name"] == "header":
            members += flattened(types, inner, offset)
        else:
            members.append((m["name"], offset, size(types, m["type_id"])))
    return members


@pytest.mark.parametrize("name", sorted(abi.STRUCTS))
def test_struct(types: Types, name: str) -> None:
    layout, found = abi.STRUCTS[name], named(types, "STRUCT", name)
    ours = [(member, layout.offset(member), struct.calcsize("<" + form)) for member, form in layout.members]
    assert ours == flattened(types, found)
    assert layout.size == found["size"]


@pytest.mark.parametrize("name", sorted(abi.ENUMS))
def test_enum(types: Types, name: str) -> None:
    prefix, ours = abi.ENUMS[name]
    text = re.search(rf"enum {name} \{{(.*?)\n\}};", "".join(h.read_text() for h in HEADERS), re.S)
    assert text, "an enum whose values no struct has is not in the object: read from the header"
    theirs = {n.removeprefix(prefix): int(v) for n, v in re.findall(r"(\w+) = (\d+)", text[1]) if n.startswith(prefix)}
    assert {m.name: m.value for m in ours} == theirs
    in_object = [t for t in types.values() if t["kind"] == "ENUM" and t["name"] == name]
    if in_object:
        assert {
            v["name"].removeprefix(prefix): v["val"] for v in in_object[0]["values"] if v["name"].startswith(prefix)
        } == theirs


def test_constants() -> None:
    defined = {
        n: int(v) for n, v in re.findall(r"^#define (\w+) (\d+)\b", "".join(h.read_text() for h in HEADERS), re.M)
    }
    for name in ("ARGV_WINDOW", "MAX_WORKLOADS", "PREDICATE_WORDS", "NS_PER_TICK", "WIRE_WINDOW", "WIRE_KEPT"):
        assert defined[name] == getattr(abi, name), name
    for name in ("MAX_STATES", "MAX_CLAUSES", "MAX_GRAMMARS", "MAX_INODES", "WIRE_WINDOW"):
        assert defined[name] == getattr(commands, name), name
    assert defined["PREDICATE_WORDS"] * 64 == commands.PREDICATES
    values_h = (HEADERS[0].parent / "values.h").read_text()
    guards = {n: int(v) for n, v in re.findall(r"^#define GUARD_(\w+) (\d+)u", values_h, re.M)}
    assert guards == {guard.name: guard.value for guard in commands.Guard}
    workload_h = (HEADERS[0].parent / "workload.h").read_text()
    assert f"#define MAX_WORKLOAD_LEVEL {abi.MAX_WORKLOAD_LEVEL}\n" in workload_h
    automaton_h = (HEADERS[0].parent / "automaton.h").read_text()
    assert f"#define ACCEPTS {commands.ACCEPTS:#x}" in automaton_h
    judge_h = (HEADERS[0].parent / "judge.h").read_text()
    for name in ("BIT_MEMFD", "BIT_UNLINKED", "BIT_TRUNCATED"):
        assert f"#define {name} {getattr(commands, name)}\n" in judge_h


def test_maps_and_programs_are_the_ones_that_python_names(bpf_object: Path) -> None:
    optional = {*lsm.PROGRAMS, *attach.UNIX}
    with libbpf.loaded(bpf_object, wanted=lambda name: name not in optional) as loaded:
        maps, programs = {name for name, _ in loaded.maps()}, {name for name, _ in loaded.programs()}
        assert set(loaded.left_out()) == optional
    ours = {*loader.MAPPED, *loader.PERCPU, *loader.RINGS, *loader.PLAIN, *loader.TRAFFIC}
    ours |= {*loader.RESTRAINTS, *loader.HOLDING, loader.PROTECTED, loader.DAEMON, loader.HANDED, *loader.HOST}
    ours.add(loader.GUARDS)
    assert maps == ours | {
        "asked",
        "sendmsg_seen",
        "floods",
        "wire_flows",
        "wire_makers",
        "socket_holds",
        "exec_scratch",
        "lsm_scratch",
        "lsm_busy",
        "cgroup_scratch",
        "traffic_blank",
    }
    at_devices = {*frames.WORKLOADS, *frames.WRITTEN, *frames.SEAL, *frames.HOST, *frames.HOST_CGROUP}
    others = {attach.SAMPLER, census.SOCKETS, census.NAMESPACES}
    assert programs == {*attach.TRACING, *attach.CGROUP, *attach.HANDED, *attach.OUTSIDE, *at_devices, *others}
