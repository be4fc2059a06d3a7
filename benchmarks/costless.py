"""A model and a tokenizer that cost nothing, so that what is left is the graph's own work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: (layers, key-value heads, head dimension) of its caches, and their slots.
SHAPE = (1, 1, 2)
SLOTS = 4

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class CostlessLLM:
    """Hands out caches and a text that were made beforehand, and counts what it was asked.

    Args:
        n_agents: its caches carry the sources of so many agents, in one round.
        device: where its caches are.
    """

    def __init__(self, n_agents: int, device: str = "cpu") -> None:
        self.caches = {source: _cache(source, device) for source in (SHARED, *range(n_agents))}
        self.written = Generation("1", (1,), (0.0,), True)
        self.calls = 0

    def think(self, requests: Sequence[ThinkRequest]) -> list[KVCache]:
        self.calls += len(requests)
        return [self.caches[request.owner] for request in requests]

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        self.calls += len(requests)
        return [self.written] * len(requests)


def _cache(source: int, device: str) -> KVCache:
    """The question's slots at the first positions, every agent's right behind, as branches of a tree."""
    layers, heads, dim = SHAPE
    ordinals = torch.arange(SLOTS, device=device)[None]
    kind = SlotKind.PREFIX if source == SHARED else SlotKind.PROMPT
    return KVCache(
        keys=torch.zeros(layers, 1, heads, SLOTS, dim, device=device),
        values=torch.zeros(layers, 1, heads, SLOTS, dim, device=device),
        positions=ordinals if source == SHARED else ordinals + SLOTS,
        mask=torch.ones_like(ordinals).bool(),
        kinds=torch.full_like(ordinals, int(kind)),
        owners=torch.full_like(ordinals, source),
        ordinals=ordinals,
    )


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, all of them alike, with ChatML turns."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<|im_end|>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<|im_end|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
