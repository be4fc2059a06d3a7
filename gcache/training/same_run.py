"""Whether a run that is resumed is the run that was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gcache.config import GraphSpec
from gcache.errors import CheckpointError
from gcache.runtime import plugin_files
from gcache.training.checkpoint import Checkpoint
from gcache.training.config import AUTO, TrainConfig


def require_same_settings(
    out: Path, found: Checkpoint, spec: GraphSpec, config: TrainConfig, task: Mapping[str, Any]
) -> None:
    """A resumed run must be the same run (its learning rate's decay depends on the number of
    iterations, so that may not change either).

    Raises:
        CheckpointError: naming the setting that is another one.
    """
    # none of them changes what a step learns
    free = ("checkpoint_every", "on_error", "base_url", "stop_when_right")
    now = {**spec.to_json(), **asdict(config), "task": dict(task)}
    # a setting that an older run did not know has its default there
    then = {**asdict(TrainConfig()), **found.spec.to_json(), **found.training, "task": found.task}
    then["fuser_gradient"] = gradient_of(found)
    if not then["graph"]["prompt_date"]:  # no template asked, or the version did not fix it
        then["graph"] = {**then["graph"], "prompt_date": now["graph"]["prompt_date"]}
    if config.fuser_gradient == AUTO:
        now["fuser_gradient"] = then["fuser_gradient"]
    for name in plugin_files.changed(found.plugins):
        raise CheckpointError(
            f"{out} holds a run with another content of the file in {name!r} (SHA-256 {found.plugins[name][:12]}...); "
            "put the file back as it was to resume it, or pass another --out"
        )
    for name in sorted(now.keys() | then.keys()):
        if _plain(now.get(name)) != _plain(then.get(name)) and name not in free:
            raise CheckpointError(
                f"{out} holds a run with {name}={then.get(name)!r}, this one has {now.get(name)!r}; pass "
                "the same settings to resume it, or another --out"
            )


def gradient_of(found: Checkpoint) -> str:
    """What a stopped run took; one from before there was a choice took the last hop's."""
    return str(found.training.get("fuser_gradient", "decision"))


def _plain(value: Any) -> Any:
    """As JSON would bring it back; a plug-in's file may have been named from another folder."""
    return json.loads(json.dumps(_without_folders(value)))


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_folders(each) for name, each in value.items()}
    return plugin_files.without_folder(value) if isinstance(value, str) else value
