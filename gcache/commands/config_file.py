"""Settings from a file: by the names of their flags, or as a training run wrote them down.

    # gcache train --config settings.yaml --seed 1
    task: split_facts
    task_option: {n_agents: 4}
    latent_steps: 0
    lr: 1e-3

A run writes its settings into checkpoint.json of each of its checkpoints, in three parts: task, graph and training.
Such a file, or the folder of the run, fills the same records; a command takes of it what it has records for.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gcache.commands.console import CONFIG, LISTING, NAMING, PLUGINS, OneLineParser, boolean
from gcache.commands.options import PAIR, as_words
from gcache.config import GraphSpec, TaskSpec
from gcache.errors import ConfigError, DataError, GcacheError, shown
from gcache.graph.run_config import GraphConfig
from gcache.llm.api.secrets import SECRET_NAME
from gcache.runtime.plugin_files import permitted
from gcache.runtime.settings import current_names, flag_of, settings_of
from gcache.training.config import TrainConfig

#: The parts of a run's own configuration.
PARTS = ("task", "graph", "training")


def read_settings(file: str, parser: OneLineParser) -> dict[str, Any]:
    """What a file says, by the names of the parsed flags.

    What a run wrote down is kept in `parser.unasked` as well: nobody asked for each of its values.

    Raises:
        DataError: the file cannot be read, or is no mapping.
        ConfigError: a key that is no setting, or a value of another type; the file and the key are named.
        CheckpointError: a folder without a checkpoint.
    """
    path = Path(file)
    if path.is_dir():
        from gcache.training.step_folders import RECORD, find

        path = find(path) / RECORD
    values = _read(path)
    if any(isinstance(values.get(part), dict) for part in PARTS):
        found = dict(_of_a_run(path, values, parser))
        parser.unasked.update(found)
        return found
    actions = {
        flag.removeprefix("--"): action
        for action in parser._actions for flag in action.option_strings
        if flag.startswith("--") and flag not in (CONFIG, PLUGINS, "--help")
    }  # fmt: skip
    found = {}
    for key, value in values.items():
        if key not in actions:
            raise _unknown(path, key, actions, f"{parser.prog} --help lists all")
        found[actions[key].dest] = _gated(path, str(key), _value(path, str(key), actions[key], value))
    return found


def _read(path: Path) -> dict[Any, Any]:
    """The mapping in a file of YAML or JSON."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise DataError(f"{path} cannot be read ({reason}); name a file of settings, YAML or JSON") from error
    try:
        # YAML reads JSON too, but not each of its numbers
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}); mend it") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(f"{path}, line {line}: not YAML ({error.problem}); mend it, or name another") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: neither YAML nor JSON ({' '.join(str(error).split())[:100]}); mend it") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise DataError(f"{path} must map names of flags to values, got {type(values).__name__}; write NAME: VALUE")
    return values


def _unknown(path: Path, key: object, known: Collection[str], more: str) -> ConfigError:
    near = get_close_matches(str(key), list(known), 1, 0.5)
    nearest = f"; the nearest is {near[0]!r}" if near else ""
    return ConfigError(f"{path}: unknown setting {str(key)[:60]!r}{nearest}; {more}")


def _value(path: Path, key: str, action: argparse.Action, value: Any) -> Any:
    """A value as its flag would be read."""
    if action.metavar == PAIR and isinstance(value, dict):
        inner = next((name for name, each in value.items() if isinstance(each, dict | list)), None)
        if inner is not None:
            raise ConfigError(f"{path}: {key}: {inner} must be one value, got {shown(value[inner])}")
        value = as_words(value)
    if value is None and action.default is None:
        return None
    if action.nargs in ("+", "*"):
        return [_one(path, key, action, each) for each in (value if isinstance(value, list) else [value])]
    return _one(path, key, action, value)


def _gated(path: Path, key: str, value: Any) -> Any:
    """A value, pointed at files that the command line allows where it names any."""
    if key not in NAMING:
        return value
    if isinstance(value, list):
        return [_gated(path, key, each) for each in value]
    if not isinstance(value, str):
        return value
    if key in LISTING:
        return ",".join(permitted(name.strip(), path) for name in value.split(","))
    return permitted(value, path)


def _one(path: Path, key: str, action: argparse.Action, value: Any) -> Any:
    """One value, of which a flag may take several."""
    if action.nargs == 0 or action.type is boolean:
        kind, fits = "true or false", isinstance(value, bool)
    elif action.type is int:
        kind, fits = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    elif action.type is float:
        kind, fits = "a number", isinstance(value, int | float | str) and not isinstance(value, bool)
        if fits:
            try:  # YAML takes 1e-3 for a text
                return float(value)
            except (ValueError, OverflowError):
                fits = False
    else:
        if isinstance(value, datetime.date):  # YAML takes 2026-01-31 for one
            value = value.isoformat()
        kind, fits = "a text (in quotes, where it looks like something else)", isinstance(value, str)
        if fits and callable(action.type):
            return action.type(value)
    if not fits:
        got = "something else" if SECRET_NAME.search(key) else shown(value)
        raise ConfigError(f"{path}: {key} must be {kind}, got {got}")
    return value


def _of_a_run(path: Path, values: Mapping[Any, Any], parser: OneLineParser) -> Iterator[tuple[str, Any]]:
    """Values of a run's configuration, by the names of flags, and of fields that have none."""
    others = [key for key in values if key not in PARTS]
    if others and "format" not in values:  # what else a checkpoint knows is no setting
        raise _unknown(path, others[0], PARTS, f"a run's configuration has the parts {', '.join(PARTS)}")
    task, graph, training = (values.get(part, {}) for part in PARTS)
    for part, found in zip(PARTS, (task, graph, training), strict=True):
        if not isinstance(found, dict):
            raise ConfigError(f"{path}: {part} must be a mapping, as a run writes it, got {shown(found)}")
    running = graph.get("graph", {})
    if not isinstance(running, dict):
        raise ConfigError(f"{path}: graph: graph must be a mapping, as a run writes it, got {shown(running)}")
    parts = ((TaskSpec, task), (GraphSpec, graph), (GraphConfig, running), (TrainConfig, training))
    for record, found in parts:
        _require_fields(path, record, found)
    try:
        if task:
            TaskSpec.from_json(task, path)
        GraphSpec.from_json({**graph, "graph": running})
        TrainConfig.from_json(training)
    except GcacheError as error:
        raise ConfigError(f"{path}: {error}") from error
    dests = {action.dest for action in parser._actions}
    made = set(parser.made_from.values())
    records = {record for record, _ in made}
    if "task_option" in dests and task.get("options"):
        yield "task_option", as_words(task["options"])
    for record, found in parts:
        named = current_names(record, found)
        for field, _ in settings_of(record):
            name = flag_of(field)
            # a flag of the same name may be another command's, such as --limit
            takes = (record, field.name) in made or (record in records and name not in dests)
            if field.name in named and takes and (record, field.name) not in _OF_THE_TASK:
                value = named[field.name]
                yield name, _gated(path, name, list(value) if isinstance(value, tuple) else value)


#: What the task says, whatever a graph was made for.
_OF_THE_TASK = ((GraphSpec, "domain"),)


def _require_fields(path: Path, record: type, values: Mapping[Any, Any]) -> None:
    """Refuse names that no field of a record has, or ever had."""
    known = {field.name for field in dataclasses.fields(record)}
    known |= {about.was for _, about in settings_of(record) if about.was}
    for key in values:
        if key not in known:
            raise _unknown(path, key, known, f"a {record.__name__} has {', '.join(sorted(known))}")
