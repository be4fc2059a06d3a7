"""The fields of a request: those that are always sent, and what `--api_option` makes of them.

    NAME=VALUE   one more, or another value
    NAME=        left out
    NAME->OTHER  sent under another name
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gcache.errors import ApiError, ConfigError
from gcache.llm.api.secrets import SECRET_NAME, masked

#: Fields that a request is made of.
OWN = ("model", "max_tokens", "temperature", "seed", "messages", "prompt", "prompt_embeds")
#: Those without which nothing is asked.
NEEDED = ("messages", "prompt", "prompt_embeds")
_RENAME = re.compile(r"\s*([^=\s]+?)\s*->\s*([^=\s]*)\s*")


def split_options(words: Sequence[str]) -> tuple[list[str], tuple[str, ...], dict[str, str]]:
    """The words of `--api_option`: those that give a value, fields to leave out, and new names.

    Raises:
        ConfigError: a word of another form.
    """
    given: list[str] = []
    left_out: list[str] = []
    renamed: dict[str, str] = {}
    for word in words:
        rename = _RENAME.fullmatch(word)
        name, equals, value = word.partition("=")
        if rename and rename[2]:
            renamed[rename[1]] = rename[2]
        elif not equals or not name.strip() or "->" in name:
            raise ConfigError(f"--api_option is NAME=VALUE, NAME= or 'NAME->OTHER', got {masked(word)[:60]!r}")
        elif not value:
            left_out.append(name)
        else:
            given.append(word)
    return given, tuple(left_out), renamed


def check_fields(extra: Mapping[str, Any], left_out: Sequence[str], renamed: Mapping[str, str]) -> None:
    """
    Raises:
        ConfigError: fields that contradict each other, or cannot be sent.
    """
    for name in (*left_out, *renamed):
        if name in NEEDED:
            raise ConfigError(f"--api_option cannot take away {name!r}: it is what is asked")
    for name in left_out:
        if name in extra or name in renamed:
            raise ConfigError(f"--api_option leaves out {name!r} and also gives it; decide for one")
    for old, new in renamed.items():
        if old not in OWN and old not in extra:
            raise ConfigError(f"--api_option renames {old!r}, but a request has {', '.join((*OWN[:4], *extra))}")
        if (new in OWN or new in extra or list(renamed.values()).count(new) > 1) and new not in left_out:
            raise ConfigError(f"--api_option renames {old!r} to {new!r}, which a request has already")
    if extra.get("stream") not in (None, False):
        raise ConfigError("--api_option stream is not allowed: answers are read whole; leave it out")
    for name, value in extra.items():
        try:
            json.dumps({name: value}, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            shown = "" if SECRET_NAME.search(name) else f", got {masked(repr(value))[:60]}"
            raise ConfigError(f"--api_option {name!a} must be a value that JSON can hold{shown}") from None


def changed(body: Mapping[str, Any], left_out: Sequence[str], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The body without some fields, and with new names for others."""
    return {renamed.get(name, name): value for name, value in body.items() if name not in left_out}


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body as it is sent.

    Raises:
        ApiError: a field cannot be sent, such as a text with half of a surrogate pair.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        pass
    for name, value in body.items():
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError as error:
            wrong = f"a character that no text can hold (U+{ord(error.object[error.start]):04X})"
            raise ApiError(f"nothing was sent: {name!r} has {wrong}; clean the question's text") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise ApiError(f"nothing was sent: {name!r} is no JSON ({type(error).__name__})") from None
    raise ApiError("nothing was sent: the name of a field holds a character that no text can hold")
