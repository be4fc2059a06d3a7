"""Checkpoints: safetensors and JSON, written whole or not at all, never unpickled.

    OUT/checkpoints/step-000060/weights.safetensors     policy.*, fuser.*
                                optimizer.safetensors   Adam's moments
                                checkpoint.json         step, graph, training settings, model
    OUT/checkpoints/latest                              the folder's name

Each file says whether it is what was written (`gcache.training.sealed`), and all are on the disk before `latest` is.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcache.build import Built, assemble, build
from gcache.config import NAMES, GraphSpec, TaskSpec
from gcache.errors import CheckpointError, ConfigError
from gcache.files import sync_file, sync_folder, write_bytes, write_text
from gcache.gnn.providers import PolicyProvider
from gcache.gnn.team import Team
from gcache.graph.agent_graph import AgentGraph
from gcache.llm.api.client import ApiLLM
from gcache.llm.cache_budget import Limits
from gcache.llm.load.fingerprint import comparable, tensors_hash
from gcache.runtime import plugin_files
from gcache.tasks.example import Task
from gcache.training import step_folders
from gcache.training.checkpoint_record import FORMAT, Record, read_record
from gcache.training.moments import moments_of, require_moments
from gcache.training.sealed import read_tensors, sealed, tensor_file
from gcache.training.step_folders import POINTER, RECORD, WRITING, has_checkpoint

__all__ = [
    "Checkpoint", "CheckpointError", "State", "has_checkpoint", "learned", "read", "restore", "restore_policy",
    "take", "trainable", "write",
]  # fmt: skip

logger = logging.getLogger(__name__)

WEIGHTS, OPTIMIZER = "weights.safetensors", "optimizer.safetensors"
#: What makes another model of the same weights.
OF_MODEL = ("dtype", "quantization", "latent_space_realign")


@dataclass(frozen=True)
class Checkpoint(Record):
    """A checkpoint that was read, not yet loaded into anything."""

    folder: Path
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


@dataclass(frozen=True)
class State:
    """What a checkpoint is written from: a copy, which training that goes on does not change."""

    step: int
    record: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]


def trainable(built: Built) -> nn.ModuleDict:
    """All that learns, under the names checkpoints use."""
    return nn.ModuleDict({name: part.module for name, part in built.parts.items()})


def learned(built: Built) -> str:
    """What stands for all that a graph has learned so far: its weights, and what was pruned."""
    provider = built.graph.topology_provider
    pruned = sorted(provider.pruned) if isinstance(provider, PolicyProvider) else []
    return f"{tensors_hash(_flat(trainable(built).state_dict()))} {pruned}"


def take(
    step: int,
    built: Built,
    optimizer: torch.optim.Optimizer | None,
    task: Mapping[str, Any],
    training: Mapping[str, Any],
    running: float = 0.0,
    watched: Sequence[Any] = (),
) -> State:
    """Copy what there is after a step.

    Args:
        running: the running mean of utilities, for the baseline "ema".
        watched: see `gcache.training.pruning.Pruner.to_json`.
    """
    provider, parts = built.graph.topology_provider, trainable(built)
    moments = moments_of(parts, optimizer)
    named = [*(getattr(built.spec, name) for name in NAMES), task.get("name"), training.get("anchor")]
    plugins = plugin_files.hashes(named)
    record = {
        "format": FORMAT,
        "step": step,
        "graph": built.spec.to_json(),
        "task": dict(task),
        "training": dict(training),
        "running_utility": running,
        "pruned": sorted(provider.pruned) if isinstance(provider, PolicyProvider) else [],
        "watched_edges": list(watched),
        "model_fingerprint": built.fingerprint,
        **({"plugins": plugins} if plugins else {}),  # versions from before there were any read all other checkpoints
        "moments": None if optimizer is None else sorted({name.rpartition(".")[0] for name in moments}),
    }
    return State(step, record, {name: value.clone() for name, value in _flat(parts.state_dict()).items()}, moments)


def write(out: Path, state: State, keep: int = 2) -> Path:
    """Write a checkpoint, then point `latest` at it, then drop those before it, all but the last `keep` with it.

    Raises:
        CheckpointError: there is no room, or no permission; the checkpoint before it is still there.
    """
    root = out / "checkpoints"
    folder = root / step_folders.name_of(state.step)
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=root, prefix=WRITING))
        try:
            _fill(temporary, state)
            step_folders.put(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        write_text(root / POINTER, folder.name + "\n", durable=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(
            f"the checkpoint of step {state.step} cannot be written to {folder} ({reason}); make room for it, and "
            "start the same command again: it goes on from the checkpoint before"
        ) from error
    try:
        step_folders.tidy(root, state.step, keep)
    except OSError as error:
        logger.warning("older checkpoints in %s cannot be removed: %s", root, error)
    return folder


def _fill(folder: Path, state: State) -> None:
    record = sealed(json.loads(json.dumps(state.record)))
    write_bytes(folder / WEIGHTS, tensor_file(state.weights, state.step))
    write_bytes(folder / OPTIMIZER, tensor_file(state.optimizer, state.step))
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
    os.chmod(folder, 0o755)
    for file in (WEIGHTS, OPTIMIZER, RECORD):
        sync_file(folder / file)
    sync_folder(folder)


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint: its own folder, or the --out folder of a training run.

    Raises:
        CheckpointError: nothing there, or a file of it is broken.
    """
    folder = step_folders.find(Path(path))
    record = read_record(folder)
    weights, optimizer = (_receiver_too(read_tensors(folder / file, record.step)) for file in (WEIGHTS, OPTIMIZER))
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{folder / WEIGHTS}: {name} is not finite; take a whole copy, or name another")
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return Checkpoint(**values, folder=folder, weights=weights, optimizer=optimizer)


def _receiver_too(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of policies from before an edge's receiver was looked at: t = 0 says the same."""
    old = (2,)
    return {
        name: torch.cat((tensor, torch.zeros(1)))
        if name.startswith("policy.agreement") and tuple(tensor.shape) == old
        else tensor
        for name, tensor in tensors.items()
    }


def restore(checkpoint: Checkpoint, built: Built, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Load the weights, and the optimizer's moments where one is given.

    Raises:
        CheckpointError: made for another model, or of another shape; nothing is loaded then.
    """
    _warn_of_changes(checkpoint)
    if not comparable(checkpoint.fingerprint):
        logger.warning(
            "checkpoint %s does not say well enough which weights it was trained on; that it was %r is not checked",
            checkpoint.folder, built.spec.llm_name,
        )  # fmt: skip
    elif built.fingerprint and checkpoint.fingerprint and built.fingerprint != checkpoint.fingerprint:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder} was trained on the model {checkpoint.fingerprint}, but "
            f"{built.spec.llm_name!r} is {built.fingerprint}; load it with the model it was trained on"
        )
    target = trainable(built)
    _require_alike(checkpoint, _flat(target.state_dict()), checkpoint.weights)
    moments: dict[Tensor, dict[str, Any]] = {}
    if optimizer is not None:
        moments = require_moments(
            checkpoint.folder / OPTIMIZER, checkpoint.optimizer, checkpoint.moments, checkpoint.step, target, optimizer
        )
    target.load_state_dict(checkpoint.weights)
    _restore_pruned(checkpoint, built.graph)
    if optimizer is not None:
        optimizer.state.update(moments)


def restore_policy(checkpoint: Checkpoint, team: Team) -> None:
    """Load the policy alone, into a team that has one; no language model is needed for that.

    Raises:
        CheckpointError: of another shape; nothing is loaded then.
    """
    _warn_of_changes(checkpoint)
    provider = team.topology_provider
    if isinstance(provider, PolicyProvider):
        own = {
            name.removeprefix("policy."): value
            for name, value in checkpoint.weights.items()
            if name.startswith("policy.")
        }
        _require_alike(checkpoint, _flat(provider.policy.state_dict()), own)
        provider.policy.load_state_dict(own)
        _restore_pruned(checkpoint, team)


def _warn_of_changes(checkpoint: Checkpoint) -> None:
    """A run is not resumed with another file (see `gcache.training.same_run`), but whoever names it may evaluate."""
    for name in plugin_files.changed(checkpoint.plugins):
        logger.warning(
            "checkpoint %s was trained with another content of the file in %r; it is used as it is now",
            checkpoint.folder,
            name,
        )


def _require_alike(checkpoint: Checkpoint, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name in sorted(expected.keys() | found.keys()):
        here = tuple(expected[name].shape) if name in expected else "absent"
        there = tuple(found[name].shape) if name in found else "absent"
        if here != there:
            raise CheckpointError(
                f"checkpoint {checkpoint.folder} is of another shape: {name} is {there} in it and {here} in this "
                "run; pass the settings it was trained with, or another --out"
            )
        if expected[name].dtype != found[name].dtype:
            raise CheckpointError(
                f"checkpoint {checkpoint.folder}: {name} is {found[name].dtype} in it and {expected[name].dtype} in "
                "this run; take a whole copy, or pass another --out"
            )


def _restore_pruned(checkpoint: Checkpoint, team: Team) -> None:
    provider = team.topology_provider
    if isinstance(provider, PolicyProvider):
        provider.pruned = frozenset(checkpoint.pruned)


def _flat(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def load(
    path: str | Path,
    llm_name: str | None = None,
    device: str | None = None,
    limits: Limits | None = None,
    api: Callable[[GraphSpec], ApiLLM] | None = None,
    dtype: str | None = None,
) -> tuple[Built, TaskSpec]:
    """A trained graph and the task it was trained on, from a checkpoint.

    Args:
        llm_name, device: override where the same model is to be found or put.
        limits: how much the model may take at once.
        api: makes what is asked where the checkpoint's mode asks an API; None for one of its own
            and the environment's settings.
        dtype: of the model, where it is not to be the one it was trained with.

    Raises:
        CheckpointError: missing, broken, or made for another model.
    """
    found = read(path)
    task_spec = TaskSpec.from_json(found.task, found.folder)
    values = found.spec.to_json()
    instead = {"llm_name": llm_name, "device": device, "dtype": dtype}
    values.update({k: v for k, v in instead.items() if v is not None})
    spec = GraphSpec.from_json(values)
    built = build(spec, limits, api(spec) if api and spec.generation_mode != "local" else None)
    restore(found, built)
    return built, task_spec


def load_graph(
    path: str | Path, limits: Limits | None = None, api: Callable[[GraphSpec], ApiLLM] | None = None
) -> AgentGraph:
    """The trained graph of a checkpoint, ready to `run`.

    Args:
        path: the folder of a run, or of one checkpoint.
        limits: how much the model may take at once.
        api: makes the API of a graph that asks one; None for what the checkpoint and the environment say.

    Raises:
        CheckpointError: there is no checkpoint, or it is broken, or its model is not the one it was trained with.
        ModelError: the model cannot be had.
    """
    return load(path, limits=limits, api=api)[0].graph


def require_domain(checkpoint: str | Path, spec: GraphSpec, task: Task) -> None:
    """Raise CheckpointError where a checkpoint's agents are not those of the task's domain."""
    if task.domain != spec.domain:
        raise CheckpointError(
            f"checkpoint {checkpoint} has agents for {spec.domain}, the task {task.name!r} needs {task.domain}"
        )


def require_beside(path: str | Path, spec: GraphSpec, other: GraphSpec) -> None:
    """Raise ConfigError where a graph needs more than one local model, or has its model in another way than `other`."""
    if spec.agent_models or spec.generation_mode != "local":
        raise ConfigError(f"checkpoint {path} needs more than one local model; it cannot be put beside another")
    for name in OF_MODEL:
        own, loaded = getattr(spec, name), getattr(other, name)
        if own != loaded:
            raise ConfigError(
                f"checkpoint {path} has --{name} {own}, and the one it is put beside has {loaded}; they would share a "
                "model, so name them apart"
            )
    if spec.graph.chat_template_kwargs != other.graph.chat_template_kwargs:
        raise ConfigError(
            f"checkpoint {path} has other --chat_template_kwargs than the one it is put beside; they would share a "
            "model, so name them apart"
        )


def load_beside(path: str | Path, built: Built) -> Built:
    """A trained graph on a model that is loaded already, that of another graph.

    Raises:
        CheckpointError: missing, broken, or made for another model.
        ConfigError: its agents think with several models, its mode asks an API, or it has the model in another dtype,
            quantization, latent map or chat template.
    """
    found = read(path)
    require_beside(path, found.spec, built.spec)
    assert built.llm is not None
    made = assemble(found.spec, built.llm, built.llm.tokenizer, built.fingerprint)
    restore(found, made)
    return made
