"""Hiding this process's memory and environment from other processes of its user (Linux).

`/proc/PID/environ` shows the environment that a process was started with, keys of APIs included,
whatever it has removed since. The kernel closes it, and the process's memory, to every process of the
same user while the process cannot be dumped (PR_SET_DUMPABLE, prctl(2)). Debuggers and profilers cannot
attach meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator

PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4

_lock = threading.Lock()
_inside = 0
_before = 1


@contextlib.contextmanager
def undumpable() -> Iterator[None]:
    """Nobody of this user reads this process inside the block; blocks in several threads count together."""
    if not sys.platform.startswith("linux"):
        yield
        return
    global _inside, _before
    libc = ctypes.CDLL(None)
    none = ctypes.c_ulong(0)
    with _lock:
        if _inside == 0:
            _before = libc.prctl(PR_GET_DUMPABLE, none, none, none, none)
            libc.prctl(PR_SET_DUMPABLE, none, none, none, none)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _before == 1:  # 2 cannot be set, and 0 is what it is
                libc.prctl(PR_SET_DUMPABLE, ctypes.c_ulong(1), none, none, none)
