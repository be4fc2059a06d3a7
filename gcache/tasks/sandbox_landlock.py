"""Landlock of Linux (landlock(7)): a process gives up files, and processes outside of it, without any privilege.

It is used where namespaces are refused. A process under it cannot read the memory or the environment of
another, and from Linux 6.12 on cannot signal one.
"""

import ctypes
import os
import stat
from collections.abc import Iterable

from .sandbox_kernel import PR_SET_NO_NEW_PRIVS, prctl, syscall

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1, 2, 4, 8, 1 << 14
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
#: Version of the interface -> how many kinds of access it knows, from the first on.
KINDS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
NETWORK, SCOPED = 3, 3  # bind, connect; abstract sockets, signals


class Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_ulonglong), ("network", ctypes.c_ulonglong), ("scoped", ctypes.c_ulonglong))


class PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_ulonglong), ("beneath", ctypes.c_int))


def restrict(readable: Iterable[str], writable: Iterable[str]) -> int:
    """Leave this process these paths alone; the version of the interface.

    Before version 3 the kernel does not refuse to cut a file to nothing.

    Raises:
        OSError: the kernel has no Landlock, or does not use it.
    """
    version = syscall(CREATE_RULESET, ctypes.c_void_p(None), 0, 1)
    every = (1 << KINDS[min(version, max(KINDS))]) - 1
    rules = Ruleset(every, NETWORK if version >= 4 else 0, SCOPED if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = syscall(CREATE_RULESET, ctypes.byref(rules), size, 0)
    read = EXECUTE | READ_FILE | READ_DIR
    for paths, access in ((readable, read), (writable, every)):
        for path in paths:
            _allow(ruleset, path, access & every)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    syscall(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not on this system
        return
    if not stat.S_ISDIR(os.fstat(opened).st_mode):
        access &= OF_FILES
    rule = PathRule(access, opened)
    syscall(ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
    os.close(opened)
