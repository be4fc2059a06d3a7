"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from gcache.errors import DataError, WriteError

T = TypeVar("T")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses within into one line that names the path.

    Raises:
        WriteError: an OSError came.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(f"{path} cannot be written ({reason}); make room for it, or name another place") from error


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Replace a file by `text` in one step, half characters as escapes; its folder is made where it is missing."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), durable)


def write_bytes(path: Path, content: bytes, durable: bool = False, mode: int = 0o644) -> None:
    """Replace a file in one step; its folder is made where it is missing.

    Args:
        durable: wait until it is on the disk, so that it outlives a loss of power.
        mode: who may read it.

    Raises:
        WriteError: it cannot be written; what was there is still there.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)


def append_line(path: Path, line: str, durable: bool = False) -> None:
    """Add a line to a file. One that a kill cut short, and that has no end therefore, is taken out first.

    Raises:
        WriteError: it cannot be written; the lines before it are still there.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as stream:
            whole = _end_of_lines(stream)
            stream.truncate(whole)
            left = memoryview(line.encode("utf-8") + b"\n")
            try:
                while left:
                    left = left[stream.write(left) :]
            except BaseException:
                stream.truncate(whole)
                raise
            if durable:
                os.fsync(stream.fileno())


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that grows, without their ends; one that a kill cut short, or that is being written, is none.
    No file has no lines.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def parsed_lines(path: Path, parse: Callable[[Any], T], what: str, instead: str, way_out: str) -> list[T]:
    """What the lines of a JSON Lines file hold, by `whole_lines`.

    Args:
        parse: makes something of a line's value; raises ValueError, KeyError or TypeError where it is none.
        what: a line holds, in words.
        instead: of a file that cannot be read; way_out: for a line that holds something else.

    Raises:
        DataError: the file cannot be read, or a line holds something else.
    """
    try:
        lines = whole_lines(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {instead}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(parse(json.loads(line.decode("utf-8"))))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number}: not {what} ({type(error).__name__}: {str(error)[:80]}); {way_out}"
            ) from error
    return found


def append_line_alone(path: Path, line: str) -> None:
    """Add a line to a file that several processes write to; see `append_line`.

    Raises:
        WriteError: it cannot be written.
    """
    with _alone(path):
        append_line(path, line)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """While no other process adds to a file of lines: it would take out a line that is being written."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield


def _end_of_lines(stream: Any) -> int:
    """Bytes up to and with the last end of a line."""
    end: int = stream.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        stream.seek(start)
        found = stream.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + int(found) + 1
        end = start
    return 0


def sync_file(path: Path) -> None:
    """Wait until what was written to a file is on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """Wait until what was renamed in a folder is on the disk, where the system lets folders be waited for."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Replace a file by the JSON of `value` in one step."""
    # half characters, which a data file may hold, become JSON's own escapes of them
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


#: Where a record names files: a part of it, and a field of that.
_NAMED = (
    ("graph", "llm_name"),
    ("graph", "fuser"),
    ("graph", "topology"),
    ("graph", "link"),
    ("graph", "agent_models"),
    ("graph", "link_file"),
    ("graph", "link_files"),  # its name in records that were written before
    ("graph", "route_file"),
    ("task", "name"),
    ("task", "data"),
)


def without_folders(record: dict[str, Any]) -> dict[str, Any]:
    """A report, or a comparison, with the names alone of the checkpoint, the models, the links and the data it was made
    from, where those are files or folders; the record itself stays as it is."""
    named: dict[str, Any] = {"checkpoint": Path(record["checkpoint"]).name} if record.get("checkpoint") else {}
    for part, name in _NAMED:
        found = (record.get(part) or {}).get(name)
        if isinstance(found, (list, tuple)):
            bare: Any = [_bare(each) for each in found]
        else:
            bare = _bare(found)
        if bare != found:
            named[part] = {**named.get(part, record[part]), name: bare}
    return {**record, **named}


def _bare(found: Any) -> Any:
    """A file's or a folder's name alone, also in ``path/to/file.py:ClassName``; anything else as it is."""
    named = isinstance(found, str) and (Path(found).exists() or split_reference(found)[0].name)
    return Path(found).name if named else found


def split_reference(name: str) -> tuple[Path, str]:
    """``path/to/file.py:ClassName`` as the path and the class, "" where it names none; an empty path of other names.

    >>> split_reference("mine/task.py:Mine")
    (PosixPath('mine/task.py'), 'Mine')
    >>> split_reference("gsm8k")
    (PosixPath('.'), 'gsm8k')
    """
    if name.endswith(".py"):
        return Path(name), ""
    path, _, wanted = name.rpartition(":")
    return (Path(path), wanted) if path.endswith(".py") else (Path(), name)
