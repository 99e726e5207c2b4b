"""What programs in the kernel read while we write it is the old value or the new one, never something between."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

import pytest

from killswitch.kernel.maps import store_u32, store_u64

OLD, NEW = 0x11111111, 0x22222222
STORES = 300_000


@pytest.mark.parametrize(("store", "twice"), [(store_u32, 1), (store_u64, 1 << 32 | 1)])
def test_a_store_is_one(store: Callable[[mmap.mmap, int, int], None], twice: int) -> None:
    with mmap.mmap(-1, 4096) as memory:
        allowed = {OLD * twice, NEW * twice}
        size = 8 if twice > 1 else 4
        store(memory, 8, OLD * twice)
        writer = os.fork()
        if not writer:
            for _ in range(STORES // 2):
                store(memory, 8, NEW * twice)
                store(memory, 8, OLD * twice)
            memory[0] = 1
            os._exit(0)
        seen = set()
        view = memoryview(memory)[8 : 8 + size].cast("Q" if size == 8 else "I")  # each item is one load
        while not memory[0]:
            seen.add(view[0])
        os.waitpid(writer, 0)
        view.release()
    assert seen and seen <= allowed, [hex(value) for value in seen - allowed]
