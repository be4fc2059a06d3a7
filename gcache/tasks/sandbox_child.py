"""The other side of `gcache.tasks.sandbox`: run as a script, it gives up what it can and then runs
a program. It imports nothing of this package, so that the program finds nothing of it loaded.

    python -I sandbox_child.py PROGRAM SECONDS MEMORY_BYTES FILE_BYTES PROCESSES < word

The word read from stdin is written to the original stdout once the program has run to its end.
"""

import ctypes
import os
import platform
import resource
import sys

#: Machine -> (its number for the kernel; clone, fork, vfork, clone3; socket, socketpair, io_uring_setup).
CALLS = {
    "x86_64": (0xC000003E, (56, 57, 58, 435), (41, 53, 425)),
    "aarch64": (0xC00000B7, (220, 435), (198, 199, 425)),
}
X32 = 0x40000000  # the same calls once more under other numbers, on x86_64


class Instruction(ctypes.Structure):
    """One line of a BPF program: linux/filter.h."""

    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.POINTER(Instruction)))


def forbid(machine: int, calls: "tuple[int, ...]") -> bool:
    """Have the kernel refuse system calls from now on (seccomp(2)); whether it agreed."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allowed, refused, killed = 0x7FFF0000, 0x00050001, 0x80000000  # refused: "operation not permitted"
    end = len(calls)  # lines between the first call's and the two answers
    lines = [
        (load, 0, 0, 4),
        (equal, 1, 0, machine),
        (answer, 0, 0, killed),  # another instruction set has other numbers
        (load, 0, 0, 0),
        (at_least, end + 1, 0, X32),
        *((equal, end - number, 0, call) for number, call in enumerate(calls)),
        (answer, 0, 0, allowed),
        (answer, 0, 0, refused),
    ]
    block = (Instruction * len(lines))(*(Instruction(*line) for line in lines))
    libc = ctypes.CDLL(None, use_errno=True)
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    if libc.prctl(38, one, none, none, none) != 0:  # PR_SET_NO_NEW_PRIVS, without which nobody may filter
        return False
    filter_ = Program(len(lines), block)
    return bool(libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(filter_), none, none) == 0)  # PR_SET_SECCOMP


def give_up(seconds: int, memory: int, file_bytes: int, processes: int) -> None:
    """Limits that cannot be raised again; no network and no process where the kernel can refuse them."""
    for name, value in (
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_AS", memory),
        ("RLIMIT_FSIZE", file_bytes),
        ("RLIMIT_NPROC", processes),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_CORE", 0),
    ):
        which = getattr(resource, name, None)
        if which is not None:
            hard = resource.getrlimit(which)[1]
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (most, most))
    if sys.platform.startswith("linux") and platform.machine() in CALLS:
        machine, starting, network = CALLS[platform.machine()]
        forbid(machine, network if processes else starting + network)


def main() -> None:
    path, *limits = sys.argv[1:]
    word = sys.stdin.buffer.readline()
    said = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    # libraries that start a thread per core would meet the limit of processes
    os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")})
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        source = file.read()
    give_up(*map(int, limits))
    sys.argv = ["program"]
    exec(compile(source, "program", "exec"), {"__name__": "__main__"})
    os.write(said, word)


if __name__ == "__main__":
    main()
