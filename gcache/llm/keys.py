"""What a model's caches are shaped like, and whether they can be moved: measured in every layer when it is loaded.

One pass over random input embeddings in three rows:

- some embeddings that see only themselves, each at the first position, at one near it, and at some as far as the model
  knows. Attention over one slot is that slot, wherever it stands, so every layer sees the same states at all of them:
  its keys must be each other's rotation, or the same where the layer rotates none, and its values must be the same. A
  slow rotation shows far away alone, and one that is wrong by a number of whole turns at some offset does not there.
- a sequence, at the first positions and at the last ones that the model knows. Attention depends on distances alone, or
  else a cache that is moved is not the one that would have been computed there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gcache.cache.rope import Rope, base_model
from gcache.errors import ModelError
from gcache.llm.forward.attention import is_grouped, watching
from gcache.llm.forward.hf_decoder import SlotStore, lowest
from gcache.llm.refusing import WAY_OUT, kind_of, refusing
from gcache.runtime.streams import generator

#: Embeddings that see only themselves, and by how many positions they are moved: a few, and shares of how far that is
#: known. As many embeddings as all of these are the sequence.
ALONE, OFFSET, SHARES = 3, 7, (0.13, 0.38, 1.0)
#: By what share of its size a pair of dimensions of the keys may differ, and values. A pair that is smaller than this
#: part of the mean one counts as if it were as large.
ALLOWED, SMALL = 1e-4, 0.1
#: The same in half precision.
ROUGHLY = 2e-2
#: Added to the attention logit of what sees only itself: beside it a sink has no weight, whose rounding would move the
#: states a little further in each layer.
LOUD = 100.0
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
    drawn = torch.randn(((2 + len(SHARES)) * ALONE, table.shape[1]), generator=generator("trial of keys"))
    embeds = (drawn * (norm / drawn.norm(dim=1, keepdim=True))).to(table.device, table.dtype)
    far = max(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0, 64) - len(embeds)
    offsets = [0, OFFSET, *(max(OFFSET, round(share * far)) for share in SHARES)]
    with refusing(model, label, "its layers do not run on embeddings, positions and a mask"):
        store, attention = _pass(model, embeds, offsets)
        anew = rope.anew(model)
    keys, values = (_alone(model, label, kept, store, len(offsets)) for kept in (store.keys, store.values))
    if keys.dtype.itemsize <= 2:
        rope = min(rope, anew, key=lambda each: float(_turned(each, keys, offsets).mean()))
    still = _still(model, label, rope, keys, values, offsets)
    return (keys.shape[1], keys.shape[3], keys.shape[4]), replace(rope, still=still, fixed=_scaled(attention, far))


@torch.no_grad()
def _pass(model: Any, embeds: Tensor, offsets: Sequence[int]) -> tuple[SlotStore, dict[int, Tensor]]:
    """What the three rows (S, E) leave behind, and each layer's attention weights (3, H, S, S) where they can be
    seen."""
    steps = torch.arange(len(embeds), device=embeds.device)
    moved = torch.tensor(offsets, device=embeds.device).repeat_interleave(ALONE)
    blocked = embeds.new_full((len(embeds), len(embeds)), lowest(embeds.dtype))
    itself, causal = blocked.clone().fill_diagonal_(LOUD), blocked.triu(1)
    store, seen, grouped = SlotStore(None, None), dict[int, Tensor](), is_grouped(model)
    with watching(seen.__setitem__):
        output = base_model(model)(
            inputs_embeds=torch.stack((embeds[:ALONE].repeat(len(offsets), 1), embeds, embeds)),
            attention_mask=torch.stack((itself, causal, causal))[:, None],
            position_ids=torch.stack((moved, steps, steps + offsets[-1])),
            past_key_values=store, use_cache=True, **({} if grouped else {"output_attentions": True}),
        )  # fmt: skip
    if grouped:
        return store, seen
    return store, {layer: found for layer, found in enumerate(output.attentions or ()) if found is not None}


def _alone(model: Any, label: str, kept: Mapping[int, Tensor], store: SlotStore, offsets: int) -> Tensor:
    """(offsets, L, N, H, D) keys or values of what sees only itself."""
    layers = model.config.get_text_config().num_hidden_layers
    shapes = {(each.shape[1], each.shape[3]) for each in (*store.keys.values(), *store.values.values())}
    one = ", but a cache is one block for all layers"
    if sorted(kept) != list(range(layers)):
        why = f"{len(kept)} of its {layers} layers keep keys and values{one}"
    elif len(shapes) > 1:
        seen = ", ".join(f"{heads} x {dim}" for heads, dim in sorted(shapes))
        why = f"its layers keep keys and values of unlike shapes (heads x dimension: {seen}){one}"
    else:
        rows = torch.stack([kept[layer][0] for layer in range(layers)]).transpose(1, 2)  # (L, offsets N, H, D)
        broken = (~rows.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
        if not broken:
            return rows.view(layers, offsets, ALONE, *rows.shape[2:]).transpose(0, 1)
        kind = "nan" if rows[broken[0]].isnan().any() else "infinite"
        why = f"its layer {broken[0]} keeps keys or values that are {kind}"
    raise ModelError(f"model {label!r} ({kind_of(model)}) cannot be used: {why}; {WAY_OUT}")


def _still(
    model: Any, label: str, rope: Rope, keys: Tensor, values: Tensor, offsets: Sequence[int]
) -> tuple[int, ...]:
    """Numbers of the layers that rotate no keys.

    Raises:
        ModelError: a layer that rotates its keys in another way, or whose values depend on where they stand.
    """
    turned = _turned(rope, keys, offsets)  # (offsets, L)
    half = rope.inverse_frequencies.numel()
    same, shown = (_errors(each[:1].expand_as(each), each, pairs) for each, pairs in ((keys, half), (values, 0)))
    allowed = ALLOWED if keys.dtype.itemsize > 2 else ROUGHLY
    still = same.amax(dim=0) < turned.amax(dim=0)
    errors = torch.stack((shown, torch.where(still, same, turned))).permute(2, 0, 1)  # (L, 2, offsets)
    wrong = ~(errors.amax(dim=-1) <= allowed)
    if wrong.any():
        # of the first layer that is wrong at all: what comes after it sees other states
        layer = int(wrong.any(dim=-1).int().argmax())
        of_values = bool(wrong[layer, 0])  # then its keys may be wrong for the same reason
        found = errors[layer, 0 if of_values else 1]
        off, later = f"{float(found.max()):.1%}", offsets[int(found.argmax())]
        why = (
            f"its values in layer {layer} depend on where they stand ({off} off {later} positions later), so a cache "
            "cannot be shifted"
            if of_values
            else f"shifting its keys by RoPE misses by {off} in layer {layer}, {later} positions later, so it rotates "
            "them in a way that is not known here"
        )
        raise ModelError(f"model {label!r} ({kind_of(model)}) cannot be used: {why}; {WAY_OUT}")
    return tuple(still.nonzero().flatten().tolist())


def _turned(rope: Rope, keys: Tensor, offsets: Sequence[int]) -> Tensor:
    """(offsets, L) errors of keys that are shifted from the first offset to the others."""
    moved = [rope.rotate(keys[0], torch.tensor(offset, device=keys.device)) for offset in offsets]
    return _errors(torch.stack(moved), keys, rope.inverse_frequencies.numel())


def _errors(found: Tensor, wanted: Tensor, half: int) -> Tensor:
    """(offsets, L) relative errors of (offsets, L, N, H, D): of the worst pair of dimensions that rotate together, all
    heads of an embedding taken as one; of the embedding in the middle, since in half precision one may go to another
    expert.

    Args:
        half: how many such pairs there are, D i and D i + half; the other dimensions are looked at together.
    """
    off, size = (_by_pair(each.float(), half) for each in (found - wanted, wanted))  # (offsets, L, N, pairs)
    least = SMALL * size.square().mean(dim=-1, keepdim=True).sqrt()
    return (off / size.maximum(least).clamp_min(1e-12)).amax(dim=-1).median(dim=-1).values


def _by_pair(states: Tensor, half: int) -> Tensor:
    """(..., pairs) root mean squares of (..., H, D)."""
    squares = states.square().sum(dim=-2)
    rest = squares[..., 2 * half :]
    found = squares[..., :half] + squares[..., half : 2 * half]
    if rest.shape[-1]:
        found = torch.cat((found, rest.mean(dim=-1, keepdim=True)), dim=-1)
    return found.sqrt()


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
