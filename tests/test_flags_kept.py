"""Every flag of every command that ever worked goes on working: same name, same default, same words after it.

    python tests/test_flags_kept.py --write      writes tests/data/flags.json anew, which only adding a flag calls for
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from gcache.commands.main import main

RECORD = Path(__file__).parent / "data" / "flags.json"
#: Words after a flag, by what they are read as.
SAMPLES = {"int": "3", "float": "0.25", "boolean": "false", "Path": "a/file", "str": "word"}
#: How many words a flag takes: none, one, several.
TAKES: dict[Any, set[int]] = {None: {1}, 0: {0}, "?": {0, 1}, "+": {1, 2}, "*": {0, 1, 2}}


class _Found(Exception):
    """Ends a command once its parser is known."""


def parsers(*argv: str) -> list[argparse.ArgumentParser]:
    """The parsers that a command line is read with, the command's own one last."""
    found: list[argparse.ArgumentParser] = []
    read = argparse.ArgumentParser.parse_known_args

    def watched(parser: argparse.ArgumentParser, *args: Any, **named: Any) -> Any:
        found.append(parser)
        if argv and parser.prog.endswith(f" {argv[0]}"):
            raise _Found
        return read(parser, *args, **named)

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", watched), suppress(_Found, SystemExit),
        redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()),
    ):  # fmt: skip
        main([*argv])
    return found


def commands() -> list[str]:
    """The names of all commands."""
    (top,) = parsers()
    (choices,) = [action.choices for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    return sorted(choices)


def flags(command: str) -> dict[str, dict[str, Any]]:
    """What a command takes, by its first name; `""` for the program itself."""
    *_, parser = parsers(command) if command else parsers()
    found: dict[str, dict[str, Any]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        found[(action.option_strings or [action.dest])[0]] = {
            "names": list(action.option_strings),
            "dest": action.dest,
            "default": _plain(action.default),
            "choices": None if action.choices is None else [str(choice) for choice in action.choices],
            "type": _type(action),
            "nargs": action.nargs,
            "const": _plain(action.const),
            "required": action.required,
        }
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _type(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "boolean"
    return "str" if action.type is None else getattr(action.type, "__name__", str(action.type))


def read_record() -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(RECORD.read_text(encoding="utf-8"))
    return found


KEPT = read_record() if RECORD.is_file() else {}


def test_every_command_is_there() -> None:
    assert {name for name in KEPT if name} <= set(commands())


@pytest.mark.parametrize("command", KEPT)
def test_every_flag_is_there_with_its_default(command: str) -> None:
    now = {name: flag for flag in flags(command).values() for name in flag["names"] or [flag["dest"]]}
    for name, before in KEPT[command].items():
        assert set(before["names"] or [name]) <= now.keys(), name
        flag = now[name]
        assert flag["default"] == before["default"], name
        assert flag["required"] == before["required"], name
        assert TAKES[before["nargs"]] <= TAKES[flag["nargs"]], name
        if flag["choices"] is not None:
            assert before["choices"] is not None and set(before["choices"]) <= set(flag["choices"]), name


@pytest.mark.parametrize("command", KEPT)
def test_the_words_after_a_flag_are_read_as_before(command: str) -> None:
    parser = parsers(command)[-1] if command else parsers()[-1]
    actions = {name: action for action in parser._actions for name in action.option_strings or [action.dest]}
    for name, before in KEPT[command].items():
        if before["nargs"] == 0 or before["choices"]:
            continue
        action, word = actions[name], SAMPLES[before["type"]]
        read = parser._get_value(action, word)
        wanted = {"int": 3, "float": 0.25, "boolean": False}.get(before["type"], word)
        assert (read == wanted and type(read) is type(wanted)) or str(read) == wanted, name
        if before["nargs"] == "?":  # what it means when it stands alone
            assert _plain(action.const) == before["const"], name


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    text = json.dumps({name: flags(name) for name in ["", *commands()]}, indent=1)
    RECORD.write_text(text + "\n", encoding="utf-8")
