"""Models of real shapes with random weights: what they compute means nothing, how long it takes does.

Weights are drawn in float32 on the device and rounded to the dtype that is asked for, so that one model can be had in
two precisions. Buffers stay as they are: the frequencies of the rotation are float32 in a model that is loaded, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from benchmarks.gpu_check.tokenizer import SPECIAL, bpe_tokenizer
from gcache.llm.load.loading import LoadedModel
from gcache.runtime.streams import derive

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM


@dataclass(frozen=True)
class Shape:
    """A Qwen3 decoder, by the names of its `config.json`.

    Attributes:
        parameters: how many the model card says, in billions, by what is tied.
        source: where the numbers are from.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    tie_word_embeddings: bool
    parameters: float
    source: str
    head_dim: int = 128
    vocab_size: int = 151_936
    max_position_embeddings: int = 40_960
    initializer_range: float = 0.02

    def config(self) -> Any:
        """A transformers configuration."""
        from transformers import Qwen3Config

        return Qwen3Config(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocab_size,
            max_position_embeddings=self.max_position_embeddings,
            tie_word_embeddings=self.tie_word_embeddings,
            initializer_range=self.initializer_range,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
            bos_token_id=None,
            eos_token_id=SPECIAL["<|im_end|>"],
            pad_token_id=None,
        )


#: By the name that `--shapes` has for them. The real ones: Yang et al., "Qwen3 Technical Report", 2025
#: (arXiv:2505.09388), table 1, and the `config.json` of each model's page.
SHAPES: Mapping[str, Shape] = {
    "tiny": Shape(64, 128, 2, 4, 2, True, 0.0, "made up, for a CPU", 16, 1024, 4096, 0.12),
    "0.6b": Shape(1024, 3072, 28, 16, 8, True, 0.6, "huggingface.co/Qwen/Qwen3-0.6B/raw/main/config.json"),
    "4b": Shape(2560, 9728, 36, 32, 8, True, 4.0, "huggingface.co/Qwen/Qwen3-4B/raw/main/config.json"),
    "8b": Shape(4096, 12288, 36, 32, 8, False, 8.2, "huggingface.co/Qwen/Qwen3-8B/raw/main/config.json"),
}


def load_shape(name: str, device: torch.device, dtype: torch.dtype, seed: int = 0) -> LoadedModel:
    """The model of a shape, frozen, with a tokenizer."""
    from transformers import Qwen3ForCausalLM

    model: Qwen3ForCausalLM = random_model(Qwen3ForCausalLM, SHAPES[name].config(), device, dtype, seed)
    return LoadedModel(model, bpe_tokenizer(), f"qwen3-{name}, random weights", f"random:{name}:{seed}")


def random_model(kind: Any, config: Any, device: torch.device, dtype: torch.dtype, seed: int) -> Any:
    """A transformers model of random weights, rounded to `dtype` where that is narrower than float32.

    Args:
        kind: its class. seed: of the weights, on a device of this kind.
    """
    drawn = torch.float64 if dtype == torch.float64 else torch.float32
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(derive("random weights", seed) % 2**32)
        torch.set_default_dtype(drawn)
        try:
            model = kind(config)
        finally:
            torch.set_default_dtype(before)
    narrowed(model, dtype)
    return model.eval().requires_grad_(False)


def narrowed(model: Any, dtype: torch.dtype) -> None:
    """Round every weight of a model to a dtype, one after another, so that few are there twice at once."""
    names = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    tied: dict[Any, nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            new = tied.get(old)
            if new is None:
                new = nn.Parameter(old.detach().to(dtype), requires_grad=False)
                if names[id(old)] > 1:
                    tied[old] = new
            setattr(module, name, new)
    model.config.dtype = dtype
