"""Options of tasks and requests as words: `NAME=VALUE`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcache.errors import ConfigError

#: What stands for such a word in `--help`.
PAIR = "NAME=VALUE"


def options(pairs: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` words as options; numbers, true and false become what they say.

    Raises:
        ConfigError: a word without "=".
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"an option is {PAIR}, got {pair!r}")
        options[name] = _value(value)
    return options


def as_words(options: Mapping[str, Any]) -> list[str]:
    """The inverse of `options`."""
    return [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in options.items()]


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
