"""Moving rotated keys along the sequence: the exact RoPE shift.

Keys are cached already rotated by their position p. Rotations of a plane add up,

    R(p + n) k = R(n) R(p) k,

so a cache computed at one place is carried to another by one more rotation (Su et al. 2021,
"RoFormer", eq. 13-15). That is exact only where the angles do not depend on how long the
sequence is; the variants where they do are refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gcache.errors import ModelError

#: RoPE variants whose angles are a fixed multiple of the position.
SHIFTABLE = ("default", "linear", "llama3", "yarn", "proportional")


@dataclass(frozen=True)
class Rope:
    """The rotation of one model.

    Attributes:
        inverse_frequencies: (R / 2,) radians per position, R = rotated dimensions of a head.
    """

    inverse_frequencies: Tensor

    @classmethod
    def of_model(cls, model: Any, label: str) -> Rope:
        """Read the rotation of a transformers decoder.

        Raises:
            ModelError: where positions are not rotary, depend on the sequence's length, or
                come in several kinds per model.
        """
        rotary = getattr(getattr(model, "model", None), "rotary_emb", None)
        if rotary is None:
            kind = getattr(model.config, "model_type", type(model).__name__)
            raise ModelError(
                f"model {label!r} ({kind}) cannot be used: its caches have no rotary positions, so they "
                "cannot be shifted; use a model with RoPE (Llama, Qwen2, SmolLM, ...)"
            )
        parameters = getattr(model.config, "rope_parameters", None) or {}
        variant = parameters.get("rope_type", getattr(rotary, "rope_type", "default"))
        if "mrope_section" in parameters:
            variant = "mrope"
        if variant not in SHIFTABLE:
            raise ModelError(
                f"model {label!r} cannot be used: RoPE variant {variant!r} cannot be shifted exactly; "
                f"allowed: {', '.join(SHIFTABLE)}"
            )
        frequencies = getattr(rotary, "inv_freq", None)
        if not isinstance(frequencies, Tensor) or frequencies.dim() != 1:
            raise ModelError(f"model {label!r} cannot be used: it rotates its layers in different ways")
        return cls(frequencies.detach().float())

    def rotate(self, keys: Tensor, offset: Tensor) -> Tensor:
        """Rotate keys (..., T, D) by `offset` positions, broadcastable to (..., T).

        Computed in float32 whatever the dtype of the keys; dimensions beyond the rotated ones
        (partial rotary models) are left as they are.
        """
        half = self.inverse_frequencies.numel()
        angles = offset.unsqueeze(-1).float() * self.inverse_frequencies.to(keys.device)  # (..., T, R/2)
        cos, sin = angles.cos(), angles.sin()
        wide = keys.float()
        first, second = wide[..., :half], wide[..., half : 2 * half]
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin, wide[..., 2 * half :]), dim=-1)
        return turned.to(keys.dtype)
