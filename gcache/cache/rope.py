"""Moving rotated keys along the sequence: the exact RoPE shift.

Keys are cached already rotated by their position p. Rotations of a plane add up,

    R(p + n) k = R(n) R(p) k,

so a cache computed at one place is carried to another by one more rotation (Su et al. 2021,
"RoFormer", eq. 13-15). That is exact only where the angles do not depend on how long the
sequence is; the variants where they do are refused by name. Some models leave the keys of some
layers as they are: there a shift changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gcache.errors import ConfigError, ModelError

#: RoPE variants whose angles are a fixed multiple of the position.
SHIFTABLE = ("default", "linear", "llama3", "yarn", "proportional")


@dataclass(frozen=True)
class Rope:
    """The rotation of one model.

    Attributes:
        inverse_frequencies: (R / 2,) radians per position, R = rotated dimensions of a head.
        still: numbers of the layers whose keys are not rotated.
        fixed: why a cache must stay where it was computed; empty where it can be moved.
    """

    inverse_frequencies: Tensor
    still: tuple[int, ...] = ()
    fixed: str = ""

    @classmethod
    def of_model(cls, model: Any, label: str) -> Rope:
        """Read the rotation of a transformers decoder.

        Raises:
            ModelError: where positions are not rotary, depend on the sequence's length, or
                come in several kinds per model.
        """
        rotary = _rotary_of(base_model(model))
        if rotary is None:
            kind = getattr(model.config, "model_type", type(model).__name__)
            raise ModelError(f"model {label!r} ({kind}) cannot be used: {_why_no_rotary(model)}")
        parameters = getattr(model.config, "rope_parameters", None) or {}
        name = "inv_freq"
        kinds = sorted(set(getattr(model.config, "layer_types", None) or ()))
        if len(kinds) == 1 and kinds[0] in parameters:  # of all kinds of layers that there could be, one
            name, parameters = f"{kinds[0]}_inv_freq", parameters[kinds[0]] or {}
        frequencies = getattr(rotary, name, None)
        if not isinstance(frequencies, Tensor) or frequencies.dim() != 1:
            raise ModelError(
                f"model {label!r} cannot be used: it rotates its layers in different ways, or some not at all, by its "
                "configuration; use a model with one rotation (Llama, Qwen2, SmolLM, ...)"
            )
        variant = parameters.get("rope_type", getattr(rotary, "rope_type", "default"))
        if "mrope_section" in parameters:
            variant = "mrope"
        if variant not in SHIFTABLE:
            raise ModelError(
                f"model {label!r} cannot be used: RoPE variant {variant!r} cannot be shifted exactly; "
                f"allowed: {', '.join(SHIFTABLE)}"
            )
        return cls(frequencies.detach().float())

    def anew(self, model: Any) -> Rope:
        """With the frequencies that the model's own function gives for its configuration, where its rotary module keeps
        one: such a module may compute them in every pass, and not use those that it holds, which are rounded with a
        model that is turned to half precision."""
        compute = getattr(_rotary_of(base_model(model)), "rope_init_fn", None)
        if compute is None:
            return self
        found: Tensor = compute(model.config)[0]
        return replace(self, inverse_frequencies=found.to(self.inverse_frequencies))

    def require_movable(self) -> None:
        """Raise ConfigError where a cache must stay where it was computed."""
        if self.fixed:
            raise ConfigError(
                f"caches of this model cannot be moved: {self.fixed}; use positions='parallel', a fuser other than "
                "weighted_sum, and controls other than 'other question', which move none"
            )

    def rotate(self, keys: Tensor, offset: Tensor) -> Tensor:
        """Rotate keys (..., T, D) by `offset` positions, broadcastable to (..., T).

        Computed in float32 whatever the dtype of the keys; dimensions beyond the rotated ones
        (partial rotary models) are left as they are, and so are `still` layers, of keys (L, ..., T, D).
        """
        half = self.inverse_frequencies.numel()
        angles = offset.unsqueeze(-1).float() * self.inverse_frequencies.to(keys.device)  # (..., T, R/2)
        cos, sin = angles.cos(), angles.sin()
        wide = keys.float()
        first, second = wide[..., :half], wide[..., half : 2 * half]
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin, wide[..., 2 * half :]), dim=-1)
        turned = turned.to(keys.dtype)
        if not self.still:
            return turned
        moves = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
        moves[list(self.still)] = False
        return torch.where(moves.view(-1, *[1] * (keys.dim() - 1)), turned, keys)


def base_model(model: Any) -> Any:
    """A transformers causal model without its head; None where it has none under a name that is known."""
    return getattr(model, base_name(model), None)


def base_name(model: Any) -> str:
    """The attribute that holds a transformers causal model without its head."""
    prefix = str(getattr(model, "base_model_prefix", "model"))
    return prefix if hasattr(model, prefix) else "model"


def _rotary_of(base: Any) -> Any:
    """The module beside a base model's layers that all of them take their angles from; None where there is none."""
    own = getattr(base, "rotary_emb", None)
    if own is None and isinstance(base, nn.Module):
        own = next((module for module in base.children() if _is_rotary(module)), None)
    return own


def _is_rotary(module: Any) -> bool:
    return "RotaryEmbedding" in type(module).__name__


def _why_no_rotary(model: Any) -> str:
    """What stands in the way of reading a model's rotation."""
    inside = isinstance(model, nn.Module) and any(_is_rotary(module) for module in model.modules())
    if inside or any(name.startswith("rotary") for name in vars(model.config)):
        return (
            "it has rotary positions, but no part beside its layers that all of them take their angles from, so those "
            "cannot be read; use a model that has (Llama, Qwen2, SmolLM, ...)"
        )
    return (
        "its caches have no rotary positions, so they cannot be shifted; use a model with RoPE (Llama, Qwen2, "
        "SmolLM, ...)"
    )
