"""What a terminal sees: one line for what a user can mend, and the log."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, NoReturn

from gcache.errors import GcacheError

#: The flag that names a file of settings.
CONFIG = "--config"
#: The flag that names files which a checkpoint, or a file of settings, may run.
PLUGINS = "--plugins"
#: Flags, or settings, that name an entry of a registry. A file that a file of settings names so is run only if the
#: command line names it too: files of settings are passed around.
NAMING = ("task", "fuser", "link", "topology", "anchor", "compare", "method", "methods")
#: Those of them that may name several with commas between.
LISTING = ("methods",)
TRUE, FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line, not behind a page of all its flags.

    No flag may be cut short: what is short for one flag today may be short for two tomorrow. Where a flag was made
    from a record, settings may also come from a file (`gcache.commands.config_file`).

    Attributes:
        made_from: flag -> the record and the field that it was made from.
        read_settings: the settings of a file, by the names of parsed flags; None where a command takes none.
        unasked: flag -> its value by the whole configuration of a run, which a command takes what it can use of.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **named})
        self.made_from: dict[str, tuple[type, str]] = {}
        self.read_settings: Callable[[str, OneLineParser], dict[str, Any]] | None = None
        self.unasked: dict[str, Any] = {}

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and what was meant perhaps; the exit code is 2."""
        missing = message.partition(" are required: ")[2]
        several = any(action.option_strings and action.nargs in ("+", "*") for action in self._actions)
        if missing and not missing.startswith("-") and several:
            message += f" (a flag of several values takes every word after it: write {missing.split(',')[0]} before it)"
        unknown = message.partition("unrecognized arguments: ")[2].split()
        near = (get_close_matches(word.partition("=")[0], self._flags(), 1) for word in unknown if word[:2] == "--")
        found = next(iter(next(near, [])), "")
        message += f" (did you mean {found}?)" if found else ""
        if unknown and not unknown[0].startswith("-"):  # words that no flag takes
            if "--checkpoint" in self._flags() and len(unknown) == 1:
                message += " (a trained graph is named by --checkpoint)"
            elif len(unknown) > 1:
                message += " (words that belong together stand in quotes)"
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help says more\n")

    def _flags(self) -> list[str]:
        """All flags, those of its commands too."""
        return [flag for parser in _with_commands(self) for action in parser._actions for flag in action.option_strings]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Flags, over the settings of a file where one is named."""
        words = sys.argv[1:] if args is None else list(args)
        file = _named(words)
        if file is not None and self.read_settings is not None and namespace is None:
            try:
                namespace = argparse.Namespace(**self.read_settings(file, self))
            except GcacheError as error:
                self.exit(2, f"{self.prog}: {' '.join(str(error).split())}\n")
            for action in self._actions:
                action.required = action.required and not hasattr(namespace, action.dest)
        return super().parse_known_args(words, namespace)

    def format_help(self) -> str:
        """With the names that are allowed now."""
        for action in self._actions:
            describe = getattr(action, "describe", None)
            if describe is not None:
                action.help = describe()
        return super().format_help()


def boolean(text: str) -> bool:
    """A real boolean: "false" is False."""
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is not a boolean; pass true or false")


def _with_commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def _named(words: Sequence[str]) -> str | None:
    """The file behind the last --config; None where there is none."""
    words = words[: words.index("--")] if "--" in words else words
    found = [word.partition("=")[2] for word in words if word.startswith(f"{CONFIG}=")]
    found += [after for word, after in pairwise(words) if word == CONFIG]
    return found[-1] if found else None


def guarded(command: Callable[[], int]) -> int:
    """Run a command; a user's error becomes one line on stderr and exit code 2."""
    try:
        return command()
    except GcacheError as error:
        print(f"gcache: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gcache: stopped; a training run is resumed by the same command", file=sys.stderr)
        return 130


def log_to_stderr(level: int = logging.INFO) -> None:
    """Our own messages from `level` on, other libraries' only from warnings on."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname).1s %(name)s: %(message)s")
    logging.getLogger("gcache").setLevel(level)
