"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Replace a file by `text` in one step; its folder is made where it is missing."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace a file by the JSON of `value` in one step."""
    # half characters, which a data file may hold, become JSON's own escapes of them
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def without_folders(record: dict[str, Any]) -> dict[str, Any]:
    """A report, or a comparison, with the names alone of the checkpoint, the model and the data it was made from,
    where those are files; the record itself stays as it is."""
    named: dict[str, Any] = {"checkpoint": Path(record["checkpoint"]).name} if record.get("checkpoint") else {}
    for part, name in (("graph", "llm_name"), ("task", "data")):
        found = (record.get(part) or {}).get(name)
        if isinstance(found, str) and Path(found).is_file():
            named[part] = {**record[part], name: Path(found).name}
    return {**record, **named}
