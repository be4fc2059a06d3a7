"""A local model that thinks in caches: a frozen transformers decoder behind three calls.

`think` turns a prompt into an agent's own cache, `generate` writes text, `log_prob` gives the
probability of text that was written, with gradient to the fused cache it was written on. All
three take lists of requests of any lengths and give what they would give one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from gcache.cache.kv_cache import FusedCache, KVCache
from gcache.cache.rope import Rope
from gcache.errors import ConfigError, ModelError
from gcache.llm.alignment import Alignment
from gcache.llm.attention import use_grouped_attention
from gcache.llm.chunks import Size, chunks
from gcache.llm.in_flight import InFlight, last_real, own_slots
from gcache.llm.requests import GenerateRequest, Generation, LogProbRequest, LogProbs, ThinkRequest

Request = TypeVar("Request", ThinkRequest, GenerateRequest, LogProbRequest)


class LocalLLM:
    """A frozen causal language model.

    Args:
        model: a transformers causal model with rotary positions and full attention in all layers.
        tokenizer: its tokenizer; a chat template is required to make prompts, not here.
        label: the name errors use.
        max_batch_tokens: the most slots (past and new, padding included) in one forward pass.

    Raises:
        ModelError: a model whose caches cannot be shifted, or that does not attend to everything.
    """

    def __init__(self, model: Any, tokenizer: Any, label: str = "model", max_batch_tokens: int = 32768) -> None:
        _require_full_attention(model, label)
        self.model = model.eval().requires_grad_(False)
        use_grouped_attention(model)
        self.tokenizer = tokenizer
        self.label = label
        self.max_batch_tokens = max_batch_tokens
        self.rope = Rope.of_model(model, label)
        self._require_rope_holds()
        self.alignment = Alignment.of_model(model)
        self.stop_tokens = _stop_tokens(model, tokenizer)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """(layers, key-value heads, head dimension)."""
        config = self.model.config
        heads = config.num_attention_heads
        dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, dim

    def empty_cache(self) -> FusedCache:
        """A cache of one sequence without a slot."""
        layers, heads, dim = self.cache_shape
        block = torch.empty((layers, 1, heads, 0, dim), dtype=self.dtype, device=self.device)
        none = torch.empty((1, 0), dtype=torch.long, device=self.device)
        return FusedCache(block, block, none, none.bool(), none, none, none, bias=none.float())

    # -- the three calls --------------------------------------------------------------------

    def think(self, requests: Sequence[ThinkRequest], gradient: bool = False) -> list[KVCache]:
        """Each agent's own slots, prompt then latents; what it received is not repeated.

        A latent step feeds the last hidden state back through `Alignment`. With `gradient`, the
        slots carry gradient to each `past`.
        """
        with torch.set_grad_enabled(gradient):
            return self._in_chunks(requests, self._think, key=lambda r: (r.latent_steps, int(r.kind)))

    @torch.no_grad()
    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Text after each prompt, until end of turn or `max_new_tokens`."""
        return self._in_chunks(requests, self._generate)

    def log_prob(self, requests: Sequence[LogProbRequest]) -> list[LogProbs]:
        """(n,) log-probabilities of each completion's tokens, with gradient to each `past`."""
        return self._in_chunks(requests, self._log_prob)

    # -- one batch of each ------------------------------------------------------------------

    def _think(self, requests: Sequence[ThinkRequest]) -> list[KVCache]:
        steps = requests[0].latent_steps
        embeds, lengths = self._embed([r.tokens for r in requests])
        # writing in place is for passes without gradient
        room = 0 if torch.is_grad_enabled() else embeds.shape[1] + steps
        batch = InFlight(self.model.model, self._past(requests), reserve=room)
        start = batch.next_positions
        hidden = last_real(batch.feed(embeds, lengths), lengths)
        one = torch.ones_like(lengths)
        for _ in range(steps):
            hidden = batch.feed(self.alignment(hidden)[:, None], one)[:, 0]
        sources = [r.source for r in requests]
        return own_slots(batch, start, lengths, embeds.shape[1], sources, requests[0].kind).unbatch()

    def _generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        embeds, lengths = self._embed([r.tokens for r in requests])
        longest = max(r.max_new_tokens for r in requests)
        batch = InFlight(self.model.model, self._past(requests), reserve=embeds.shape[1] + longest)
        hidden = last_real(batch.feed(embeds, lengths), lengths)
        draws = torch.stack([_uniforms(r.seed, longest) for r in requests]).to(self.device)  # (B, longest)
        temperature = torch.tensor([r.temperature for r in requests], device=self.device)
        limit = torch.tensor([r.max_new_tokens for r in requests], device=self.device)
        stops = torch.tensor(sorted(self.stop_tokens), device=self.device)
        alive = torch.arange(len(requests), device=self.device)
        picked: list[list[int]] = [[] for _ in requests]
        scores: list[list[float]] = [[] for _ in requests]
        ended = [False] * len(requests)
        for step in range(longest):
            tokens, log_probs = _draw(self._logits(hidden), temperature[alive], draws[alive, step])
            stopped = torch.isin(tokens, stops)
            rows = zip(alive.tolist(), tokens.tolist(), log_probs.tolist(), stopped.tolist(), strict=True)
            for row, token, score, stop in rows:
                picked[row].append(token)
                scores[row].append(score)
                ended[row] = stop
            going = (~stopped & (step + 1 < limit[alive])).nonzero().squeeze(1)
            if going.numel() == 0:
                break
            if going.numel() < alive.numel():
                batch.select_rows(going)
                alive, tokens = alive[going], tokens[going]
            hidden = batch.feed(self._embedding(tokens)[:, None], torch.ones_like(tokens))[:, 0]
        return [
            Generation(self._text(ids), tuple(ids), tuple(score), end)
            for ids, score, end in zip(picked, scores, ended, strict=True)
        ]

    def _log_prob(self, requests: Sequence[LogProbRequest]) -> list[LogProbs]:
        embeds, lengths = self._embed([r.tokens + r.completion[:-1] for r in requests])
        hidden = InFlight(self.model.model, self._past(requests)).feed(embeds, lengths)
        scores: list[LogProbs] = []
        for row, request in enumerate(requests):
            first = len(request.tokens) - 1
            states = hidden[row, first : first + len(request.completion)]
            log_probs = torch.log_softmax(self._logits(states) / (request.temperature or 1.0), dim=-1)
            wanted = torch.tensor(request.completion, device=self.device)
            scores.append(log_probs.gather(1, wanted[:, None]).squeeze(1))
        return scores

    # -- pieces -----------------------------------------------------------------------------

    def _in_chunks(
        self,
        requests: Sequence[Request],
        run: Callable[[Sequence[Request]], list[Any]],
        key: Callable[[Request], tuple[int, ...]] = lambda _: (),
    ) -> list[Any]:
        """Run requests of equal `key` and like length together; results in the order asked."""
        results: list[Any] = [None] * len(requests)
        sizes = [Size.of(request) for request in requests]
        for chunk in chunks(sizes, [key(request) for request in requests], self.max_batch_tokens):
            for index, result in zip(chunk, run([requests[i] for i in chunk]), strict=True):
                results[index] = result
        return results

    def _past(self, requests: Sequence[Request]) -> FusedCache:
        pasts = [self.empty_cache() if r.past is None else self._checked(r.past) for r in requests]
        batch = FusedCache.batch(pasts)
        assert isinstance(batch, FusedCache)
        return batch

    def _checked(self, past: FusedCache) -> FusedCache:
        """A request's past, if it is one sequence of this model's slots."""
        layers, batch, heads, _, dim = past.keys.shape
        if batch != 1:
            raise ConfigError(f"the past of a request must be one sequence, got {batch}; unbatch it first")
        if ((layers, heads, dim), past.keys.dtype) != (self.cache_shape, self.dtype):
            raise ConfigError(
                f"the past has {layers} layers, {heads} heads of {dim}, {past.keys.dtype}, but the model "
                f"{self.label!r} has {self.cache_shape[0]} layers, {self.cache_shape[1]} heads of "
                f"{self.cache_shape[2]}, {self.dtype}; a cache only fits the model that made it"
            )
        return past

    def _embed(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """(B, S, E) embeddings padded at the end, and (B,) lengths."""
        lengths = torch.tensor([len(row) for row in tokens], device=self.device)
        ids = torch.zeros((len(tokens), int(lengths.max())), dtype=torch.long, device=self.device)
        for row, sequence in enumerate(tokens):
            ids[row, : len(sequence)] = torch.tensor(sequence, device=self.device)
        return self._embedding(ids), lengths

    def _embedding(self, ids: Tensor) -> Tensor:
        embeds: Tensor = self.model.get_input_embeddings()(ids)
        return embeds

    def _logits(self, hidden: Tensor) -> Tensor:
        """(..., V) float32."""
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        return logits.float()

    def _text(self, ids: Sequence[int]) -> str:
        kept = ids[:-1] if ids and ids[-1] in self.stop_tokens else ids
        text: str = self.tokenizer.decode(list(kept), skip_special_tokens=True)
        return text

    @torch.no_grad()
    def _require_rope_holds(self, offset: int = 7) -> None:
        """Check the shift against the model itself: the first layer's key of one token, computed
        `offset` positions later, must be its shifted key. Catches conventions that no
        configuration names (interleaved pairs, rescaled heads)."""
        embeds = self._embedding(torch.zeros((1, 1), dtype=torch.long, device=self.device))
        keys = []
        for position in (0, offset):
            batch = InFlight(self.model.model, self.empty_cache(), reserve=1)
            batch.next_positions = batch.next_positions + position
            batch.feed(embeds, torch.ones(1, dtype=torch.long, device=self.device))
            keys.append(batch.store.new_slots()[0][0].float())  # (1, H, 1, D)
        moved = self.rope.rotate(keys[0], torch.tensor(offset, device=self.device))
        error = float((moved - keys[1]).norm() / keys[1].norm().clamp_min(1e-12))
        if error > (1e-4 if self.dtype == torch.float32 else 3e-2):
            raise ModelError(
                f"model {self.label!r} cannot be used: shifting its keys by RoPE misses by {error:.1%}, so it "
                "rotates them in a way that is not known here"
            )


def _uniforms(seed: int, count: int) -> Tensor:
    """(count,) draws in [0, 1), from the request's own seed: a batch mate changes none of them."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _draw(logits: Tensor, temperature: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Pick a token per row of (B, V) logits; returns (B,) ids and (B,) log-probabilities.

    Drawn by inverting the cumulative distribution at `uniform`, in float64.
    """
    greedy = temperature == 0
    scaled = logits / torch.where(greedy, 1.0, temperature)[:, None]
    log_probs = torch.log_softmax(scaled, dim=-1)
    tokens = logits.argmax(dim=-1)
    if not bool(greedy.all()):
        cumulative = log_probs.double().exp().cumsum(dim=-1)
        target = (uniform * cumulative[:, -1])[:, None]
        drawn = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_max(logits.shape[1] - 1)
        tokens = torch.where(greedy, tokens, drawn)
    return tokens, log_probs.gather(1, tokens[:, None]).squeeze(1)


def _stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """End-of-turn ids, from the tokenizer and from the model's generation settings."""
    found = {getattr(tokenizer, "eos_token_id", None)}
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found.update(configured if isinstance(configured, list) else [configured])
    return frozenset(int(token) for token in found if token is not None)


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
