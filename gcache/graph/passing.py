"""A cache on its way over an edge, where an intervention may put another in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gcache.cache.kv_cache import KVCache
from gcache.cache.rope import Rope
from gcache.gnn.topology import Node
from gcache.runtime.streams import generator


@dataclass(frozen=True)
class Passing:
    """A cache on its way.

    Attributes:
        question: its text.
        sender, receiver: nodes of the graph; N is the decision maker.
        cache: what was handed on, prepared for fusing.
        shared: the question's slots.
        rope: the rotation of the receiver's model.
    """

    question: str
    sender: Node
    receiver: Node
    cache: KVCache
    shared: KVCache
    rope: Rope | None = None

    def stream(self, purpose: str) -> torch.Generator:
        """Random numbers for this question and edge, the same in every run."""
        return generator(purpose, self.question, *self.sender, "to", *self.receiver)


#: What arrives instead.
Intervention = Callable[[Passing], KVCache]
