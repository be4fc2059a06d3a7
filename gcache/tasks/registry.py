"""Tasks by name, as a command line or a config names them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gcache.errors import ConfigError, unknown
from gcache.tasks.example import Task

TaskFactory = Callable[..., Any]  # returns a Task


def _from(module: str, name: str) -> Callable[[], TaskFactory]:
    """Imports a task's class when it is asked for."""

    def factory() -> TaskFactory:
        found: TaskFactory = getattr(importlib.import_module(f"gcache.tasks.{module}"), name)
        return found

    return factory


#: Name -> a function that imports the task's factory, whose parameters are the task's options.
TASKS: Mapping[str, Callable[[], TaskFactory]] = {
    "gsm8k": _from("gsm8k", "Gsm8k"),
    "gsm_symbolic": _from("gsm_symbolic", "GsmSymbolic"),
    "split_facts": _from("split_facts", "SplitFacts"),
    "entities": _from("entities", "Entities"),
    "split_gsm8k": _from("split_gsm8k", "SplitGsm8k"),
    "hidden_profile": _from("hidden_profile", "HiddenProfile"),
    "hiddenbench": _from("hidden_profile", "HiddenBench"),
    "gpqa": _from("gpqa", "Gpqa"),
    "medqa": _from("multiple_choice", "MedQa"),
    "arc_easy": _from("multiple_choice", "ArcEasy"),
    "arc_challenge": _from("multiple_choice", "ArcChallenge"),
    "mmlu": _from("multiple_choice", "Mmlu"),
    "banking77": _from("classification", "Banking77"),
    "sst2": _from("numbered_labels", "Sst2"),
    "ag_news": _from("numbered_labels", "AgNews"),
    "trec": _from("numbered_labels", "Trec"),
    "aime24": _from("aime", "Aime24"),
    "aime25": _from("aime", "Aime25"),
    "humaneval": _from("code", "HumanEval"),
    "humanevalplus": _from("code", "HumanEvalPlus"),
    "mbppplus": _from("code", "MbppPlus"),
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
