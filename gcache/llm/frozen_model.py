"""A frozen transformers decoder, and what every pass through it needs: embeddings, head, caches' shape, limits, words.

`gcache.llm.local` makes the three calls of it, `gcache.llm.decode.decoding` the texts.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gcache.agents.chat_template import EndOfTurn, TemplateSettings, special_think_tokens
from gcache.cache.fused_cache import FusedCache
from gcache.cache.rope import Rope, base_model
from gcache.errors import ConfigError, ModelError
from gcache.llm.cache_budget import CacheLedger, Limits
from gcache.llm.cache_store import ModelStore
from gcache.llm.context import context_of
from gcache.llm.exactness import OwnForward, require_exact
from gcache.llm.forward.alignment import Alignment
from gcache.llm.forward.attention import use_grouped_attention
from gcache.llm.forward.hf_decoder import TransformersDecoder
from gcache.llm.forward.native.decoder import NativeDecoder, can_run
from gcache.llm.forward.native.library import native_library
from gcache.llm.forward.native.matrices import NativeLinear
from gcache.llm.forward.native.pass_cost import pass_cost
from gcache.llm.forward.packing import can_pack, pack
from gcache.llm.forward.paged_batch import Decoder, PagedBatch
from gcache.llm.forward.pass_graphs import CudaCapture, PassGraphs, why_without_graphs
from gcache.llm.forward.plain_decoder import PlainDecoder, is_known
from gcache.llm.forward.second_copy import is_plain_linear
from gcache.llm.head import head_of
from gcache.llm.kept_texts import KeptTexts
from gcache.llm.keys import measured_caches
from gcache.llm.requests import GenerateRequest, ThinkRequest
from gcache.runtime.transfers import to_device

logger = logging.getLogger(__name__)

#: Of the limit of cache bytes, or of a GPU's memory where there is none: what a batch of recorded passes may keep while
#: nobody is in it.
KEPT_SHARE = 1 / 8


class FrozenModel:
    """A frozen causal language model.

    Args:
        model: a transformers causal model with rotary positions and full attention in all layers.
        tokenizer: its tokenizer; a chat template is required to make prompts, not here.
        label: the name errors use.
        limits: how much it may take at once.
        realign: see `gcache.llm.forward.alignment`.
        ledger: counts its cache bytes with those of other models; None for one of its own.
        template: what its chat template reads beside the turns; it may have a part in how a turn is closed.

    Attributes:
        cache_shape: (layers, key-value heads, head dimension).
        stop_tokens: at which every text ends; stop_words: before which it ends, where the chat template closes a turn
            by what is no token of its own.

    Raises:
        ModelError: a model that does not attend to everything, that rotates its keys in a way that is not known, or
            whose own forward pass gives other log-probabilities than the passes here; see `gcache.llm.exactness`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        label: str = "model",
        limits: Limits | None = None,
        realign: bool = True,
        ledger: CacheLedger | None = None,
        template: TemplateSettings | None = None,
    ) -> None:
        _require_full_attention(model, label)
        Rope.of_model(model, label)
        own = OwnForward.of_model(model.eval().requires_grad_(False), label)  # before anything of it is switched
        self.model = model
        self.base = base_model(model)
        use_grouped_attention(model)
        self.tokenizer = tokenizer
        self.label = label
        self.limits = limits or Limits()
        #: Texts that are not written again; None where none is kept.
        self.kept_texts: KeptTexts | None = None
        self.store: ModelStore | None = None
        self.ledger = ledger or CacheLedger(self.limits.max_cache_bytes)
        library = native_library() if self.limits.native and can_run(self.base) else None
        if library is None and self.limits.pack_weights and can_pack(model):
            pack(model)
        #: What passes without gradient go through.
        self.decoder = _decoder(self.base, library)
        why = why_without_graphs(self.decoder, self.device)
        if self.limits.cuda_graphs and self.device.type == "cuda" and why:
            logger.warning("cuda_graphs has no effect for model %r: %s", label, why)
        #: (..., E) states to (..., V) logits, in the model's precision or in float32.
        self.head = head_of(model, label)
        if library is not None and is_plain_linear(self.head):
            self.head = NativeLinear(self.head, library, half=self.dtype == torch.bfloat16)
        #: Seconds of a pass by its tokens and the slots that each attends to; None where nobody measures them.
        self.pass_seconds: Callable[[int, float], float] | None = None
        self.alignment = Alignment.of_model(model, realign=realign)
        self.cache_shape, self.rope = measured_caches(model, label, self.alignment.norm)
        end = EndOfTurn.of(tokenizer, template)
        self.think_tokens = special_think_tokens(tokenizer)
        self.stop_tokens, self.stop_words = _stop_tokens(model, tokenizer) | end.tokens, end.words
        require_exact(self, own)
        if isinstance(self.decoder, NativeDecoder) and isinstance(self.head, NativeLinear):
            self.pass_seconds = pass_cost(self.decoder, self.head, self.cache_shape, self.dtype)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    @property
    def context(self) -> int | None:
        """Positions that the model was made for; None where it does not say."""
        return context_of(self.model)

    @property
    def slot_bytes(self) -> int:
        """Bytes of keys and values of one slot, all layers."""
        layers, heads, dim = self.cache_shape
        return 2 * layers * heads * dim * self.dtype.itemsize

    def rows(self, recorded: bool = False, layers: int | None = None) -> PagedBatch:
        """An empty batch in flight.

        Args:
            recorded: whether its narrow passes are recorded, where they can be.
            layers: of the first so many layers alone; None for all.

        Raises:
            ConfigError: the model has fewer.
        """
        most, heads, dim = self.cache_shape
        if layers is not None and layers > most:
            raise ConfigError(f"the model {self.label!r} has {most} layers, got {layers}")
        decoder = self.decoder if layers is None else self.decoder.first_layers(layers)
        rows = PagedBatch(decoder, (layers or most, heads, dim), self.dtype, self.device)
        if recorded and self.records_passes:
            rows.graphs = PassGraphs(partial(CudaCapture, self.device), KEPT_SHARE * self._most_bytes())
        self.ledger.watch(rows)
        return rows

    def _most_bytes(self) -> float:
        """That caches may ever take."""
        if self.ledger.limit is not None or self.device.type != "cuda":
            return math.inf if self.ledger.limit is None else self.ledger.limit
        return float(torch.cuda.get_device_properties(self.device).total_memory)

    @property
    def records_passes(self) -> bool:
        """Whether narrow passes are recorded once and replayed."""
        return self.limits.cuda_graphs and not why_without_graphs(self.decoder, self.device)

    def empty_cache(self) -> FusedCache:
        """A cache of one sequence without a slot."""
        layers, heads, dim = self.cache_shape
        block = torch.empty((layers, 1, heads, 0, dim), dtype=self.dtype, device=self.device)
        none = torch.empty((1, 0), dtype=torch.long, device=self.device)
        return FusedCache(block, block, none, none.bool(), none, none, none, bias=none.float())

    def checked(self, past: FusedCache | None) -> FusedCache | None:
        """A request's past, if it is one sequence of this model's slots; None where it has none.

        Raises:
            ConfigError: it is of another model, or of several sequences.
        """
        if past is None or not past.slots:
            return None
        layers, batch, heads, _, dim = past.shape
        if batch != 1:
            raise ConfigError(f"the past of a request must be one sequence, got {batch}; unbatch it first")
        if ((layers, heads, dim), past.dtype) != (self.cache_shape, self.dtype):
            raise ConfigError(
                f"the past has {layers} layers, {heads} heads of {dim}, {past.dtype}, but the model "
                f"{self.label!r} has {self.cache_shape[0]} layers, {self.cache_shape[1]} heads of "
                f"{self.cache_shape[2]}, {self.dtype}; a cache only fits the model that made it"
            )
        return past

    def embed(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """(B, S, E) embeddings and (B,) lengths. Each row is padded at the end by its last token again, which has an
        embedding; the first token of a vocabulary need not have one."""
        lengths = [len(row) for row in tokens]
        padded = [[*row, *[row[-1]] * (max(lengths) - len(row))] for row in tokens]
        return self.embedding(to_device(padded, self.device)), to_device(lengths, self.device)

    def embed_prompts(self, requests: Sequence[GenerateRequest | ThinkRequest]) -> tuple[Tensor, Tensor]:
        """As `embed`, of prompts of which some may come as embeddings.

        Raises:
            ConfigError: embeddings of another width than the model's.
        """
        if all(request.embeds is None for request in requests):
            return self.embed([request.tokens for request in requests])
        width = int(self.embedding(torch.zeros(1, dtype=torch.long, device=self.device)).shape[-1])
        rows = []
        for request in requests:
            if request.embeds is not None and int(request.embeds.shape[1]) != width:
                raise ConfigError(
                    f"prompt embeddings must be as wide as the model's, {width}, got {int(request.embeds.shape[1])}"
                )
            rows.append(self.embed([request.tokens])[0][0] if request.embeds is None else request.embeds)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        embeds = torch.empty((len(rows), int(lengths.max()), width), dtype=self.dtype, device=self.device)
        for row, own in enumerate(rows):
            embeds[row, : len(own)] = own.to(self.device, self.dtype)
            embeds[row, len(own) :] = embeds[row, len(own) - 1]
        return embeds, lengths

    def embedding(self, ids: Tensor) -> Tensor:
        embeds: Tensor = self.model.get_input_embeddings()(ids)
        return embeds

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., V) float32, or float64 where the model is."""
        logits = self.head(hidden)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @torch.no_grad()
    def lens(self, states: Tensor, count: int) -> list[tuple[str, ...]]:
        """The `count` tokens nearest to each of (S, E) hidden states, nearest first: what the model
        would write there (the logit lens, at the last layer)."""
        best = self.logits(states).topk(count, dim=-1).indices
        return [tuple(self.tokenizer.decode([token]).strip() for token in row) for row in best.tolist()]

    def text(self, ids: Sequence[int]) -> str:
        kept = ids[:-1] if ids and ids[-1] in self.stop_tokens else ids
        texts, begin = [], 0
        for at, token in enumerate(kept):  # a special token is left out, but not one that tells thinking apart
            if token in self.think_tokens:
                texts += [self._decoded(kept[begin:at]), self.think_tokens[token]]
                begin = at + 1
        return "".join([*texts, self._decoded(kept[begin:])])

    def _decoded(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text


def _decoder(base: Any, library: ctypes.CDLL | None) -> Decoder:
    if library is not None:
        return NativeDecoder(base, library)
    return PlainDecoder(base) if is_known(base) else TransformersDecoder(base)


def _require_full_attention(model: Any, label: str) -> None:
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    config = model.config
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        # configurations without layer_types name the window alone
        kinds |= set() if getattr(config, "layer_types", None) else {"sliding_attention"}
    if kinds - {"full_attention"}:
        raise ModelError(
            f"model {label!r} cannot be used: it has layers of kind {', '.join(sorted(kinds - {'full_attention'}))}; "
            "every layer must attend to the whole cache (full_attention)"
        )


def _stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """End-of-text ids, from the tokenizer and from the model's generation settings."""
    found = {getattr(tokenizer, "eos_token_id", None)}
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found.update(configured if isinstance(configured, (list, tuple)) else [configured])
    return frozenset(int(token) for token in found if token is not None)
