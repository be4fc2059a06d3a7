"""The page of a view: one HTML file that works from disk, without a network, and asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

#: In a template: another file of this folder stands here.
_INCLUDE = re.compile(r"/\*@include ([a-z_.]+)\*/")
#: In a template: the hashes of its scripts stand here, and no other script is run by a browser.
_SCRIPTS = "@scripts@"
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
#: In the template of a view: what is put there for each of them.
_PLACES = re.compile(r"@(title|view)@")
#: What could end a script or open a comment; in JSON they occur in strings alone.
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}


def page(view: Mapping[str, Any]) -> str:
    """The HTML of a view, as `View.to_json` gives it.

    No text in the view is ever markup: it is embedded as data and put in place as text.

    Raises:
        ValueError: a number that JSON has no form for (nan or infinity).
    """
    put = {
        "title": html.escape(str(view.get("title") or "gcache")).encode("utf-8", "replace").decode(),
        "view": json.dumps(view, allow_nan=False).translate(_UNSAFE),  # ASCII: no odd line ends, no half characters
    }
    return _PLACES.sub(lambda place: put[place[1]], template("gcache.inspect"))


def template(package: str, name: str = "page.html") -> str:
    """A page's template with the files that it includes, from its own folder or from this room's.

    Args:
        package: whose folder `web` holds the template, for example "gcache.serve".
    """
    folders = [files(room) / "web" for room in (package, "gcache.inspect")]

    def included(found: re.Match[str]) -> str:
        file = next(folder / found[1] for folder in folders if (folder / found[1]).is_file())
        return file.read_text(encoding="utf-8").strip()

    made = _INCLUDE.sub(included, (folders[0] / name).read_text(encoding="utf-8"))
    hashes = [hashlib.sha256(script.encode()).digest() for script in _SCRIPT.findall(made)]
    return made.replace(_SCRIPTS, " ".join(f"'sha256-{base64.b64encode(h).decode()}'" for h in hashes))
