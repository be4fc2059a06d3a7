"""Models small enough to know by heart, and the installed one for the tests that need real text.

The tiny models are random, but their weights are large on purpose: attention is then far from
uniform, so that a wrong mask or position shows in the first decimal and not in the fifth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2ForCausalLM

    from gcache.llm.local import LocalLLM

#: 64 words: three special tokens, the digits, punctuation, the roles of a chat, and plain words.
WORDS: tuple[str, ...] = (
    *("<unk>", "<|im_start|>", "<|im_end|>"),
    *"0123456789",
    *(".", ",", "?", ":", "+", "-", "*", "/", "="),
    *("system", "user", "assistant"),
    *("a", "and", "answer", "apples", "are", "blue", "box", "critic", "each", "fact", "final", "find"),
    *("from", "give", "green", "has", "how", "in", "is", "it", "many", "of", "one", "plan", "planner"),
    *("question", "red", "she", "solve", "step", "sum", "the", "there", "think", "three", "to", "two"),
    *("what", "you"),
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random numbers, in whatever order tests are run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_llama() -> LlamaForCausalLM:
    """Two layers, fp32, input and output embeddings tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**TINY, tie_word_embeddings=True))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_qwen2() -> Qwen2ForCausalLM:
    """Two layers, fp32, embeddings not tied, biases on queries, keys and values."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(2)
    model = Qwen2ForCausalLM(Qwen2Config(**TINY, tie_word_embeddings=False))
    with torch.no_grad():
        for layer in model.model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                part.bias.normal_(std=0.5)  # transformers starts them at zero
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word or digit, ChatML turns, end of turn as end of text."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[0-9.,?:+*/=-]"), "isolated")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture(params=["tiny_llama", "tiny_qwen2"])
def tiny_llm(request: pytest.FixtureRequest, tiny_tokenizer: PreTrainedTokenizerFast) -> LocalLLM:
    """A LocalLLM over each of the two tiny models; made anew for every test, so it may be changed."""
    from gcache.llm.local import LocalLLM

    return LocalLLM(request.getfixturevalue(request.param), tiny_tokenizer, label=request.param)


@pytest.fixture(scope="session")
def embedded_llm() -> LocalLLM:
    """The installed model in fp32; the test is skipped where it is not installed."""
    from gcache.llm.loading import load_model
    from gcache.llm.local import LocalLLM
    from gcache.llm.sources import EMBEDDED, EMBEDDED_PACKAGE
    from gcache.settings import installed_file

    if installed_file(EMBEDDED_PACKAGE, ".gguf") is None:
        pytest.skip(f"{EMBEDDED_PACKAGE} is not installed")
    loaded = load_model(EMBEDDED, dtype="float32")
    return LocalLLM(loaded.model, loaded.tokenizer, label=loaded.label)
