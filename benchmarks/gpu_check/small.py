"""Models that are small and exact enough to tell a rounding from a mistake, and what is asked of them.

Their weights are large, so that attention is far from uniform: a wrong mask or position shows in the first decimals.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_check.shapes import random_model
from benchmarks.gpu_check.tokenizer import MOST, SPECIAL, bpe_tokenizer
from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import CacheFuser
from gcache.cache.fusers.relevance import MATCH_GAIN, PRIOR_GAIN
from gcache.llm.local import LocalLLM
from gcache.llm.requests import ThinkRequest
from gcache.runtime.streams import generator

#: Agents with few words.
AGENTS = (
    Agent("solver", "The solver, who works it out.", "Find the number.", private="Ada has 3 books."),
    Agent("analyst", "The analyst, who names quantities.", "Name the known.", private="Ben has 2 apples and 1 box."),
    Agent("inspector", "The inspector, who looks for mistakes.", "Check it.", private="Emma buys 4 cards."),
)
DECISION = DecisionMaker("The decision maker.", "Write the number.")
ASKED = ("How many books does Ada have now?", "How many apples?", "How many cards are in the box?", "Who has stones?")
#: Of transformers: a family that has passes of its own here, or had when this was written, and that of the shapes.
FAMILIES = ("Llama", "Qwen3")
SIZES: dict[str, Any] = {
    "vocab_size": MOST + 24,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "initializer_range": 0.15,
    "bos_token_id": None,
    "eos_token_id": SPECIAL["<|im_end|>"],
    "pad_token_id": None,
}


@dataclass(frozen=True)
class Small:
    """One family's model.

    Attributes:
        single, double: of float32 and of float64 weights.
    """

    family: str
    single: LocalLLM
    double: LocalLLM

    @classmethod
    def of(cls, family: str, device: torch.device) -> Small:
        return cls(family, small_llm(family, device, torch.float32), small_llm(family, device, torch.float64))

    @property
    def device(self) -> torch.device:
        return self.single.device


def small_model(family: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A transformers model of a family; in float64 its norms are, too, which transformers computes in float32."""
    import transformers

    config = getattr(transformers, f"{family}Config")(**SIZES, tie_word_embeddings=family == "Qwen3")
    model = random_model(getattr(transformers, f"{family}ForCausalLM"), config, device, dtype, seed=1)
    for module in model.modules() if dtype == torch.float64 else ():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_norm, module)
    return model


def small_llm(family: str, device: torch.device, dtype: torch.dtype) -> LocalLLM:
    return LocalLLM(small_model(family, device, dtype), bpe_tokenizer(), family)


def _norm(module: Any, states: Tensor) -> Tensor:
    scale = torch.rsqrt(states.square().mean(-1, keepdim=True) + module.variance_epsilon)
    normed: Tensor = module.weight * (states * scale)
    return normed


@contextmanager
def full_precision() -> Iterator[None]:
    """Within it products of float32 are computed in float32: a GPU may round to 10 bits (TF32) where it is allowed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def tokens(count: int, *key: int | str) -> tuple[int, ...]:
    """Random ordinary tokens, the same for a key on every machine."""
    drawn = torch.randint(len(SPECIAL), 256, (count,), generator=generator("tokens", *key), device="cpu")
    return tuple(drawn.tolist())


def thought(
    llm: LocalLLM, words: tuple[int, ...], past: FusedCache | None = None, steps: int = 0, owner: int = 0
) -> FusedCache:
    """An agent's own slots, at weight 1."""
    return FusedCache.plain(llm.think([ThinkRequest(words, past, steps, owner)])[0])


def beside_largest(one: Tensor, other: Tensor) -> float:
    """The largest difference, to the largest of the numbers."""
    return apart(one, other) / max(float(other.detach().abs().max()), 1e-30)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference; infinite for tensors of unlike shapes."""
    return float((one - other).detach().abs().max()) if one.shape == other.shape else float("inf")


def reach(name: str) -> float:
    """How far a parameter of a fuser may be moved; the relevance fuser has gains on two of its own."""
    return 0.1 / {"match": MATCH_GAIN, "prior": PRIOR_GAIN}.get(name, 1.0)


def awake(fuser: CacheFuser) -> CacheFuser:
    """Away from the identity, where half of the gradients are zero."""
    source = generator("a fuser that is awake")
    with torch.no_grad():
        for name, parameter in fuser.named_parameters():
            noise = torch.randn(parameter.shape, generator=source, device="cpu")
            parameter.add_(reach(name) * noise.to(parameter.device))
    return fuser
