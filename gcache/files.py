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


#: Where a record names files: a part of it, and a field of that.
_NAMED = (
    ("graph", "llm_name"),
    ("graph", "agent_models"),
    ("graph", "link_files"),
    ("graph", "route_file"),
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
    """A file's or a folder's name alone; anything else as it is."""
    return Path(found).name if isinstance(found, str) and Path(found).exists() else found
