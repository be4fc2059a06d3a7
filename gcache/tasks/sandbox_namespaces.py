"""Namespaces of Linux: a program sees no process and no file beside its own (user_namespaces(7), pivot_root(2)).

The new root is a file system in memory. It holds the folders of Python and of the system's libraries,
read-only, four devices, and an empty working folder. Nothing is mounted on /proc.
"""

import ctypes
import os
from collections.abc import Iterable

from .sandbox_kernel import checked, libc, syscall

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
AT_RECURSIVE, AT_FDCWD, MNT_DETACH = 0x8000, -100, 2
MOUNT_SETATTR = 442
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
#: The user that a program sees itself as.
NOBODY = 65534
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
ROOM = "/room"


def enter(root: str, readable: Iterable[str], disk: int, machine: str) -> None:
    """Move this process into namespaces of its own, with a new root; its next child is the first of its processes.

    Args:
        root: an empty folder to build the new root on.
        readable: folders and files that the new root shows, read-only.
        disk: bytes that all files together may take.
        machine: a key of `PIVOT_ROOT`.
    """
    uid, gid = os.geteuid(), os.getegid()
    checked(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _mount(None, "/", None, MS_REC | MS_PRIVATE)  # nothing of this is seen outside
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, f"size={disk},nr_inodes=8192,mode=755")
    for path in readable:
        _show(path, root + path, read_only=True)
    for path in DEVICES:
        _show(path, root + path, read_only=False)
    for path in (ROOM, "/tmp", "/dev/shm"):
        os.makedirs(root + path, exist_ok=True)  # what is shown may lie below /tmp
        os.chmod(root + path, 0o1777)
    os.chdir(root)
    syscall(PIVOT_ROOT[machine], ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
    checked(libc.umount2(b".", MNT_DETACH), "umount2")  # the old root lies over the new one
    os.chdir(ROOM)


def _show(path: str, at: str, read_only: bool) -> None:
    """Bind a path of the old root into the new one; a link at its top stays a link."""
    if not os.path.lexists(path) or os.path.lexists(at):
        return
    os.makedirs(os.path.dirname(at), exist_ok=True)
    if os.path.islink(path) and not os.path.isabs(os.readlink(path)):
        os.symlink(os.readlink(path), at)
        return
    if os.path.isdir(path):
        os.mkdir(at)
    else:
        open(at, "w").close()
    _mount(path, at, None, MS_BIND | MS_REC)
    if read_only:
        _make_read_only(at)


def _make_read_only(at: str) -> None:
    attributes = (ctypes.c_ulonglong * 4)(MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0)
    try:
        syscall(MOUNT_SETATTR, AT_FDCWD, ctypes.c_char_p(os.fsencode(at)), AT_RECURSIVE, attributes, 32)
    except OSError:  # Linux before 5.12; what this mount forbids already must be said again
        _mount(None, at, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | os.statvfs(at).f_flag)


def _mount(source: "str | None", target: str, kind: "str | None", flags: int, data: str = "") -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    given = data.encode() or None
    checked(libc.mount(*words, ctypes.c_ulong(flags), given), f"mount {target}")
