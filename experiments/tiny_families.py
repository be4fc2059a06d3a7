"""A tiny model of random weights of every causal language model family that transformers knows, from its
configuration alone.

Weights are drawn wide, so that attention is far from uniform and a wrong scale, mask or position shows in the first
decimal. Windows are made shorter than the prompts that are tried.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

#: Slots that a window reaches over, where a family has one.
WINDOW = 4
LAYERS = 4
WINDOWS = {"sliding_window", "sliding_window_size", "attention_chunk_size", "layer_types"}
#: Fields of configurations, as words, by the number that they get; a family takes those that it has.
BY_NUMBER: Mapping[Any, str] = {
    97: "vocab_size vocab_size_per_layer_input unpadded_vocab_size audio_vocab_size",
    32: "hidden_size d_model n_embd dim_model emb_dim embedding_size lru_width",
    LAYERS: "num_hidden_layers n_layer n_layers decoder_layers num_layers num_attention_heads n_head n_heads "
    "decoder_attention_heads swa_num_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts "
    "rotary_dim mamba_n_heads mamba_chunk_size indexer_budget",
    2: "num_key_value_heads swa_num_key_value_heads encoder_layers encoder_attention_heads num_experts_per_tok "
    "moe_topk moe_k top_k_experts index_n_heads indexer_n_heads indexer_compress_ratio eos_token_id",
    8: "head_dim swa_head_dim dim_head kv_channels index_head_dim indexer_head_dim global_head_dim "
    "qk_rope_head_dim qk_nope_head_dim v_head_dim hidden_size_per_layer_input query_pre_attn_scalar mamba_d_state "
    "state_size",
    48: "intermediate_size decoder_ffn_dim encoder_ffn_dim ffn_dim dim_ff dff n_inner moe_intermediate_size "
    "shared_expert_intermediate_size shared_intermediate_size ffn_hidden_size expert_ffn_hidden_size "
    "dense_intermediate_size intermediate_size_mlp moe_shared_expert_intermediate_size",
    512: "max_position_embeddings n_positions n_ctx max_seq_len keep_window_size index_topk",
    1: "n_shared_experts num_shared_experts moe_num_shared_experts n_group topk_group first_k_dense_replace "
    "n_dense_layers index_topk_blocks indexer_kv_heads mamba_n_groups bos_token_id",
    0: "num_mtp_layers num_nextn_predict_layers num_kv_shared_layers pad_token_id",
    16: "q_lora_rank kv_lora_rank mamba_d_head",
    # other numbers than 1, so that what is not computed shows
    3.0: "logits_scaling",
    0.4: "logit_scale lm_head_multiplier",
    4.5: "final_logit_softcapping attn_logit_softcapping",
    2.5: "embedding_multiplier",
    0.7: "residual_multiplier",
    0.3: "attention_multiplier",
}
SMALL: Mapping[str, Any] = {
    **{name: number for number, names in BY_NUMBER.items() for name in names.split()},
    **dict.fromkeys((*WINDOWS - {"layer_types"}, "window_size", "local_attention", "index_block_size"), WINDOW),
    "attention_window_size": WINDOW,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
#: What a family needs beside.
OF_FAMILY: Mapping[str, Mapping[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4},
    },
    "exaone4": {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_expand": 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2, "position_embedding_type": "rope"},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    **{name: {"layer_types": ["conv", "full_attention"] * 2} for name in ("lfm2", "lfm2_moe")},
    "minimax_m3_vl_text": {"layer_types": ["full_attention", "minimax_m3_sparse"] * 2},
    "ministral3": {
        "rope_parameters": {**ROPE, "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 64},
    },
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}
#: A model with more parameters is not made.
MOST_PARAMETERS = 100_000_000


def families() -> dict[str, str]:
    """Name of every family's configuration, and of its class."""
    return {name: str(made) for name, made in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()}


def small_values(made: Any) -> dict[str, Any]:
    """Small numbers for the fields of a class of configurations, those of its parts included."""
    known = {field.name for field in dataclasses.fields(made)}
    values = {name: value for name, value in SMALL.items() if name in known}
    if "kv_lora_rank" in values:  # latent attention has no groups
        values["num_key_value_heads"] = values["num_attention_heads"]
    for name, spec in getattr(made, "sub_configs", {}).items():
        inner = part_of(spec)
        if inner is not None:
            values[name] = {**small_values(inner), "model_type": inner.model_type}
    return values


def part_of(spec: Any) -> Any:
    """The class of configurations of a part of a model, if one is set."""
    inner, kind = getattr(spec, "config_class", spec), getattr(spec, "model_type", None)
    if not dataclasses.is_dataclass(inner) and kind in CONFIG_MAPPING:
        inner = CONFIG_MAPPING[kind]
    return inner if dataclasses.is_dataclass(inner) else None


def tiny_config(family: str, **changes: Any) -> Any:
    """The family's configuration with small numbers."""
    made = CONFIG_MAPPING[family]
    return made(**{**small_values(made), **layer_kinds(made), **OF_FAMILY.get(family, {}), **changes})


def layer_kinds(made: Any) -> dict[str, Any]:
    """All kinds of layers that a family has by default, in turn, in as few layers as a tiny model has."""
    if "layer_types" not in {field.name for field in dataclasses.fields(made)}:
        return {}
    kinds = list(dict.fromkeys(getattr(made(), "layer_types", None) or ()))
    return {"layer_types": (kinds * LAYERS)[:LAYERS]} if len(kinds) > 1 else {}


def full_attention(family: str) -> dict[str, Any]:
    """What gives every layer of a family the whole cache, where its configuration can say so."""
    known = {field.name for field in dataclasses.fields(CONFIG_MAPPING[family])}
    if not known & WINDOWS:
        return {}
    changes: dict[str, Any] = {"layer_types": ["full_attention"] * LAYERS, "use_sliding_window": False}
    if "layer_types" not in known or family.startswith("exaone4"):
        changes["sliding_window"] = None
    return {name: value for name, value in changes.items() if name in known}


def tiny_model(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model of random weights, float32, in eval mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        config = tiny_config(family, **changes)
        with torch.device("meta"):
            size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
        if size > MOST_PARAMETERS:
            raise ValueError(f"small numbers leave it with {size:,} parameters")
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    randomise(model, seed)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def randomise(model: PreTrainedModel, seed: int) -> None:
    """Matrices normal at 1.5 / sqrt(their width), biases at 0.3; norms around what they were."""
    generator = torch.Generator().manual_seed(seed)
    for _, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=generator)
        if weight.dim() > 1:
            weight.copy_(noise * 1.5 / weight.shape[-1] ** 0.5)
        else:
            weight.add_(0.3 * noise)
