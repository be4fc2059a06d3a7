"""The memory of this machine, as far as this process may use it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from gcache.runtime.processors import cgroups


class Memory(NamedTuple):
    """Bytes: those that can be had now, and all."""

    free: int
    total: int


def usable_memory(root: Path = Path("/")) -> Memory | None:
    """The memory that the system has and the cgroups of this process allow; None where the system does not say.

    Args:
        root: where /proc and /sys are.
    """
    found = _of_the_system(root)
    if found is None:
        return None
    for folder in cgroups("memory", root):
        for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            allowed = _number(folder / most)
            if allowed is not None:
                left = max(0, allowed - (_number(folder / used) or 0))
                found = Memory(min(found.free, left), min(found.total, allowed))
    return found


def _of_the_system(root: Path) -> Memory | None:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return Memory(kib["MemAvailable"] * 1024, kib["MemTotal"] * 1024)
    except (OSError, ValueError, KeyError, IndexError):
        pass
    try:  # not Linux
        page = os.sysconf("SC_PAGE_SIZE")
        return Memory(os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page)
    except (OSError, ValueError, AttributeError):
        return None


def _number(path: Path) -> int | None:
    """What stands in a file of a cgroup; None for no limit."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
