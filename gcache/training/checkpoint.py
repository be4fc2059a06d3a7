"""Checkpoints: safetensors and JSON, written whole or not at all, never unpickled.

    OUT/checkpoints/step-000060/weights.safetensors     policy.*, fuser.*
                                optimizer.safetensors   Adam's moments
                                checkpoint.json         step, graph, training settings, model
    OUT/checkpoints/latest                              the folder's name
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gcache.build import Built, GraphSpec
from gcache.errors import CheckpointError
from gcache.files import write_text
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.cast import Cast
from gcache.graph.sources import PolicySource, RoleEdge
from gcache.llm.fingerprint import comparable

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read, not yet loaded into anything."""

    folder: Path
    step: int
    spec: GraphSpec
    task: dict[str, Any]
    training: dict[str, Any]
    running: float
    pruned: tuple[RoleEdge, ...]
    watched: list[Any]
    fingerprint: str
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def trainable(built: Built) -> nn.ModuleDict:
    """All that learns, under the names checkpoints use."""
    parts: dict[str, nn.Module] = {"fuser": built.graph.fuser} if isinstance(built.graph, CacheGraph) else {}
    if built.policy is not None:
        parts["policy"] = built.policy
    return nn.ModuleDict(parts)


def save(
    out: Path,
    step: int,
    built: Built,
    optimizer: torch.optim.Optimizer | None,
    task: Mapping[str, Any],
    training: Mapping[str, Any],
    running: float = 0.0,
    watched: Sequence[Any] = (),
    keep: int = 2,
) -> Path:
    """Write a checkpoint, then point `latest` at it, then drop all but the last `keep`.

    Args:
        running: the running mean of utilities, for the baseline "ema".
        watched: see `gcache.training.pruning.Pruner.to_json`.
    """
    source = built.graph.source_of_topologies
    root = out / "checkpoints"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"step-{step:06d}"
    temporary = Path(tempfile.mkdtemp(dir=root, prefix=".writing-"))
    try:
        save_file(_flat(trainable(built).state_dict()), temporary / "weights.safetensors")
        save_file(_moments(built, optimizer), temporary / "optimizer.safetensors")
        record = {
            "format": FORMAT,
            "step": step,
            "graph": built.spec.to_json(),
            "task": dict(task),
            "training": dict(training),
            "running_utility": running,
            "pruned": sorted(source.pruned) if isinstance(source, PolicySource) else [],
            "watched_edges": list(watched),
            "model_fingerprint": built.fingerprint,
        }
        write_text(temporary / "checkpoint.json", json.dumps(record, indent=2) + "\n")
        os.chmod(temporary, 0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    write_text(root / "latest", folder.name + "\n")
    for old in sorted(root.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return folder


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint: its own folder, or the --out folder of a training run.

    Raises:
        CheckpointError: nothing there, or a file of it is broken.
    """
    folder = _find(Path(path))
    try:
        record = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise CheckpointError(f"checkpoint {folder} has format {record['format']}, this version reads {FORMAT}")
        return Checkpoint(
            folder,
            int(record["step"]),
            GraphSpec.from_json(record["graph"]),
            dict(record["task"]),
            dict(record["training"]),
            float(record.get("running_utility", 0.0)),
            tuple((str(s), str(t), int(d)) for s, t, d in record.get("pruned", ())),
            list(record.get("watched_edges", ())),
            str(record["model_fingerprint"]),
            _receiver_too(load_file(folder / "weights.safetensors")),
            _receiver_too(load_file(folder / "optimizer.safetensors")),
        )
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"checkpoint {folder} cannot be read ({why}); train again, or name another") from error


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
    _require_shapes(checkpoint, _flat(target.state_dict()), checkpoint.weights)
    target.load_state_dict(checkpoint.weights)
    _restore_pruned(checkpoint, built.graph)
    if optimizer is not None:
        _restore_moments(checkpoint, target, optimizer)


def restore_policy(checkpoint: Checkpoint, cast: Cast) -> None:
    """Load the policy alone, into a cast that has one; no language model is needed for that.

    Raises:
        CheckpointError: of another shape; nothing is loaded then.
    """
    source = cast.source_of_topologies
    if isinstance(source, PolicySource):
        own = {
            name.removeprefix("policy."): value
            for name, value in checkpoint.weights.items()
            if name.startswith("policy.")
        }
        _require_shapes(checkpoint, _flat(source.policy.state_dict()), own)
        source.policy.load_state_dict(own)
        _restore_pruned(checkpoint, cast)


def _require_shapes(checkpoint: Checkpoint, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name in sorted(expected.keys() | found.keys()):
        here = tuple(expected[name].shape) if name in expected else "absent"
        there = tuple(found[name].shape) if name in found else "absent"
        if here != there:
            raise CheckpointError(
                f"checkpoint {checkpoint.folder} is of another shape: {name} is {there} in it and {here} in this "
                "run; pass the settings it was trained with, or another --out"
            )


def _restore_pruned(checkpoint: Checkpoint, cast: Cast) -> None:
    source = cast.source_of_topologies
    if isinstance(source, PolicySource):
        source.pruned = frozenset(checkpoint.pruned)


def _find(path: Path) -> Path:
    if (path / "checkpoint.json").is_file():
        return path
    root = path / "checkpoints"
    pointer = root / "latest"
    if pointer.is_file():
        folder = root / pointer.read_text(encoding="utf-8").strip()
        if (folder / "checkpoint.json").is_file():
            return folder
    raise CheckpointError(
        f"no checkpoint in {str(path)!r}; pass the --out folder of a `gcache train` run, or one of its "
        "checkpoints/step-* folders"
    )


def has_checkpoint(out: Path) -> bool:
    """Whether a training run left a checkpoint in this folder."""
    return (out / "checkpoints" / "latest").is_file()


def _flat(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _moments(built: Built, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    if optimizer is None:
        return {}
    return {
        f"{name}.{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for name, parameter in trainable(built).named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _restore_moments(checkpoint: Checkpoint, target: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for name, parameter in target.named_parameters():
        own = {
            key.removeprefix(f"{name}."): value.clone()
            for key, value in checkpoint.optimizer.items()
            if key.rpartition(".")[0] == name
        }
        if own:
            optimizer.state[parameter] = own


