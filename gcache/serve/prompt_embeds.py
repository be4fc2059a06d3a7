"""Prompt embeddings as they come from strangers: base64 of a saved tensor.

What vLLM takes is taken: whatever `torch.save` makes of one tensor of floating point (S, E), or (1, S, E), also of a
view, a transposed one or a parameter. It is read by `gcache.serve.saved_tensor`, so nothing that came is unpickled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcache.serve.refusals import Refused
from gcache.serve.saved_tensor import NoTensorError, read_saved


def decoded(raw: bytes, width: int, most: int, dtype: torch.dtype) -> Tensor:
    """(S, E) embeddings in the model's dtype, a copy of their own.

    Args:
        raw: a tensor as `torch.save` writes it.
        width: E, the model's.
        most: rows.

    Raises:
        Refused: anything but a dense, finite float tensor of this width.
    """
    try:
        saved = read_saved(raw)
    except NoTensorError as error:
        raise _refused(str(error)) from error
    size = saved.size[1:] if len(saved.size) == 3 and saved.size[0] == 1 else saved.size
    if len(size) != 2 or size[1] != width or not 1 <= size[0] <= most:
        # looked at before anything is laid out: one number can claim to be a tensor of any size
        raise _refused(f"its shape must be (1 to {most}, {width}), got {saved.size}")
    own = saved.tensor().view(size).to(dtype)
    if not bool(torch.isfinite(own).all()):
        raise _refused(f"it has values that are not finite in the model's {str(dtype).removeprefix('torch.')}")
    return own


def _refused(why: str) -> Refused:
    return Refused(400, f"prompt_embeds is refused: {why}", "prompt_embeds")
