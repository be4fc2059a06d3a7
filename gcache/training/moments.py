"""Adam's moments, by the names of the parameters that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcache.errors import CheckpointError

#: What Adam knows of a parameter: its steps so far, the mean of its gradients, and that of their squares.
KINDS = ("step", "exp_avg", "exp_avg_sq")
_WAY_OUT = "take a whole copy, go on from an earlier checkpoint, or pass another --out"


def moments_of(parts: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """Copies of an optimizer's moments: NAME.step, NAME.exp_avg, NAME.exp_avg_sq; none without an optimizer."""
    if optimizer is None:
        return {}
    return {
        f"{name}.{key}": torch.as_tensor(value).detach().cpu().clone().contiguous()
        for name, parameter in parts.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def require_moments(
    path: Path,
    found: Mapping[str, Tensor],
    names: frozenset[str] | None,
    steps: int,
    parts: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> dict[Tensor, dict[str, Any]]:
    """The optimizer's state, made of moments that were read, in copies on its parameters' devices.

    Args:
        path: of the file, for errors.
        names: of the parameters that have moments, where the checkpoint says so.
        steps: that there were, at most.

    Raises:
        CheckpointError: moments are missing, or of another shape, type or parameter, or are no moments.
    """
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parameters = {name: p for name, p in parts.named_parameters() if id(p) in trained}
    strange = sorted(key for key in found if key.rpartition(".")[0] not in parameters or _kind(key) not in KINDS)
    if strange:
        raise CheckpointError(f"{path} has {strange[0]}, which is no moment of a parameter of this run; {_WAY_OUT}")
    present = {key.rpartition(".")[0] for key in found}
    if names is not None and names != present:
        raise CheckpointError(
            f"{path} has moments of {len(present)} parameters, but {len(names)} had some ("
            f"{min(names ^ present)} is in one alone); {_WAY_OUT}"
        )
    return {parameters[name]: _of_one(path, found, name, parameters[name], steps) for name in sorted(present)}


def _of_one(path: Path, found: Mapping[str, Tensor], name: str, parameter: nn.Parameter, steps: int) -> dict[str, Any]:
    own: dict[str, Tensor] = {}
    for kind in KINDS:
        shape = () if kind == "step" else tuple(parameter.shape)
        dtype = torch.float32 if kind == "step" else parameter.dtype
        value = found.get(f"{name}.{kind}")
        if value is None:
            raise CheckpointError(f"{path} lacks {name}.{kind}; {_WAY_OUT}")
        if (tuple(value.shape), value.dtype) != (shape, dtype):
            raise CheckpointError(
                f"{path}: {name}.{kind} is {tuple(value.shape)} of {value.dtype}, not {shape} of {dtype}; {_WAY_OUT}"
            )
        if not bool(torch.isfinite(value).all()) or (kind == "exp_avg_sq" and bool((value < 0).any())):
            raise CheckpointError(f"{path}: {name}.{kind} is not finite, or below 0; {_WAY_OUT}")
        own[kind] = value.clone() if kind == "step" else value.to(parameter.device, copy=True)
    count = float(own["step"])
    if not (count.is_integer() and 1 <= count <= steps):
        raise CheckpointError(f"{path}: {name}.step is {count:g}, not a whole number from 1 to {steps}; {_WAY_OUT}")
    return dict(own)


def _kind(key: str) -> str:
    return key.rpartition(".")[2]
