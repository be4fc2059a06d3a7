"""What a model's caches are shaped like, and whether they can be moved: measured in every layer when it is loaded.

One pass over random input embeddings in three rows:

- some embeddings that see only themselves, each at two positions. Attention over one slot is that slot, wherever it
  stands, so every layer sees the same states at both: its keys must be each other's rotation, or the same where the
  layer rotates none, and its values must be the same.
- a sequence, at the first positions and at the last ones that the model knows. Attention depends on distances alone, or
  else a cache that is moved is not the one that would have been computed there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gcache.cache.rope import Rope, base_model
from gcache.errors import ModelError
from gcache.llm.attention import is_grouped, watching
from gcache.llm.exactness import WAY_OUT, kind_of, refusing
from gcache.llm.hf_slots import SlotStore, lowest
from gcache.streams import generator

#: Embeddings that see only themselves, and by how many positions they are moved; twice as many are the sequence.
ALONE, OFFSET = 3, 7
#: By what share attention's logits may differ far from the first position.
SCALED = 0.03


def measured_caches(model: Any, label: str, norm: float) -> tuple[tuple[int, int, int], Rope]:
    """(layers, key-value heads, head dimension) of a transformers causal model, and how its keys rotate.

    Args:
        label: the name errors use. norm: of an input embedding.

    Raises:
        ModelError: caches of its layers do not fit into one, or rotate in a way that is not known.
    """
    rope = Rope.of_model(model, label)
    table = model.get_input_embeddings().weight
    drawn = torch.randn((2 * ALONE, table.shape[1]), generator=generator("trial of keys"))
    embeds = (drawn * (norm / drawn.norm(dim=1, keepdim=True))).to(table.device, table.dtype)
    far = max(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0, 64) - len(embeds)
    with refusing(model, label, "its layers do not run on embeddings, positions and a mask"):
        store, attention = _pass(model, embeds, far)
    keys, values = (_alone(model, label, kept, store) for kept in (store.keys, store.values))
    still = _still(model, label, rope, keys, values)
    return (len(keys), keys.shape[3], keys.shape[4]), replace(rope, still=still, fixed=_scaled(attention, far))


@torch.no_grad()
def _pass(model: Any, embeds: Tensor, far: int) -> tuple[SlotStore, dict[int, Tensor]]:
    """What the three rows (S, E) leave behind, and each layer's attention weights (3, H, S, S) where they can be
    seen."""
    steps = torch.arange(len(embeds), device=embeds.device)
    blocked = embeds.new_full((len(embeds), len(embeds)), lowest(embeds.dtype))
    itself, causal = blocked.clone().fill_diagonal_(0), blocked.triu(1)
    store, seen, grouped = SlotStore(None, None), dict[int, Tensor](), is_grouped(model)
    with watching(seen.__setitem__):
        output = base_model(model)(
            inputs_embeds=torch.stack((embeds[:ALONE].repeat(2, 1), embeds, embeds)),
            attention_mask=torch.stack((itself, causal, causal))[:, None],
            position_ids=torch.stack((steps // ALONE * OFFSET, steps, steps + far)),
            past_key_values=store, use_cache=True, **({} if grouped else {"output_attentions": True}),
        )  # fmt: skip
    if grouped:
        return store, seen
    return store, {layer: found for layer, found in enumerate(output.attentions or ()) if found is not None}


def _alone(model: Any, label: str, kept: Mapping[int, Tensor], store: SlotStore) -> Tensor:
    """(L, 2, N, H, D) keys or values of what sees only itself, at position 0 and at `OFFSET`."""
    layers = model.config.get_text_config().num_hidden_layers
    shapes = {(each.shape[1], each.shape[3]) for each in (*store.keys.values(), *store.values.values())}
    if sorted(kept) != list(range(layers)):
        why = f"{len(kept)} of its {layers} layers keep keys and values"
    elif len(shapes) > 1:
        seen = ", ".join(f"{heads} x {dim}" for heads, dim in sorted(shapes))
        why = f"its layers keep keys and values of unlike shapes (heads x dimension: {seen})"
    else:
        rows = torch.stack([kept[layer][0] for layer in range(layers)]).transpose(1, 2)  # (L, 2 N, H, D)
        return rows.view(layers, 2, ALONE, *rows.shape[2:])
    raise ModelError(
        f"model {label!r} ({kind_of(model)}) cannot be used: {why}, but a cache is one block for all layers; {WAY_OUT}"
    )


def _still(model: Any, label: str, rope: Rope, keys: Tensor, values: Tensor) -> tuple[int, ...]:
    """Numbers of the layers that rotate no keys.

    Raises:
        ModelError: a layer that rotates its keys in another way, or whose values depend on where they stand.
    """
    moved = rope.rotate(keys[:, 0], torch.tensor(OFFSET, device=keys.device))
    turned, same = _errors(moved, keys[:, 1]), _errors(keys[:, 0], keys[:, 1])
    allowed = 1e-4 if keys.dtype.itemsize > 2 else 3e-2
    for layer, error in enumerate(torch.minimum(turned, same).tolist()):
        if not error <= allowed:
            raise ModelError(
                f"model {label!r} ({kind_of(model)}) cannot be used: shifting its keys by RoPE misses by {error:.1%} "
                f"in layer {layer}, so it rotates them in a way that is not known here; {WAY_OUT}"
            )
    for layer, error in enumerate(_errors(values[:, 0], values[:, 1]).tolist()):
        if not error <= allowed:
            raise ModelError(
                f"model {label!r} ({kind_of(model)}) cannot be used: its values in layer {layer} depend on where they "
                f"stand ({error:.1%} off {OFFSET} positions later), so a cache cannot be shifted; {WAY_OUT}"
            )
    return tuple(layer for layer in range(len(keys)) if same[layer] < turned[layer])


def _errors(found: Tensor, wanted: Tensor) -> Tensor:
    """(L,) relative."""
    off: Tensor = (found - wanted).float().flatten(1).norm(dim=1)
    size: Tensor = wanted.float().flatten(1).norm(dim=1)
    return off / size.clamp_min(1e-12)


def _scaled(attention: Mapping[int, Tensor], far: int) -> str:
    """Why caches must stay where they are although their keys rotate: some models sharpen the attention of later
    tokens. Empty where none does."""
    for layer, weights in sorted(attention.items()):
        near, there = _logits(weights[1:].float())
        scale = float((near * there).sum() / near.square().sum().clamp_min(1e-12))
        if abs(scale - 1) > SCALED:
            return f"layer {layer} scales its attention by where a token stands (by {scale:.2f} at position {far})"
    return ""


def _logits(weights: Tensor) -> tuple[Tensor, ...]:
    """The logits that attention weights (2, H, S, S) come from, but for a constant per query; 0 where none may look."""
    allowed = torch.ones(weights.shape[-2:], device=weights.device).tril()
    logits = weights.clamp_min(1e-30).log() * allowed
    return ((logits - logits.sum(dim=-1, keepdim=True) / allowed.sum(dim=-1, keepdim=True)) * allowed).unbind()
