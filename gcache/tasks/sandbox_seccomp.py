"""A filter of system calls (seccomp(2)): what the kernel answers with "operation not permitted" from now on."""

import ctypes

from .sandbox_kernel import PR_SET_NO_NEW_PRIVS, prctl

PR_SET_SECCOMP, MODE_FILTER = 22, 2
#: Machine -> its number for the kernel, and its column in the tables below.
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
X32 = 0x40000000  # the same calls once more under other numbers, on x86_64

Calls = dict[str, tuple["int | None", "int | None"]]

#: Processes and threads.
STARTING: Calls = {
    "clone": (56, 220), "fork": (57, None), "vfork": (58, None), "clone3": (435, 435),
    "execve": (59, 221), "execveat": (322, 281),
}  # fmt: skip
ALWAYS: Calls = {
    # the network, and io_uring, which makes other calls past any filter
    "socket": (41, 198), "socketpair": (53, 199),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # other processes: their memory, their files, their signals, their share of the processor
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "perf_event_open": (298, 241),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # shared memory, semaphores and queues, which would stay behind
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgctl": (71, 187), "mq_open": (240, 180),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "mount_setattr": (442, 442), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # the kernel
    "bpf": (321, 280), "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "syslog": (103, 116), "reboot": (169, 142), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
}  # fmt: skip
#: Owners, modes and times of files, which Landlock leaves open. Refused where the user's files can be seen.
METADATA: Calls = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466),
    "truncate": (76, 45),
}  # fmt: skip
#: Allowed where the first argument is this process.
ON_ITSELF: Calls = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "prlimit64": (302, 261),
}  # fmt: skip
FCNTL = (72, 25)
F_SETOWN, F_SETOWN_EX = 8, 15  # whom the kernel signals when a file is ready

LOAD, EQUAL, AT_LEAST, ANSWER = 0x20, 0x15, 0x35, 0x06
ALLOWED, REFUSED, KILLED = 0x7FFF0000, 0x00050001, 0x80000000


class Instruction(ctypes.Structure):
    """One line of a BPF program: linux/filter.h."""

    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.POINTER(Instruction)))


def forbid(machine: str, own: int, processes: bool, metadata: bool) -> None:
    """Refuse system calls of this process from now on.

    Args:
        machine: a key of `MACHINES`.
        own: the number of this process.
        processes: whether it may start some.
        metadata: whether it may change owners, modes and times of files.

    Raises:
        OSError: the kernel takes no filter.
    """
    kernel_number, column = MACHINES[machine]
    refused = {**ALWAYS, **({} if processes else STARTING), **({} if metadata else METADATA)}

    def numbers(calls: Calls) -> list[int]:
        return [number for row in calls.values() if (number := row[column]) is not None]

    lines = _filter(kernel_number, numbers(refused), numbers(ON_ITSELF), FCNTL[column], own)
    block = (Instruction * len(lines))(*(Instruction(*line) for line in lines))
    prctl(PR_SET_NO_NEW_PRIVS, 1)  # without which nobody may filter
    prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(Program(len(lines), block)))


def _filter(
    kernel_number: int, refused: list[int], on_itself: list[int], fcntl: int, own: int
) -> list[tuple[int, int, int, int]]:
    """The lines (code, skip if true, skip if false, operand). The fields that are loaded: the number of the
    call at 0, that of the machine at 4, the low halves of the first two arguments at 16 and 24."""
    first_argument = [(LOAD, 0, 0, 16), (EQUAL, 2, 0, own), (EQUAL, 1, 0, 0), (ANSWER, 0, 0, REFUSED)]
    command = [(LOAD, 0, 0, 24), (EQUAL, 1, 0, F_SETOWN), (EQUAL, 0, 1, F_SETOWN_EX), (ANSWER, 0, 0, REFUSED)]
    allowed = [(ANSWER, 0, 0, ALLOWED)]
    # where the blocks after the comparisons begin, counted from the first comparison
    n = len(refused) + len(on_itself) + 1
    to_refused, to_itself, to_command = n + 1, n + 2, n + 2 + len(first_argument) + 1
    targets = [*((c, to_refused) for c in refused), *((c, to_itself) for c in on_itself), (fcntl, to_command)]
    return [
        (LOAD, 0, 0, 4), (EQUAL, 1, 0, kernel_number), (ANSWER, 0, 0, KILLED),  # other machines, other numbers
        (LOAD, 0, 0, 0), (AT_LEAST, to_refused, 0, X32),
        *((EQUAL, target - at - 1, 0, call) for at, (call, target) in enumerate(targets)),
        *allowed, (ANSWER, 0, 0, REFUSED),
        *first_argument, *allowed,
        *command, *allowed,
    ]  # fmt: skip
