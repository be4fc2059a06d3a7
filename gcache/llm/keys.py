"""What a model's caches are shaped like, and whether they can be moved: measured in every layer when it is loaded.

Random input embeddings stand alone, each at two positions. Attention over one slot is that slot, wherever it stands,
so every layer sees the same states at both, and its keys must be each other's rotation, or the same where the layer
rotates none. Its values must be the same.
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
from gcache.llm.hf_slots import SlotStore, TransformersDecoder, lowest
from gcache.streams import generator

#: Random embeddings that stand alone, and by how many positions they are moved.
ALONE, OFFSET = 3, 7
#: Slots whose attention to each other is compared, at the first positions and at the last ones that a model knows.
TOGETHER = 6
#: By what share attention's logits may differ there.
SCALED = 0.02


def measured_caches(model: Any, label: str, norm: float) -> tuple[tuple[int, int, int], Rope]:
    """(layers, key-value heads, head dimension) of a transformers causal model, and how its keys rotate.

    Args:
        label: the name errors use. norm: of an input embedding.

    Raises:
        ModelError: caches of its layers do not fit into one, or rotate in a way that is not known.
    """
    table = model.get_input_embeddings().weight
    drawn = torch.randn((max(ALONE, TOGETHER), table.shape[1]), generator=generator("trial of keys"))
    embeds = (drawn * (norm / drawn.norm(dim=1, keepdim=True))).to(table.device, table.dtype)
    keys, values = lone_slots(model, label, embeds[:ALONE])
    rope = measured_rope(model, label, keys, values)
    layers, _, _, heads, dim = keys.shape
    return (layers, heads, dim), replace(rope, fixed=scaled_by_position(model, label, embeds[:TOGETHER]))


@torch.no_grad()
def lone_slots(model: Any, label: str, embeds: Tensor) -> tuple[Tensor, Tensor]:
    """(L, 2, N, H, D) keys and values of (N, E) embeddings that stand alone, at position 0 and at `OFFSET`.

    Raises:
        ModelError: the layers do not all keep keys and values of one shape, or cannot be run.
    """
    store, count = SlotStore(None, None), len(embeds)
    positions = torch.tensor([0, OFFSET], device=embeds.device).repeat_interleave(count)[:, None]
    mask = embeds.new_zeros((2 * count, 1, 1, 1))
    with refusing(model, label, "its layers do not run on embeddings, positions and a mask"):
        TransformersDecoder(base_model(model))(embeds.repeat(2, 1)[:, None], mask, positions, store)
        keys, values = _stacked(model, label, store.keys, store.values)
    return keys.unflatten(1, (2, count)).squeeze(4), values.unflatten(1, (2, count)).squeeze(4)


def _stacked(model: Any, label: str, keys: Mapping[int, Tensor], values: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
    """(L, B, H, 1, D) each, of what every layer keeps."""
    layers = model.config.get_text_config().num_hidden_layers
    shapes = {tuple(kept.shape[1:]) for kept in (*keys.values(), *values.values())}
    if sorted(keys) != list(range(layers)):
        why = f"{len(keys)} of its {layers} layers keep keys and values"
    elif len(shapes) != 1 or len(next(iter(shapes))) != 3:
        seen = ", ".join(" x ".join(map(str, shape[::2])) for shape in sorted(shapes))
        why = f"its layers keep keys and values of unlike shapes (heads x dimension: {seen})"
    else:
        return torch.stack([keys[n] for n in range(layers)]), torch.stack([values[n] for n in range(layers)])
    raise ModelError(
        f"model {label!r} ({kind_of(model)}) cannot be used: {why}, but a cache is one block for all layers; {WAY_OUT}"
    )


def measured_rope(model: Any, label: str, keys: Tensor, values: Tensor) -> Rope:
    """The model's rotation, with what `lone_slots` tells of its layers.

    Raises:
        ModelError: a layer that rotates its keys in another way, or whose values depend on where they stand.
    """
    rope = Rope.of_model(model, label)
    moved = rope.rotate(keys[:, 0], torch.tensor(OFFSET, device=keys.device))
    turned, same = _errors(moved, keys[:, 1]), _errors(keys[:, 0], keys[:, 1])
    allowed = 1e-4 if keys.dtype.itemsize > 2 else 3e-2
    still = tuple(n for n in range(len(keys)) if same[n] < turned[n])
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
    return replace(rope, still=still)


def _errors(found: Tensor, wanted: Tensor) -> Tensor:
    """(L,) relative."""
    off: Tensor = (found - wanted).float().flatten(1).norm(dim=1)
    size: Tensor = wanted.float().flatten(1).norm(dim=1)
    return off / size.clamp_min(1e-12)


@torch.no_grad()
def scaled_by_position(model: Any, label: str, embeds: Tensor) -> str:
    """Why caches must stay where they are, although their keys rotate: some models sharpen the attention of later
    tokens, so those see each other differently at other positions. Empty where that is not so.

    Args:
        embeds: (S, E), read as one sequence.

    Raises:
        ModelError: the model cannot be run there.
    """
    config = model.config.get_text_config()
    far = max(getattr(config, "max_position_embeddings", None) or 0, 2 * TOGETHER) - len(embeds)
    seen: dict[int, Tensor] = {}
    grouped = is_grouped(model)
    steps = torch.arange(len(embeds), device=embeds.device)
    mask = embeds.new_full((len(embeds), len(embeds)), lowest(embeds.dtype)).triu(1).expand(2, 1, -1, -1)
    with refusing(model, label, "its layers do not run on positions far from the first"), watching(seen.__setitem__):
        output = base_model(model)(
            inputs_embeds=embeds.expand(2, -1, -1), attention_mask=mask, position_ids=torch.stack((steps, steps + far)),
            past_key_values=SlotStore(None, None), use_cache=True, **({} if grouped else {"output_attentions": True}),
        )  # fmt: skip
    if not grouped:
        seen = {number: weights for number, weights in enumerate(output.attentions or ()) if weights is not None}
    for layer, weights in sorted(seen.items()):  # (2, H, S, T)
        near, there = _logits(weights.float())
        scale = float((near * there).sum() / near.square().sum().clamp_min(1e-12))
        if abs(scale - 1) > SCALED:
            return f"layer {layer} scales its attention by where a token stands (by {scale:.2f} at position {far})"
    return ""


def _logits(weights: Tensor) -> tuple[Tensor, ...]:
    """The logits that attention weights (2, H, S, S) come from, but for a constant per query; 0 where none may look."""
    allowed = torch.ones(weights.shape[-2:], device=weights.device).tril()
    logits = weights.clamp_min(1e-30).log() * allowed
    return ((logits - logits.sum(dim=-1, keepdim=True) / allowed.sum(dim=-1, keepdim=True)) * allowed).unbind()
