"""Python files that a name points into: ``path/to/file.py:ClassName``.

A file is run once per process, and what it says then holds. A name that the user gives, on the command line or in
Python, is run as it is. A name that a checkpoint gives is code from wherever the checkpoint is from, so it is run only
if the user names the same file as well (`allow_plugins`, or `--plugins` on the command line).
"""

from __future__ import annotations

import hashlib
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gcache.errors import PluginError
from gcache.files import split_reference


@dataclass(frozen=True)
class PluginFile:
    """A file that was run.

    Attributes:
        sha256: of the bytes that were run.
    """

    path: Path
    sha256: str
    module: ModuleType


_lock = threading.RLock()
_run: dict[Path, PluginFile] = {}
_allowed: set[Path] = set()


def find(name: str) -> Any:
    """What ``path/to/file.py:ClassName`` names. The file is run where that has not happened yet.

    Raises:
        PluginError: no such file, one that does not parse or raises, or nothing of that name in it.
    """
    path, wanted = split_reference(name)
    if not wanted.isidentifier():
        raise PluginError(f"{name!r} names a file, but nothing in it; write {path}:NAME with the name of a class in it")
    file = _ran(path)
    found = vars(file.module).get(wanted)
    borrowed = callable(found) and getattr(found, "__module__", None) != file.module.__name__
    if found is None or borrowed:  # what a file imports is not what its user meant to allow
        there = sorted(own for own, value in vars(file.module).items() if _is_own(own, value, file.module))
        has = "only imports" if borrowed else "has no"
        raise PluginError(f"{path} {has} {wanted!r}; it has: {', '.join(there) or 'no class or function'}")
    return found


def allow_plugins(*files: str | Path) -> None:
    """Let checkpoints that are read by this process run these files.

    Args:
        files: paths, or names ``path/to/file.py:ClassName``. They need not be there.
    """
    with _lock:
        for file in files:
            path = split_reference(str(file))[0] if is_reference(str(file)) else Path(file)
            _allowed.add(path.absolute())  # under the name that it was given, which a link may have


def permitted(name: str, where: object) -> str:
    """The name of a plug-in that a checkpoint gives, pointed at the file that the user allowed. Nothing is run.

    Args:
        where: what gives the name, for the error.

    Raises:
        PluginError: it names a file that the user did not name.
    """
    if not is_reference(name):
        return name
    path, wanted = split_reference(name)
    looked_for = path.resolve()
    with _lock:
        allowed = {file.resolve() for file in _allowed}
        same = sorted({file.resolve() for file in _allowed if file.name == path.name})
    if looked_for in allowed:
        return name
    if len(same) == 1:
        return f"{same[0]}:{wanted}"
    if same:
        raise PluginError(
            f"{where} names {name!r}, and several files of that name are allowed: {', '.join(map(str, same))}; name one"
        )
    raise PluginError(
        f"{where} names {name!r}, and code that is named there is only run if you name its file too: add "
        f"--plugins {path} (in Python: gcache.allow_plugins({str(path)!r})); looked for {looked_for}, which is "
        f"{'there' if looked_for.is_file() else 'not there: say where it is now'}"
    )


def hashes(names: Iterable[object]) -> dict[str, str]:
    """Name -> SHA-256 of its file, of those names that name files: of what was run, or else of what is there.

    Raises:
        PluginError: a file cannot be read.
    """
    return {name: _hash(split_reference(name)[0]) for name in names if isinstance(name, str) and is_reference(name)}


def changed(recorded: Mapping[str, str]) -> list[str]:
    """Names of a checkpoint whose files are allowed, and are not what they were when it was written."""
    found = []
    for name, sha256 in recorded.items():
        try:
            now = _hash(split_reference(permitted(name, "it"))[0])
        except PluginError:  # not used, or else the error has been raised
            continue
        if now != sha256:
            found.append(name)
    return found


def is_reference(name: str) -> bool:
    """Whether a name is of the form ``path/to/file.py:ClassName``, or could only be meant so."""
    return bool(split_reference(name)[0].name)


def without_folder(name: str) -> str:
    """``file.py:ClassName``, wherever the file is; any other name as it is."""
    path, wanted = split_reference(name)
    return f"{path.name}:{wanted}" if path.name else name


def label(name: str) -> str:
    """A name that may be a part of a file's name: of ``path/to/file.py:ClassName`` the class alone."""
    return split_reference(name)[1]


def _ran(path: Path) -> PluginFile:
    resolved = path.resolve()
    with _lock:
        if resolved not in _run:
            _allowed.add(path.absolute())
            _run[resolved] = _run_now(path, _read(path))
        return _run[resolved]


def _run_now(path: Path, source: bytes) -> PluginFile:
    sha256 = hashlib.sha256(source).hexdigest()
    module = ModuleType(f"gcache_plugin_{path.stem}_{sha256[:8]}")
    module.__file__ = str(path.resolve())
    try:
        code = compile(source, module.__file__, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise PluginError(f"{path} does not parse: line {error.lineno}: {error.msg}") from error
    except (ValueError, MemoryError, RecursionError) as error:  # a NUL, or an expression that is too deep
        raise PluginError(f"{path} does not parse: {words(error)}") from error
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        with redirect_stdout(sys.stderr):  # what a command prints is the command's
            exec(code, module.__dict__)  # the very bytes that were hashed
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        frames = traceback.extract_tb(error.__traceback__)
        line = [frame.lineno for frame in frames if frame.filename == code.co_filename][-1]
        raise PluginError(f"{path} cannot be imported: line {line}: {words(error)}") from error
    return PluginFile(path.resolve(), sha256, module)


def words(error: BaseException) -> str:
    """An error of somebody else's code in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")


def _hash(path: Path) -> str:
    known = _run.get(path.resolve())
    return known.sha256 if known else hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PluginError(
            f"no plug-in file {str(path.resolve())!r} ({error.strerror}); name one that is there"
        ) from error


def _is_own(name: str, value: Any, module: ModuleType) -> bool:
    return not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module.__name__
