"""Pairs of tiny models that are one function in other coordinates, and graphs across them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from conftest import CHAT_TEMPLATE, TINY, WORDS

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.cache.fusers.registry import make_fuser
from gcache.gnn.providers import FixedProvider
from gcache.graph.agent_models import AgentModel, AgentModels
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.links.link import Link, ModelEnds
from gcache.llm.local import LocalLLM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: 160 words: those of the tiny tokenizer, and as many more as it takes for an overlap.
MANY_WORDS = (*WORDS, *(f"word{number}" for number in range(96)))
AGENTS = (Agent("planner", "the planner", "plan the sum"), Agent("critic", "the critic", "find it"))
QUESTION = "what is 2 + 3"


def tokenizer_of(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """As the tiny tokenizer, with these words under these numbers."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[0-9.,?:+*/=-](?![a-z0-9])"), "isolated")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def model_of(words: int, tied: bool = True, seed: int = 1, **changes: Any) -> Any:
    """A tiny Llama whose norms have weights, as those of trained models do."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**TINY, "vocab_size": words, **changes}, tie_word_embeddings=tied))
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 2.0)
    return model.eval().requires_grad_(False)


def rotation(width: int, seed: int = 0) -> torch.Tensor:
    """A random orthogonal matrix, float64."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


@torch.no_grad()
def rotated(model: Any, turn: torch.Tensor) -> Any:
    """A Llama whose hidden space is turned by an orthogonal matrix Q (E, E).

    Every norm's weights are folded into what reads it, which leaves norms that commute with Q; then everything that
    writes into the hidden space is multiplied by Q, everything that reads it by Q'. Input and output embeddings,
    tied or not before, are two matrices afterwards.
    """
    made = copy.deepcopy(model)
    made.config.tie_word_embeddings = False
    made.lm_head = torch.nn.Linear(*reversed(model.lm_head.weight.shape), bias=False, dtype=model.lm_head.weight.dtype)
    made.lm_head.weight.copy_(model.lm_head.weight)

    def reads(layer: Any, norm: Any) -> None:
        layer.weight.copy_((layer.weight.double() * norm.weight.double()) @ turn)

    def writes(layer: Any) -> None:
        layer.weight.copy_(turn.T @ layer.weight.double())

    made.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight.double() @ turn)
    for block in made.model.layers:
        for part in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
            reads(part, block.input_layernorm)
        writes(block.self_attn.o_proj)
        for part in (block.mlp.gate_proj, block.mlp.up_proj):
            reads(part, block.post_attention_layernorm)
        writes(block.mlp.down_proj)
        block.input_layernorm.weight.fill_(1.0)
        block.post_attention_layernorm.weight.fill_(1.0)
    reads(made.lm_head, made.model.norm)
    made.model.norm.weight.fill_(1.0)
    return made.eval().requires_grad_(False)


@torch.no_grad()
def renumbered(model: Any, order: Sequence[int]) -> Any:
    """A model whose token number n is the other's number order[n]."""
    made = copy.deepcopy(model)
    index = torch.tensor(list(order))
    rows = [made.model.embed_tokens.weight]
    if made.lm_head.weight.data_ptr() != rows[0].data_ptr():
        rows.append(made.lm_head.weight)
    for weight in rows:
        weight.copy_(weight[index].clone())
    made.generation_config.eos_token_id = list(order).index(model.generation_config.eos_token_id)
    return made


def ends(model: Any, tokenizer: Any, name: str) -> ModelEnds:
    return ModelEnds.of(model, tokenizer, name, f"of {name}")


def across(
    main: tuple[Any, Any], other: tuple[Any, Any], link: Link | None, topology: str = "chain",
    on: Sequence[int] = (1,), back: Link | None = None, fuser: str = "concat", **config: Any,
) -> CacheGraph:  # fmt: skip
    """A graph whose decision maker is on one model and whose agents are on another, each as (model, tokenizer).

    Args:
        link: from the agents' to the decision maker's; back: the other way.
        on: of each agent: 0 is the decision maker's model.
    """
    first, second = (LocalLLM(model, tokenizer) for model, tokenizer in (main, other))
    its = make_fuser("concat", second.cache_shape, "parallel", second.rope)
    agent_models = AgentModels((AgentModel(second, other[1], its),), tuple(on), {(1, 0): link, (0, 1): back})
    return CacheGraph(
        first, main[1], AGENTS, DecisionMaker("decides", "answer"), FixedProvider(topology),
        make_fuser(fuser, first.cache_shape, "parallel", first.rope),
        GraphConfig(**{"latent_steps": 3, "max_new_tokens": 6, **config}), agent_models=agent_models,
    )  # fmt: skip
