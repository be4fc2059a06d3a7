"""System calls of Linux that Python has no function for. Used in the process of a program (`sandbox_child`).

Every function raises OSError with the kernel's reason where the kernel refuses.
"""

import ctypes
import os

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
_CAPABILITY_VERSION = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> int:
    """The result of a call of libc; a negative one is an OSError."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int = 0, pointer: object = None) -> int:
    """prctl(2); `pointer` is its third argument where it takes one."""
    none = ctypes.c_ulong(0)
    third = none if pointer is None else pointer
    return checked(libc.prctl(option, ctypes.c_ulong(value), third, none, none), f"prctl {option}")


def syscall(number: int, *arguments: object) -> int:
    """A system call without a function in libc. Whole numbers are passed as long."""
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return checked(libc.syscall(ctypes.c_long(number), *given), f"system call {number}")


def drop_capabilities() -> None:
    """Give up every capability, for good: with no new privileges, no program that is executed brings one back."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    for number in range(64):
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError:  # past the last one, or not allowed to begin with, which no new privileges covers
            break
    header, none = (ctypes.c_uint * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint * 6)()
    checked(libc.capset(ctypes.byref(header), ctypes.byref(none)), "capset")
