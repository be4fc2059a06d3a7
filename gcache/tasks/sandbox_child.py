"""The other side of `gcache.tasks.sandbox`: a process that gives up what it can and then runs a program.

It starts with an empty environment and imports nothing of this package but the modules beside it, which
it forgets again, so that the program finds nothing of it loaded. On its stdout it writes

    ready LAYER ...      all is given up, the program begins
    refused LAYER WHY    the system does not grant this layer; nothing was run
    the word             the program ran to its end

where the word is what was read from stdin. Any other end before the first line is a failure of the
sandbox and says nothing of the program.
"""

import contextlib
import errno
import marshal
import os
import resource
import signal
import stat
import sys
from collections.abc import Iterator
from typing import Any

LINUX = sys.platform.startswith("linux")
if LINUX:  # before anything is given up: these files cannot be seen afterwards
    from .sandbox_kernel import PR_SET_PDEATHSIG, drop_capabilities, prctl
    from .sandbox_landlock import restrict
    from .sandbox_namespaces import DEVICES, PIVOT_ROOT, enter
    from .sandbox_seccomp import MACHINES, forbid
NOBODY = 65534  # the user without files or processes


class Refused(Exception):
    """The system does not grant a layer."""


@contextlib.contextmanager
def asking_for(layer: str) -> Iterator[None]:
    """Where the kernel refuses, it refuses the layer; a lack of memory or processes passes and is not that."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ENOMEM):
            raise
        raise Refused(f"{layer} {error}") from error


def main(folder: str) -> None:
    """Run the program of a folder, as `gcache.tasks.sandbox` has laid it out."""
    with open(os.path.join(folder, "order"), "rb") as file:
        order: dict[str, Any] = marshal.load(file)
    word = sys.stdin.buffer.readline()
    said = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    # libraries that start a thread per core would meet the limit of processes
    os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")})
    try:
        layers = give_up(folder, order)
    except Refused as refused:
        os.write(said, f"refused {refused}\n".encode())
        os._exit(0)
    _be_as_if_started(order["packages"])
    os.write(said, " ".join(["ready", *layers, "\n"]).encode())
    run(order["source"])
    os.write(said, word)
    os._exit(0)  # nothing of the program runs after its end


def run(source: str) -> None:
    """The program, as a module that is imported: what stands under `__name__ == "__main__"` does not run."""
    module = type(sys)("program")
    sys.modules["program"] = module  # dataclasses look their module up
    exec(compile(source, "program", "exec"), module.__dict__)


def give_up(folder: str, order: "dict[str, Any]") -> "list[str]":
    """Everything that this system lets a process give up; the names of the layers that now hold.

    Raises:
        Refused: a layer that was to be tried is not to be had.
        OSError: no process, memory or limit can be had at the moment.
    """
    room = os.path.join(folder, "room")
    machine = os.uname().machine if LINUX else ""
    layers: list[str] = []
    if LINUX:
        _die_with(order["parent"])
        layers += _be_alone(folder, room, machine, order)
    if "namespaces" not in layers:
        os.chdir(room)
    _limit(order)
    if LINUX:
        if "namespaces" not in layers:
            layers += _give_up_files(room, order)
        drop_capabilities()
        layers += _filter_calls(machine, order, inside="namespaces" in layers)
    return layers


def _be_alone(folder: str, room: str, machine: str, order: "dict[str, Any]") -> "list[str]":
    """Namespaces, in a second process, while this one waits for it; or else another user where this one is root."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
    if "namespaces" not in order["without"]:
        if machine not in PIVOT_ROOT:
            raise Refused(f"namespaces not known on {machine}")
        with asking_for("namespaces"):
            enter(os.path.join(folder, "root"), order["readable"], order["disk"], machine)
        _go_on_in_a_child()
        return ["namespaces"]
    if os.geteuid() == 0 and all(map(_open_to_all, order["readable"])):
        os.chown(room, NOBODY, NOBODY)
        os.chdir(room)
        try:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError as error:  # a container without these capabilities
            sys.stderr.write(f"{error}\n")
            return []
        _die_with(order["parent"])  # another user forgets it
        return ["user"]
    return []


def _open_to_all(path: str) -> bool:
    """Whether every user can reach a path; one that does not exist is no hindrance."""
    while os.path.exists(path):
        if not os.stat(path).st_mode & stat.S_IXOTH and os.path.isdir(path):
            return False
        if path == "/":
            break
        path = os.path.dirname(path)
    return True


def _go_on_in_a_child() -> None:
    """Fork; the parent waits, ends as its child ends and never returns."""
    ours, parents = os.pipe()
    child = os.fork()
    if child:
        os.close(ours)
        _, status = os.waitpid(child, 0)
        os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
    os.close(parents)
    os.setsid()  # a signal to its group reaches nobody else
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.set_blocking(ours, False)
    try:
        gone = os.read(ours, 1) == b""  # its parent died before the line above
    except BlockingIOError:
        gone = False
    if gone:
        os._exit(1)
    os.close(ours)


def _die_with(parent: int) -> None:
    """Be killed when the process that started this one ends, however it ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _limit(order: "dict[str, Any]") -> None:
    """Limits that cannot be raised again."""
    for name, value in order["limits"].items():
        which = getattr(resource, name, None)
        if which is None:
            continue
        hard = resource.getrlimit(which)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(which, (most, most))
        except (OSError, ValueError):  # macOS knows the name of the limit of memory and takes no value
            if LINUX:
                raise


def _give_up_files(room: str, order: "dict[str, Any]") -> "list[str]":
    if "landlock" in order["without"]:
        return []
    with asking_for("landlock"):
        version = restrict(order["readable"], [room, *DEVICES])
    return ["landlock"] if version >= 3 else []


def _filter_calls(machine: str, order: "dict[str, Any]", inside: bool) -> "list[str]":
    if "seccomp" in order["without"]:
        return []
    if machine not in MACHINES:
        raise Refused(f"seccomp not known on {machine}")
    with asking_for("seccomp"):
        forbid(machine, os.getpid(), processes=order["limits"]["RLIMIT_NPROC"] > 0, metadata=inside)
    return ["seccomp"]


def _be_as_if_started(packages: "list[str]") -> None:
    """What `site` does for a program; this process started without it, since it takes longer than all the rest."""
    import _sitebuiltins
    import builtins

    sys.path += packages
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))
    for name in [name for name in sys.modules if name.partition(".")[0] == __name__.partition(".")[0]]:
        del sys.modules[name]
    sys.argv = ["program"]
