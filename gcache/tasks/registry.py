"""Tasks by name, as a command line or a config names them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gcache.errors import ConfigError, PluginError, unknown
from gcache.runtime.registry import Registry, lacks_methods, needs_more
from gcache.tasks.example import Task

TaskFactory = Callable[..., Any]  # returns a Task
#: What every task has.
_PARTS = ("name", "domain", "max_new_tokens", "train", "test", "grade")


def _from(module: str, name: str) -> Callable[[], TaskFactory]:
    """Imports a task's class when it is asked for."""

    def factory() -> TaskFactory:
        found: TaskFactory = getattr(importlib.import_module(f"gcache.tasks.{module}"), name)
        return found

    return factory


_BUILT_IN: dict[str, Callable[[], TaskFactory]] = {
    "gsm8k": _from("gsm8k", "Gsm8k"),
    "gsm_symbolic": _from("gsm_symbolic", "GsmSymbolic"),
    "split_facts": _from("split_facts", "SplitFacts"),
    "entities": _from("entities", "Entities"),
    "split_gsm8k": _from("split_gsm8k", "SplitGsm8k"),
    "hidden_profile": _from("hidden_profile", "HiddenProfile"),
    "hiddenbench": _from("hidden_profile", "HiddenBench"),
    "hotpotqa": _from("multi_hop", "HotpotQa"),
    "2wikimultihopqa": _from("multi_hop", "TwoWikiMultihopQa"),
    "musique": _from("multi_hop", "Musique"),
    "squad": _from("squad", "Squad"),
    "countries": _from("kvcomm", "Countries"),
    "tipsheets": _from("kvcomm", "Tipsheets"),
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


def _wrong(found: Any) -> str:
    if not callable(found):
        return f"must be a class, or a function that makes a task, got {type(found).__name__}"
    return lacks_methods(found, ("train", "test", "grade"))


#: Name -> a function that imports the task's factory, whose parameters are the task's options.
TASKS: Registry[Callable[[], TaskFactory]] = Registry(
    "task", "gcache.tasks", _BUILT_IN, _wrong, adapt=lambda found: lambda: found, about=lambda entry: entry()
)


def make_task(name: str, data: str | Path | None = None, **options: Any) -> Task:
    """The task of that name.

    Args:
        name: one of `TASKS`, or ``path/to/file.py:ClassName``.
        data: a data file, for a task that reads one.
        options: passed on to the task.

    Raises:
        ConfigError: the name is unknown, the task takes no data file, it has no such option, it lacks one, or it
            refuses an option's value.
        PluginError: a file or a package has it, and it is not a task.
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
    for option in needs_more(factory, options):
        way_out = "--data FILE" if option == "data" else f"--task_option {option}=VALUE"
        raise ConfigError(f"the task {name!r} needs the option {option!r}; pass {way_out}")
    task: Task = factory(**options)
    missing = [part for part in _PARTS if not hasattr(task, part)]
    if missing:
        raise PluginError(f"the task {name!r} lacks {', '.join(missing)}; see gcache.tasks.example.Task")
    return task
