"""A thin binding of libbpf.so.1 (1.1 or later): one tiny function a call, errors raised with what libbpf had to say.

``ctypes.CDLL`` lets go of the interpreter lock during each call. Nothing here knows what the maps and programs mean.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from killswitch.errors import KernelError
from killswitch.kernel import refusal, syscalls

log = logging.getLogger("killswitch.libbpf")

_TRACE_ITER = 28  # bpf_attach_type
LOG_LINES = 40  # of libbpf's own words, kept to tell why an object was not loaded


class MapInfo(ctypes.Structure):
    """The head of ``struct bpf_map_info``."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", ctypes.c_char * 16),
    )


_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
_DEBUG = 2
_log: deque[str] = deque(maxlen=LOG_LINES)
_libc = ctypes.CDLL(None)
_libc.vsnprintf.argtypes = (c_char_p, c_size_t, c_char_p, c_void_p)


def _keep(level: int, template: bytes, arguments: int) -> int:
    if level < _DEBUG:
        text = ctypes.create_string_buffer(1 << 16)
        _libc.vsnprintf(text, len(text), template, arguments)
        _log.extend(line for line in text.value.decode(errors="replace").splitlines() if line.strip())
    return 0


_keep_callback = _PRINT(_keep)  # must live as long as libbpf may call it

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bpf_object__open_file": (c_void_p, (c_char_p, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__next_map": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__next_program": (c_void_p, (c_void_p, c_void_p)),
    "bpf_map__name": (c_char_p, (c_void_p,)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__reuse_fd": (c_int, (c_void_p, c_int)),
    "bpf_program__name": (c_char_p, (c_void_p,)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_program__set_autoload": (c_int, (c_void_p, c_bool)),
    "bpf_program__set_type": (c_int, (c_void_p, c_int)),
    "bpf_program__set_expected_attach_type": (c_int, (c_void_p, c_int)),
    "bpf_link_create": (c_int, (c_int, c_int, c_int, c_void_p)),
    "bpf_raw_tracepoint_open": (c_int, (c_char_p, c_int)),
    "bpf_link_detach": (c_int, (c_int,)),
    "bpf_iter_create": (c_int, (c_int,)),
    "bpf_obj_pin": (c_int, (c_int, c_char_p)),
    "bpf_obj_get": (c_int, (c_char_p,)),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, ctypes.POINTER(c_uint32))),
    "bpf_map_lookup_elem": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_update_elem": (c_int, (c_int, c_void_p, c_void_p, c_uint64)),
    "bpf_map_delete_elem": (c_int, (c_int, c_void_p)),
    "bpf_map_get_next_key": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_update_batch": (c_int, (c_int, c_void_p, c_void_p, ctypes.POINTER(c_uint32), c_void_p)),
    "bpf_map_lookup_batch": (
        c_int,
        (c_int, c_void_p, c_void_p, c_void_p, c_void_p, ctypes.POINTER(c_uint32), c_void_p),
    ),
    "bpf_map_lookup_and_delete_batch": (
        c_int,
        (c_int, c_void_p, c_void_p, c_void_p, c_void_p, ctypes.POINTER(c_uint32), c_void_p),
    ),
    "libbpf_num_possible_cpus": (c_int, ()),
}


@cache
def lib() -> ctypes.CDLL:
    """libbpf, loaded once. Raises KernelError when the library is not there."""
    try:
        loaded = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as e:
        raise KernelError("load libbpf.so.1", errno.ENOENT, "install libbpf (Debian: apt install libbpf1)") from e
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    loaded.libbpf_set_print(_keep_callback)
    return loaded


def check(what: str, result: int | None) -> int:
    """``result`` of a libbpf call; raises KernelError when it is negative or NULL."""
    if result is not None and result >= 0:
        return result
    raise syscalls.error(what, ctypes.get_errno() or (-result if result else errno.EIO))


def obj_get(path: Path) -> int:
    return check(f"open the pin {path}", lib().bpf_obj_get(os.fsencode(path)))


def obj_pin(fd: int, path: Path) -> None:
    check(f"pin at {path}", lib().bpf_obj_pin(fd, os.fsencode(path)))


def link_cgroup(program_fd: int, cgroup_fd: int, attach_type: int, what: str) -> int:
    """Attach beside whatever else is attached there (links always allow many). Returns the link's descriptor."""
    return check(f"attach {what}", lib().bpf_link_create(program_fd, cgroup_fd, attach_type, None))


def raw_tracepoint(program_fd: int, what: str) -> int:
    """Attach a tp_btf or lsm program to the hook that it was loaded for. Returns the link's descriptor."""
    return check(f"attach {what}", lib().bpf_raw_tracepoint_open(None, program_fd))


def iterator(program_fd: int, what: str) -> int:
    """A descriptor from which the records of an iterator program are read, once."""
    link = check(f"attach {what}", lib().bpf_link_create(program_fd, 0, _TRACE_ITER, None))
    try:
        return check(f"begin {what}", lib().bpf_iter_create(link))
    finally:
        os.close(link)


def link_detach(fd: int) -> None:
    check("detach a BPF link", lib().bpf_link_detach(fd))


def map_info(fd: int) -> MapInfo:
    info = MapInfo()
    size = c_uint32(ctypes.sizeof(info))
    check("read a BPF map's description", lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)))
    return info


@cache
def possible_cpus() -> int:
    """How many values an element of a per-CPU map has."""
    return check("count possible CPUs", lib().libbpf_num_possible_cpus())


def _refused(path: Path, code: int) -> KernelError:
    for line in _log:
        log.debug("%s", line)
    return refusal.explain(path, code, _log)


class Object:
    """A loaded object file; its maps and programs live as long as something holds or pins them."""

    def __init__(
        self,
        path: Path,
        *,
        wanted: Callable[[str], bool],
        maps: Mapping[str, int],
        types: Mapping[str, tuple[int, int]],
    ) -> None:
        _log.clear()
        self._wanted = wanted
        self._handle = lib().bpf_object__open_file(os.fsencode(path), None)
        if not self._handle:
            raise _refused(path, ctypes.get_errno())
        try:
            for name, program in self._each("program"):
                check(f"leave BPF program {name} out", lib().bpf_program__set_autoload(program, wanted(name)))
                if wanted(name) and name in types:
                    kind, at = types[name]
                    check(f"say what BPF program {name} is", lib().bpf_program__set_type(program, kind))
                    check(f"say where {name} goes", lib().bpf_program__set_expected_attach_type(program, at))
            for name, found in self._each("map"):
                if name in maps:
                    check(f"share BPF map {name}", lib().bpf_map__reuse_fd(found, maps[name]))
            if result := lib().bpf_object__load(self._handle):
                raise _refused(path, -result)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        lib().bpf_object__close(self._handle)

    def maps(self) -> Iterator[tuple[str, int]]:
        """Name and descriptor of each map."""
        for name, found in self._each("map"):
            yield name, lib().bpf_map__fd(found)

    def programs(self) -> Iterator[tuple[str, int]]:
        """Name and descriptor of each program that was wanted."""
        for name, found in self._each("program"):
            if self._wanted(name):
                yield name, lib().bpf_program__fd(found)

    def left_out(self) -> Iterator[str]:
        """The names of the others."""
        return (name for name, _ in self._each("program") if not self._wanted(name))

    def _each(self, kind: str) -> Iterator[tuple[str, int]]:
        following, name_of = getattr(lib(), f"bpf_object__next_{kind}"), getattr(lib(), f"bpf_{kind}__name")
        at = None
        while at := following(self._handle, at):
            yield name_of(at).decode(), at


def everything(name: str) -> bool:
    return True


@contextmanager
def loaded(
    path: Path,
    *,
    wanted: Callable[[str], bool] = everything,
    maps: Mapping[str, int] | None = None,
    types: Mapping[str, tuple[int, int]] | None = None,
) -> Iterator[Object]:
    """Load the programs that are ``wanted`` by their names; ``maps`` are descriptors of maps that are there already. ``types``
    tells (type, expected attach type) of programs in sections that this libbpf may not know."""
    obj = Object(path, wanted=wanted, maps=maps or {}, types=types or {})
    try:
        yield obj
    finally:
        obj.close()
