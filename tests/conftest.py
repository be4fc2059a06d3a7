"""Models small enough to know by heart, and the installed one for the tests that need real text.

The tiny models are random, but their weights are large on purpose: attention is then far from
uniform, so that a wrong mask or position shows in the first decimal and not in the fifth.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import needs
import pytest
import torch
from needs import pytest_terminal_summary  # noqa: F401  (pytest looks for it here)

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache, SlotKind
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2ForCausalLM, Qwen3ForCausalLM

    from gcache.llm.local import LocalLLM

# tests that run side by side share the cores; more threads than cores wait for each other
_THREADS = max(1, torch.get_num_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
torch.set_num_threads(_THREADS)
os.environ["OMP_NUM_THREADS"] = str(_THREADS)

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
def tiny_qwen3() -> Qwen3ForCausalLM:
    """Two layers, fp32, tied embeddings, norms of each head's queries and keys."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(3)
    model = Qwen3ForCausalLM(Qwen3Config(**TINY, tie_word_embeddings=True))
    with torch.no_grad():
        for layer in model.model.layers:
            for part in (layer.self_attn.q_norm, layer.self_attn.k_norm):
                part.weight.uniform_(0.5, 2.0)  # transformers starts them at one
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


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> Path:
    """The tiny Llama and its tokenizer as a folder that can be loaded."""
    folder = tmp_path_factory.mktemp("tiny-model")
    tiny_llama.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["tiny_llama", "tiny_qwen2"])
def tiny_llm(request: pytest.FixtureRequest, tiny_tokenizer: PreTrainedTokenizerFast) -> LocalLLM:
    """A LocalLLM over each of the two tiny models; made anew for every test, so it may be changed.

    One goes through torch's operators, the other through compiled code where there is a compiler.
    """
    from gcache.llm.cache_budget import Limits
    from gcache.llm.local import LocalLLM

    limits = Limits(native=request.param == "tiny_qwen2")
    llm = LocalLLM(request.getfixturevalue(request.param), tiny_tokenizer, label=request.param, limits=limits)
    llm.pass_seconds = None  # how many guesses pay is not to depend on a clock
    return llm


@pytest.fixture
def other_llm(tiny_tokenizer: PreTrainedTokenizerFast) -> LocalLLM:
    """A LocalLLM over a decoder that `PlainDecoder` does not know: its passes go through transformers."""
    from transformers import GraniteConfig, GraniteForCausalLM

    from gcache.llm.local import LocalLLM

    torch.manual_seed(4)
    model = GraniteForCausalLM(GraniteConfig(**TINY, tie_word_embeddings=True)).eval()
    return LocalLLM(model, tiny_tokenizer, "other")


@pytest.fixture(scope="session")
def embedded_llm() -> LocalLLM:
    """The installed model in fp32; the test is skipped where it is not installed."""
    from gcache.llm.load.loading import load_model
    from gcache.llm.load.locate import EMBEDDED, EMBEDDED_PACKAGE
    from gcache.llm.local import LocalLLM

    needs.weights(EMBEDDED_PACKAGE, ".gguf")
    loaded = load_model(EMBEDDED, dtype="float32")
    return LocalLLM(loaded.model, loaded.tokenizer, label=loaded.label)


@dataclass
class ScriptedLLM:
    """Computes nothing, writes what it is told to, and keeps every batch that it was asked for.

    Its caches have one layer and one head of two float32 numbers, so a slot is 16 bytes. A key is
    the slot's name (source, ordinal); a value is (token id, 0), with -1 for a latent.

    Attributes:
        write: the text that answers a request; one token a word, each of log-probability -1/2.
        breaks_on: requests for which a whole call raises RuntimeError.
        thoughts, texts: the batches of the two calls that succeeded, in order.
    """

    write: Callable[[GenerateRequest], str] = lambda _: "1"
    breaks_on: Callable[[ThinkRequest | GenerateRequest], bool] = lambda _: False
    thoughts: list[list[ThinkRequest]] = field(default_factory=list)
    texts: list[list[GenerateRequest]] = field(default_factory=list)

    def think(self, requests: Sequence[ThinkRequest]) -> list[KVCache]:
        self._check(requests)
        self.thoughts.append(list(requests))
        return [self._slots(request) for request in requests]

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        self._check(requests)
        self.texts.append(list(requests))
        written = [self.write(request) for request in requests]
        return [Generation(t, tuple(range(len(t.split()))), (-0.5,) * len(t.split()), True) for t in written]

    def _check(self, requests: Sequence[ThinkRequest | GenerateRequest]) -> None:
        if any(self.breaks_on(request) for request in requests):
            raise RuntimeError("the model broke")

    @property
    def asked(self) -> list[list[int]]:
        """The owners of every batch of thoughts."""
        return [[request.owner for request in batch] for batch in self.thoughts]

    @staticmethod
    def words(past: FusedCache | None, source: int) -> tuple[int, ...]:
        """The token ids that a source's slots stand for."""
        if past is None:
            return ()
        return tuple(past.values[0, 0, 0, past.owners[0] == source, 0].long().tolist())

    @staticmethod
    def _slots(request: ThinkRequest) -> KVCache:
        ids = torch.tensor([*request.tokens, *[-1] * request.latent_steps])
        ordinals = torch.arange(len(ids))[None]
        owners = torch.full_like(ordinals, request.owner)
        start = 0 if request.past is None else int(request.past.next_positions[0])
        return KVCache(
            keys=torch.stack((owners, ordinals), dim=-1).float()[None, :, None],
            values=torch.stack((ids, torch.zeros_like(ids)), dim=-1).float()[None, None, None],
            positions=start + ordinals,
            mask=torch.ones_like(ordinals).bool(),
            kinds=torch.where(ids[None] < 0, int(SlotKind.LATENT), int(request.kind)),
            owners=owners,
            ordinals=ordinals,
        )


@pytest.fixture
def scripted_llm() -> ScriptedLLM:
    return ScriptedLLM()


@pytest.fixture
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is kept between runs is kept in a folder of the test alone."""
    monkeypatch.setenv("GCACHE_HOME", str(tmp_path / "home"))
