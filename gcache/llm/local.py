"""A local model that thinks in caches: a frozen transformers decoder behind three calls.

`think` turns a prompt into an agent's own cache, `generate` writes text, `log_prob` gives the
probability of text that was written, with gradient to the fused cache it was written on. All
three take lists of requests of any lengths and give what they would give one by one, in any thread:
passes of several threads go one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache, SlotKind
from gcache.errors import ConfigError
from gcache.llm.batch_sizes import RequestSize, batches, group_similar_lengths
from gcache.llm.decode.decoding import Decoding
from gcache.llm.forward.gradient_pass import Chunk, GradientPass, last_real, own_slots
from gcache.llm.forward.paged_batch import Added, PagedBatch
from gcache.llm.forward.pages import padded_slots
from gcache.llm.frozen_model import FrozenModel
from gcache.llm.requests import GenerateRequest, Generation, LogProbRequest, LogProbs, ThinkRequest
from gcache.runtime.transfers import to_device

Request = TypeVar("Request", ThinkRequest, GenerateRequest, LogProbRequest)
#: Tokens whose logits there are at once where texts are scored.
SCORED_TOGETHER = 256
#: A watcher, and the states that it is to be told.
_News = tuple[Callable[[Tensor], None], Tensor]


class LocalLLM(FrozenModel):
    """A frozen model that thinks, writes and scores. It is made as a `FrozenModel` is.

    Attributes:
        kept: an empty batch whose passes are recorded, for the next call.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.kept: list[PagedBatch] = []

    # -- the three calls --------------------------------------------------------------------

    def think(self, requests: Sequence[ThinkRequest], gradient: bool = False) -> list[KVCache]:
        """Each agent's own slots, prompt then latents; what it received is not repeated.

        A latent step feeds the last hidden state back through `Alignment`. With `gradient`, the
        slots carry gradient to each `past`.

        Raises:
            ConfigError: a past of another model, more layers than there are, or some of the layers with gradient.
        """
        if gradient and any(request.layers is not None for request in requests):
            raise ConfigError("passes of the first layers alone have no gradient")
        news: list[_News] = []
        run = partial(self._think_with_gradient if gradient else self._think, news=news)
        with self.ledger.turn, torch.set_grad_enabled(gradient):
            thoughts: list[KVCache] = self._in_batches(requests, run, self._kept_bytes if not gradient else None)
        for watch, states in news:  # the turn is given back: a watcher may wait for another thread
            watch(states)
        return thoughts

    def decoding(self) -> Decoding[Any]:
        """An empty batch of texts, which requests can join while it runs."""
        return Decoding(self)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Text after each prompt, until end of turn or `max_new_tokens`.

        As texts end, the next requests take their rows.
        """
        with self._empty_rows() as rows:
            return self._written(Decoding(self, rows), requests)

    def _written(self, decoding: Decoding[int], requests: Sequence[GenerateRequest]) -> list[Generation]:
        results: dict[int, Generation] = {}
        waiting = list(range(len(requests)))
        while waiting or len(decoding):
            with self.ledger.turn:
                joining = decoding.admits([requests[i] for i in waiting])
                if joining:
                    done = decoding.join(waiting[:joining], [requests[i] for i in waiting[:joining]])
                    del waiting[:joining]
                else:
                    done = decoding.step()
            for index, outcome in decoding.notify(done):
                if isinstance(outcome, Exception):
                    raise outcome
                results[index] = outcome
        return [results[index] for index in range(len(requests))]

    def log_prob(self, requests: Sequence[LogProbRequest]) -> list[LogProbs]:
        """(n,) log-probabilities of each completion's tokens, with gradient to each `past`."""
        with self.ledger.turn:
            return self._in_batches(requests, self._log_prob)

    # -- one batch of each ------------------------------------------------------------------

    def _think(self, requests: Sequence[ThinkRequest], news: list[_News]) -> list[KVCache]:
        """`news`: what watchers are to be told, added to."""
        layers = requests[0].layers
        if layers is not None:
            return self._thoughts_in(self.rows(layers=layers), requests, news)
        with self._empty_rows() as rows:
            return self._thoughts_in(rows, requests, news)

    @contextmanager
    def _empty_rows(self) -> Iterator[PagedBatch]:
        """An empty batch; where passes are recorded the kept one, if nobody has it, since recordings are of its pools.

        One is kept at most, and none after a failure or once passes are not recorded any more.
        """
        if not self.records_passes:
            self.kept.clear()
        rows = self.kept.pop() if self.kept else self.rows(recorded=True)
        yield rows
        if rows.graphs is not None and rows.graphs.on and not self.kept:
            rows.remove(range(rows.count))
            self.kept.append(rows)

    def _kept_bytes(self) -> int:
        """That the next batch of thoughts need not take."""
        return sum(batch.nbytes for batch in self.kept) if self.records_passes else 0

    def _thoughts_in(
        self, rows: PagedBatch, requests: Sequence[ThinkRequest], news: list[_News]
    ) -> list[KVCache]:
        pasts, layers = [self.checked(r.past) for r in requests], requests[0].layers
        if layers is not None:
            pasts = [None if past is None else past.first_layers(layers) for past in pasts]
        steps = requests[0].latent_steps
        rows.add(pasts, [r.prompt_slots + steps + r.text_slots for r in requests])
        first = [_first_input(r) for r in requests]
        states: list[Tensor] = []
        for part in group_similar_lengths([r.prompt_slots for r in first]):
            embeds, lengths = self.embed_prompts(first[part])
            watched = any(r.watch or r.watch_prompt or r.watch_text for r in requests[part])
            read = rows.feed(embeds, lengths, part.start, slots_only=not steps and not watched)
            states += [own[: asked.prompt_slots] for own, asked in zip(read, first[part], strict=True)]
        for request, own in zip(requests, states, strict=True):
            if request.watch_prompt is not None:
                news.append((request.watch_prompt, own[: request.prompt_slots].clone()))
        hidden = torch.stack([own[-1] for own in states])
        fed: list[Tensor] = []
        align = requests[0].alignment or self.alignment
        for _ in range(steps):
            fed.append(hidden)
            hidden = rows.feed(align(hidden)[:, None])[:, 0]
        if steps and requests[0].text_slots:
            embeds, lengths = self.embed([r.text[:-1] for r in requests])
            read = rows.feed(embeds, lengths)
            states = [torch.cat((last[None], own[:n])) for last, own, n in zip(hidden, read, lengths, strict=True)]
        elif steps:
            states = list(hidden[:, None])
        else:
            states = [own[request.prompt_slots - 1 :] for own, request in zip(states, requests, strict=True)]
        for request, own in zip(requests, states, strict=True):
            if request.watch_text is not None:
                news.append((request.watch_text, self._text_scores(own, request)))
        thoughts = rows.slots_of([
            Added(
                row, 0 if past is None else past.slots, request.prompt_slots, request.owner, request.kind, steps,
                request.text_slots,
            )
            for row, (request, past) in enumerate(zip(requests, pasts, strict=True))
        ])  # fmt: skip
        for thought in thoughts:
            self.ledger.hold(thought, thought.slots * self.slot_bytes * thought.shape[0] // self.cache_shape[0])
        for row, request in enumerate(requests):
            if request.watch is not None:
                news.append((request.watch, torch.stack([state[row] for state in fed]) if fed else hidden[:0]))
        return thoughts

    def _think_with_gradient(self, requests: Sequence[ThinkRequest], news: list[_News]) -> list[KVCache]:
        steps = requests[0].latent_steps
        embeds, lengths = self.embed_prompts(requests)
        batch = GradientPass(self.base, self._past(requests))
        start = batch.next_positions
        hidden = last_real(batch.feed(embeds, lengths), lengths)
        chunks = [Chunk(lengths, embeds.shape[1], requests[0].kind)]
        one = torch.ones_like(lengths)
        align = requests[0].alignment or self.alignment
        for _ in range(steps):
            hidden = batch.feed(align(hidden)[:, None], one)[:, 0]
            chunks.append(Chunk(one, 1, SlotKind.LATENT))
        states = hidden[:, None]
        if requests[0].text_slots:
            embeds, lengths = self.embed([r.text[:-1] for r in requests])
            states = torch.cat((states, batch.feed(embeds, lengths)), dim=1)
            chunks.append(Chunk(lengths, embeds.shape[1], SlotKind.TEXT))
        for request, own in zip(requests, states, strict=True):
            if request.watch_text is not None:
                news.append((request.watch_text, self._text_scores(own, request)))
        return own_slots(batch, start, chunks, [r.owner for r in requests]).unbatch()

    def _text_scores(self, states: Tensor, request: ThinkRequest) -> LogProbs:
        """(n,) log-probabilities of a text that was read again, of (n or more, E) states: those before its tokens."""
        (scores,) = self._scored(states[: len(request.text)], [request.text], [request.text_temperature])
        return scores

    def _log_prob(self, requests: Sequence[LogProbRequest]) -> list[LogProbs]:
        scores: list[LogProbs] = []
        for part in group_similar_lengths([RequestSize.of(r).read for r in requests]):
            embeds, lengths = self.embed([r.tokens + r.completion[:-1] for r in requests[part]])
            hidden = GradientPass(self.base, self._past(requests[part])).feed(embeds, lengths)
            scores += self._scores(hidden, requests[part])
        return scores

    def _scores(self, hidden: Tensor, requests: Sequence[LogProbRequest]) -> list[LogProbs]:
        """(n,) log-probabilities of each completion, of the hidden states (R, S, E)."""
        written = torch.cat([
            states[len(r.tokens) - 1 : len(r.tokens) - 1 + len(r.completion)]
            for states, r in zip(hidden, requests, strict=True)
        ])  # fmt: skip
        return self._scored(written, [r.completion for r in requests], [r.temperature for r in requests])

    def _scored(
        self, written: Tensor, texts: Sequence[tuple[int, ...]], temperatures: Sequence[float]
    ) -> list[LogProbs]:
        """(n,) log-probabilities of each text, of the (N, E) states before the tokens of all texts.

        The head reads its weights once for many tokens.
        """
        counts = [len(text) for text in texts]
        wanted = to_device([token for text in texts for token in text], self.device)
        warmth = torch.tensor([temperature or 1.0 for temperature in temperatures])
        warmth = warmth.repeat_interleave(torch.tensor(counts)).to(self.device)[:, None]

        def score(states: Tensor, rows: slice) -> Tensor:
            log_probs = torch.log_softmax(self.logits(states) / warmth[rows], dim=-1)
            return log_probs.gather(1, wanted[rows, None]).squeeze(1)

        found = []
        for start in range(0, len(written), SCORED_TOGETHER):
            rows = slice(start, start + SCORED_TOGETHER)
            some, own = written[rows], partial(score, rows=rows)
            found.append(_RowByRow.apply(own, some) if some.requires_grad else own(some))
        return list(torch.cat(found).split(counts))

    # -- pieces -----------------------------------------------------------------------------

    def _in_batches(
        self,
        requests: Sequence[Request],
        run: Callable[[Sequence[Request]], list[Any]],
        taken: Callable[[], int] | None = None,
    ) -> list[Any]:
        """Run requests in batches that fit; results in the order asked.

        Args:
            taken: bytes that the next batch has already.
        """
        results: dict[int, Any] = {}
        sizes = [RequestSize.of(request) for request in requests]
        keys = [_goes_with(request) for request in requests]
        for batch in batches(sizes, keys, self.limits.max_batch_tokens, self.limits.max_batch_size):
            while batch:
                count = self._most_that_fit([sizes[i] for i in batch], taken() if taken is not None else 0)
                results.update(zip(batch[:count], run([requests[i] for i in batch[:count]]), strict=True))
                batch = batch[count:]
        return [results[index] for index in range(len(requests))]

    def _most_that_fit(self, sizes: Sequence[RequestSize], taken: int) -> int:
        """How many of a batch's requests, from the first on, the limit of cache bytes allows."""
        return self.ledger.most_that_fit(len(sizes), lambda count: self._bytes(sizes[:count], taken))

    def _bytes(self, sizes: Sequence[RequestSize], taken: int) -> int:
        """Of a batch in flight, but for those that are taken, and of what it leaves behind."""
        rows = sum(padded_slots(size.total) for size in sizes) * self.slot_bytes
        return max(0, rows - taken) + sum(size.read + size.later for size in sizes) * self.slot_bytes

    def _past(self, requests: Sequence[Request]) -> FusedCache:
        return FusedCache.batch([self.checked(r.past) or self.empty_cache() for r in requests])


def _goes_with(request: ThinkRequest | GenerateRequest | LogProbRequest) -> Hashable:
    """What must be the same of requests that go through the model together."""
    if not isinstance(request, ThinkRequest):
        return None
    return request.latent_steps, id(request.alignment), request.text_slots > 0, request.layers


def _first_input(request: ThinkRequest) -> ThinkRequest:
    """What is read before any latent step: without one, the text that is read again as well."""
    if request.latent_steps or not request.text_slots:
        return request
    return replace(request, tokens=request.tokens + request.text[:-1], text=())


class _RowByRow(torch.autograd.Function):
    """(n,) scores of (n, E) states, each of which depends on its own state alone.

    Their gradient, no wider than the states, is taken at once, so that nothing as wide as the vocabulary is kept
    for it.
    """

    @staticmethod
    def forward(ctx: Any, score: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        with torch.enable_grad():
            alone = states.detach().requires_grad_()
            scores = score(alone)
            (slopes,) = torch.autograd.grad(scores.sum(), alone)
        ctx.save_for_backward(slopes)
        return scores.detach()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, Tensor]:
        (slopes,) = ctx.saved_tensors
        return None, upstream[0].to(slopes.dtype)[:, None] * slopes
