"""Methods on one model in several quantizations: each loaded when its turn comes, and gone when the next one's does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Loaded = TypeVar("Loaded")


class SingleEntryCache(Generic[Loaded]):
    """Loads what is asked for by name, and holds the last of it alone.

    Args:
        load: from a quantization's name to what is loaded.
        weigh: bytes of its weights.
    """

    def __init__(self, load: Callable[[str], Loaded], weigh: Callable[[Loaded], int]) -> None:
        self._load, self._weigh = load, weigh
        self._held: tuple[str, Loaded] | None = None
        #: Bytes of weights, of everything that was loaded.
        self.nbytes: dict[str, int] = {}

    def get(self, name: str) -> Loaded:
        """It, loaded now unless it was the last."""
        if self._held is None or self._held[0] != name:
            self._held = None  # before the next is loaded: two may not fit
            self._held = (name, self._load(name))
            self.nbytes[name] = self._weigh(self._held[1])
        return self._held[1]
