"""The text of a data file, whatever holds it: UTF-8, or UTF-16 and UTF-32 that say so, each also gzipped.

A file is known by how it begins, never by its name: names are changed, bytes are not. What cannot be read is refused
in one line that says what it is.
"""

from __future__ import annotations

import codecs
import gzip
import stat
import zlib
from pathlib import Path

from gcache.errors import DataError

_GZIP = b"\x1f\x8b"
#: How files begin that hold no text, and what would make text of them.
_OTHERS = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"PK\x05\x06": "an empty zip archive",
    b"PAR1": "a parquet file; convert it to JSONL, such as by pandas' to_json(orient='records', lines=True)",
    b"ARROW1": "an arrow file; convert it to JSONL",
    b"BZh": "packed by bzip2; unpack it",
    b"\xfd7zXZ": "packed by xz; unpack it",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
    b"version https://git-lfs": "only a pointer of Git LFS; run git lfs pull",
}
#: By the mark at the beginning; that of UTF-32 begins with that of UTF-16, so it is tried first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def shown(path: str | Path) -> str:
    """A path as a message names it: on one line, in characters that every terminal can be given."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def text_of(path: Path, form: str) -> str:
    """The text of a file. Bytes that are no UTF-8 come as lone surrogates, so that their line can be named.

    Args:
        form: what the file should be, for errors.

    Raises:
        DataError: it is not there, no plain file, cannot be read, or is something else than text.
    """
    raw = _bytes(path, form)
    if raw.startswith(_GZIP):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{shown(path)}: cannot be read (broken gzip: {error}); pass {form}") from error
    elif path.name.endswith(".gz"):
        raise DataError(f"{shown(path)}: cannot be read (not a gzipped file); rename it, or pass {form}")
    for begin, what in _OTHERS.items():
        if raw.startswith(begin):
            raise DataError(f"{shown(path)}: this is {what}; expected {form}")
    return _decoded(raw, path)


def _bytes(path: Path, form: str) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(0, "it is a directory")
        if not stat.S_ISREG(mode):  # a pipe may never end, nor ever begin
            raise OSError(0, "it is no plain file but a pipe, a socket or a device")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{shown(path)}: no such file; pass --data FILE with {form}") from error
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{shown(path)}: cannot be read ({reason}); pass a readable file with {form}") from error


def _decoded(raw: bytes, path: Path) -> str:
    for mark, name in _MARKS:
        if raw.startswith(mark):
            body = raw[len(mark) :]
            if name == "utf-8":
                return body.decode(name, "surrogateescape")
            try:
                return body.decode(name, "surrogatepass")
            except UnicodeDecodeError as error:
                line = body[: error.start].decode(name, "surrogatepass").count("\n") + 1
                raise DataError(f"{shown(path)}, line {line}: not valid {name[:-3].upper()}: {error.reason}") from error
    return raw.decode("utf-8", "surrogateescape")
