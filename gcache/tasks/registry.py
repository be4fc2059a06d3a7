"""Tasks by name, as a command line or a config names them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gcache.errors import ConfigError, unknown
from gcache.tasks.example import Task

TaskFactory = Callable[..., Any]  # returns a Task


def _gsm8k() -> TaskFactory:
    from gcache.tasks.gsm8k import Gsm8k

    return Gsm8k


def _gsm_symbolic() -> TaskFactory:
    from gcache.tasks.gsm_symbolic import GsmSymbolic

    return GsmSymbolic


def _split_facts() -> TaskFactory:
    from gcache.tasks.split_facts import SplitFacts

    return SplitFacts


#: Name -> a function that imports the task's factory, whose parameters are the task's options.
TASKS: Mapping[str, Callable[[], TaskFactory]] = {
    "gsm8k": _gsm8k,
    "gsm_symbolic": _gsm_symbolic,
    "split_facts": _split_facts,
}


def make_task(name: str, data: str | Path | None = None, **options: Any) -> Task:
    """The task of that name.

    Args:
        name: one of `TASKS`.
        data: a data file, for a task that reads one.
        options: passed on to the task.

    Raises:
        ConfigError: the name is unknown, the task takes no data file, it has no such option, or it
            refuses an option's value.
        DataError: the data file is missing or broken.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    factory = TASKS[name]()
    allowed = set(inspect.signature(factory).parameters) - {"name", "domain"}
    if data is not None:
        if "data" not in allowed:
            raise ConfigError(
                f"the task {name!r} makes its own questions and takes no data file, got {str(data)!r}"
            )
        options["data"] = data
    for option in options:
        if option not in allowed:
            choices = ", ".join(sorted(allowed - {"data"})) or "none"
            raise ConfigError(f"unknown option {option!r} of the task {name!r}; choose one of: {choices}")
    task: Task = factory(**options)
    return task
