"""Lists and objects that stand in a text, as in a field of a CSV file.

They are JSON, or as Python prints them. Python joins texts that have no comma between them, and takes the last of two
values under one key. Both lose a part of what was meant, so both are refused.
"""

from __future__ import annotations

import ast
import io
import json
import tokenize
from typing import Any

from gcache.errors import DataError

_LONGEST_LIST = 20_000  # characters
_BETWEEN = (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT)


def listed(value: Any, field: str) -> Any:
    """A list or an object that stands in a text; anything else as it is.

    Raises:
        DataError: the text has two texts without a comma between them, or a key twice.
    """
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{") or len(value) > _LONGEST_LIST:
        return value
    try:
        for read in (_json, _python):
            try:
                found: Any = read(value.strip())
            except DataError:
                raise
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
            if isinstance(found, (list, dict)):
                return found
    except DataError as error:
        raise DataError(f"the list in the field {field!r:.60} cannot be read: {error}") from error
    return value


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises DataError where a key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the field {twice!r:.60} is there twice; leave one of them")
    return found


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=object_of)


def _python(text: str) -> Any:
    tree = ast.parse(text, mode="eval")
    found = ast.literal_eval(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [ast.literal_eval(key) for key in node.keys if key is not None]
            object_of([(key, None) for key in keys])
    _check_commas(text)
    return found


def _check_commas(text: str) -> None:
    """Refuse neighbours that Python joins: a lost comma, or all of them lost, as in what numpy prints."""
    before: str | None = None
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in _BETWEEN:
                continue
            if token.type == tokenize.STRING and before is not None:
                raise DataError(
                    f"no comma between {before:.30} and {token.string:.30}; write it as JSON (numpy prints no commas)"
                )
            before = token.string if token.type == tokenize.STRING else None
    except tokenize.TokenError as error:
        raise ValueError(str(error)) from error
