"""Documents from files: a row each of JSONL, JSON or CSV, or a folder of text files.

A row has `text` and may have `title`. In a folder each `.txt` or `.md` file is a document, titled by its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gcache.errors import DataError
from gcache.tasks.data_fields import Row, label_words, words
from gcache.tasks.data_file import shown, text_of
from gcache.tasks.data_rows import rows_of
from gcache.tasks.reading import Document

#: Endings of files that are documents.
ENDINGS = (".txt", ".md")
FORM = "documents: rows with the fields text and title, in JSONL, JSON or CSV form"


def documents_of(path: Path) -> list[Document]:
    """The documents of a file or a folder, in their order; those of a folder by name.

    Raises:
        DataError: it cannot be read, holds none, or a row or file of it is no document.
    """
    if not path.exists():
        raise DataError(
            f"{shown(path)}: no such file or folder; name a folder of {' and '.join(ENDINGS)} files, or "
            f"a file with {FORM}"
        )
    found = []
    for document, where in _in_folder(path) if path.is_dir() else _in_file(path):
        if any("\ud800" <= letter <= "\udfff" for letter in document.title + document.text):
            raise DataError(f"{where} is not valid UTF-8; save it, and name it, in UTF-8")
        found.append(document)
    if not found:
        what = f"no file that ends in {' or '.join(ENDINGS)}" if path.is_dir() else "no row"
        raise DataError(f"{shown(path)} holds no document: {what}")
    return found


def _in_file(path: Path) -> Iterator[tuple[Document, str]]:
    for where, number, row in rows_of(path, FORM):
        try:
            text = words(row, "text", "content", "body", "passage", "document")
            yield Document(_title(row, number), text), f"{shown(path)}, {where},"
        except DataError as error:
            raise DataError(f"{shown(path)}, {where}: {error}") from error


def _title(row: Row, number: int) -> str:
    return label_words(row, "title") or label_words(row, "name") or f"Document {number}"


def _in_folder(folder: Path) -> Iterator[tuple[Document, str]]:
    try:
        names = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    except OSError as error:
        raise DataError(f"{shown(folder)} cannot be read ({error.strerror})") from error
    for path in names:
        text = text_of(path, "a text file")
        if not text.strip():
            raise DataError(f"{shown(path)} is empty; remove it, or write something into it")
        yield Document(path.stem.replace("_", " "), text), shown(path)
