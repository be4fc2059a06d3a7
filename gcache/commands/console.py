"""What a terminal sees: one line for what a user can mend, and the log."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from typing import NoReturn

from gcache.errors import GcacheError


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line, not behind a page of all its flags."""

    def error(self, message: str) -> NoReturn:
        missing = message.partition(" are required: ")[2]
        several = any(action.option_strings and action.nargs in ("+", "*") for action in self._actions)
        if missing and not missing.startswith("-") and several:
            message += f" (a flag of several values takes every word after it: write {missing.split(',')[0]} before it)"
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help says more\n")


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
