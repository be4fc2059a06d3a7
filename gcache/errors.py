"""Errors that a user can mend.

Every one of them is a single line that names what came, what is allowed and the way out; the
command line prints that line and exits with code 2. A bug is any other exception.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable

#: Who logs in, and with which password, in an address.
_LOGIN = re.compile(r"//[^/@\s\"']*@")


class GcacheError(ValueError):
    """Base of all errors caused by what a user passed in: a flag, a file, a name, a checkpoint."""


class ConfigError(GcacheError):
    """A parameter has a value that is not allowed."""


class PluginError(ConfigError):
    """A plug-in cannot be used: its file or its package is missing or broken, or it is not what it is named as."""


class DataError(GcacheError):
    """A data file cannot be read, or one of its lines is broken."""


class ModelError(GcacheError):
    """A model cannot be had, or cannot be used (its positions cannot be shifted, for example)."""


class CheckpointError(GcacheError):
    """A checkpoint is missing, broken, or of another shape than the run it is loaded into."""


class WriteError(GcacheError, OSError):
    """A file cannot be written: no room, no permission, or something else in its place."""


class TrainingError(GcacheError):
    """Training cannot go on: a trainable parameter gets no gradient, or a loss is not finite."""


class QuestionError(GcacheError):
    """A question failed for good: it costs that question, and is never graded."""


class ApiError(QuestionError):
    """A server failed for good, or answered something that is no answer."""


class BudgetSpent(ApiError):
    """Nothing is left of the budget of API requests or tokens."""


class GradingError(QuestionError):
    """What grades a text failed itself, which says nothing of the text."""


class ContextError(QuestionError):
    """A question does not fit into the positions that a model was made for."""


class LoopError(GcacheError, RuntimeError):
    """A call that starts an event loop was made inside of one; a RuntimeError too, as asyncio's own would be."""


def shown(value: object) -> str:
    """A value that came from outside, for an error: cut short before it is written out, and without a password."""
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother, brief.maxlong = 2, 60, 60, 40
    return _LOGIN.sub("//...@", brief.repr(value))[:120]


def unknown(what: str, got: object, allowed: Iterable[str]) -> ConfigError:
    """The error for a name that is not in a registry.

    >>> str(unknown("task", "gsm9k", ["gsm8k"]))
    "unknown task 'gsm9k'; choose one of: gsm8k"
    """
    return ConfigError(f"unknown {what} {got!r}; choose one of: {', '.join(sorted(allowed))}")
