"""Flags made from records of settings, and records made from flags again.

A field that is a `setting` is a flag: its name, type, default, help text and allowed names stand in the record, and
nowhere else. A command says which groups of fields, or which fields, it takes, and which defaults are others there:

    flags.add(parser, GraphSpec, "model", "topology", topology="chain")
    spec = flags.make(GraphSpec, args, domain="maths")

Allowed names are read from their registry when the help text is shown, so a new entry is there by itself. They are
no `choices` of argparse: the record refuses what is unknown, in words of its own.

The shape is that of transformers' `HfArgumentParser`, which is not used: importing it takes longer than a whole help
text may, it reads a tuple as one word, gives each boolean that is true a second flag, and knows no help text that
changes.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from gcache.commands.config_file import read_settings
from gcache.commands.console import CONFIG, OneLineParser, boolean
from gcache.errors import ConfigError
from gcache.runtime.settings import About, flag_of, kind_of, settings_of

TEXT = "text (address, key and model: flags, then the environment, then .env)"
#: Titles of the groups that fields name; what has none stands among the command's own flags.
TITLES = {
    "model": "model",
    "models": "agents on other models (the decision maker's is --llm_name)",
    "graph": "graph",
    "choices": "choices of the policy, beside the edges within a round",
    "methods": "methods",
    "modes": TEXT,
    "text": TEXT,
    "errors": TEXT,
    "limits": "limits (but for rounding, answers do not depend on them)",
    "training": "training",
    "fitting": "fitting",
    "service": "service",
}

R = TypeVar("R")


class Default(NamedTuple):
    """A command's own default of a flag, and what it means."""

    value: Any
    words: str


def add(
    parser: argparse.ArgumentParser, record: type, *chosen: str, required: Sequence[str] = (), **defaults: Any
) -> None:
    """Flags of a record's fields.

    Args:
        chosen: groups or names of fields; where none is given, all that have a group.
        required: flags that must be given.
        defaults: of flags by name, where a command has others than the record; a `Default` where the value alone says
            too little.
    """
    if isinstance(parser, OneLineParser) and parser.read_settings is None:
        parser.read_settings = read_settings
        parser.add_argument(
            CONFIG, metavar="FILE", help="settings by the names of their flags, as YAML or JSON, or what a training "
            "run wrote down; a flag wins over it",
        )  # fmt: skip
    for field, about in settings_of(record):
        if not ({about.group, field.name} & set(chosen) if chosen else about.group):
            continue
        name = flag_of(field)
        default = defaults.pop(name, None if field.default is dataclasses.MISSING else field.default)
        kind, many = kind_of(record, field.name)
        action = group(parser, about.group).add_argument(
            f"--{name}", **_words(kind, many, about), default=default.value if isinstance(default, Default) else default
        )
        action.required = name in required
        action.describe = lambda about=about, shown=default, action=action: described(
            about.help, about.names, None if action.required else _shown(shown, about)
        )
        if isinstance(parser, OneLineParser):
            parser.made_from[name] = (record, field.name)
        else:
            action.help = action.describe()
    assert not defaults, f"{record.__name__} has no flags {', '.join(defaults)} among these"


def _words(kind: type, many: bool, about: About) -> dict[str, Any]:
    """What stands behind a flag, as argparse takes it."""
    if kind is bool:
        if about.switch:
            return {"action": "store_true"}
        return {"type": boolean, "nargs": "?", "const": True, "metavar": "BOOL"}
    read = {} if kind is str else {"type": kind}
    return {**read, **({"nargs": "+"} if many else {}), "metavar": about.metavar}


def _shown(default: Any, about: About) -> str:
    """A default in words."""
    if isinstance(default, Default):
        return default.words
    if default is None or default in ("", ()):
        return about.unset
    if isinstance(default, bool):
        return str(default).lower()
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def described(text: str, names: Iterable[str], default: str | None) -> str:
    """A flag's help text.

    Args:
        names: the allowed ones, which are shown where the text does not explain them all.
        default: in words; None where there is none.
    """
    named = list(names)
    if any(not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) for name in named):
        text += f"; one of: {', '.join(named)}"
    return (text + ("" if default is None else f" (default: {default})")).replace("%", "%%")


def group(parser: argparse.ArgumentParser, name: str) -> Any:
    """The group of flags of that name; the parser itself where it has no title."""
    if name not in TITLES:
        return parser
    found = [each for each in parser._action_groups if each.title == TITLES[name]]
    return found[0] if found else parser.add_argument_group(TITLES[name])


def make(record: type[R], args: argparse.Namespace, **values: Any) -> R:
    """A record of the flags that a command has.

    Args:
        values: fields that are no flags, or that are something else than their flags say.
    """
    for field, _ in settings_of(record):
        name = flag_of(field)
        if field.name not in values and hasattr(args, name):
            value = getattr(args, name)
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return record(**values)


def names_of(record: type, *chosen: str) -> list[str]:
    """The flags of some groups or fields of a record, as `add` takes them."""
    return [flag_of(field) for field, about in settings_of(record) if {about.group, field.name} & set(chosen)]


def given(parser: argparse.ArgumentParser, args: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Those of some flags that are not at their defaults.

    What a file of settings says was given as well; not so what a training run wrote down, of which a command takes
    what it can use.
    """
    unasked: dict[str, Any] = getattr(parser, "unasked", {})
    return [
        name for name in names
        if hasattr(args, name)
        and getattr(args, name) != parser.get_default(name)
        and not (name in unasked and getattr(args, name) == unasked[name])
    ]  # fmt: skip


def refuse_unused(
    parser: argparse.ArgumentParser, args: argparse.Namespace, names: Iterable[str], why: str
) -> None:
    """Refuse flags that would change nothing, which whoever gives them does not expect.

    Raises:
        ConfigError: some of these flags are given.
    """
    found = given(parser, args, names)
    if found:
        raise ConfigError(f"{', '.join(f'--{name}' for name in found)}: {why}")


def refuse_changed(
    parser: argparse.ArgumentParser, args: argparse.Namespace, names: Iterable[str], checkpoint: str = "--checkpoint"
) -> None:
    """Refuse flags of a command that a checkpoint makes meaningless.

    Args:
        checkpoint: how it was named.

    Raises:
        ConfigError: some of these flags are given.
    """
    refuse_unused(
        parser, args, names, "a checkpoint has its own model and graph; leave these out, or leave out "
        f"{checkpoint} to put an untrained graph together",
    )  # fmt: skip
