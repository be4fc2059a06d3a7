"""How a model that cannot be used is refused: by name, in one line, with the way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from gcache.errors import ModelError

if TYPE_CHECKING:
    pass

WAY_OUT = "use a model of another family (Llama, Qwen2, Qwen3, SmolLM3, ...)"


def kind_of(model: Any) -> str:
    """The name of a model's family."""
    return str(getattr(model.config, "model_type", type(model).__name__))


@contextmanager
def refusing(model: Any, label: str, what: str) -> Iterator[None]:
    """Whatever goes wrong in another library's code while a model is tried is a reason not to use it."""
    try:
        yield
    except (ModelError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # families share no class of errors
        why = f"{type(error).__name__}: {error}".partition("\n")[0][:160]
        raise ModelError(f"model {label!r} ({kind_of(model)}) cannot be used: {what} ({why}); {WAY_OUT}") from error
