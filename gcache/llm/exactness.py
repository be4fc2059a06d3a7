"""A model is used where our passes give what its own forward pass gives: measured when it is loaded.

transformers knows far more families than anybody has looked into, and each may scale, cap, mask or weigh in a way of
its own. So the log-probabilities of a few random tokens by the model alone are compared with those by every path that
is used here: a prompt without a past, one on a cache, one on weighted slots, one token at a time, and the pass with
gradient, of which the gradient is looked at as well.

What may differ is rounding, and how much that is depends on the model: its own log-probabilities are computed once more
with every entry of the input embeddings moved by one unit in the last place. In half precision, two exact ways of
computing them differ by less than that: over 298 tiny models of 75 families, the worst path's median token by 0.38
times as much in the median and 0.76 at most, for SmolLM2 0.82. So 3 times is allowed, of the median token, since some
do worse by chance (a router of experts that stands on the fence). In float32 and float64 it is next to nothing; 1e-3 is
allowed for the largest difference of all, and 50 times what the rounding does to the median token where that is more,
as it is where logits are in the hundreds (20 times at most were seen there).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SlotKind
from gcache.errors import ModelError
from gcache.llm.forward.gradient_pass import GradientPass
from gcache.llm.forward.paged_batch import Added, PagedBatch
from gcache.llm.refusing import WAY_OUT, kind_of, refusing
from gcache.runtime.streams import generator as generator_of

#: Tokens that are a cache at first, how many come after them, and how many of these are read together; each is read
#: alone as well, on the cache of all before it. So what a model does from some length on shows, and every path has a
#: median, which a token that goes to another expert does not move, nor do those that read it.
FIRST, MORE, TOGETHER = 24, 16, 4
#: Nats that log-probabilities may be off by; or, where that is more, times what one rounding of the input does to the
#: median token: in half precision for the median token, else for the largest difference of all.
TOLERANCE, ROUNDINGS, LARGEST = 1e-3, 3, 50
#: Weights of a slot that is given twice; together they are the slot once.
SHARES = (0.25, 0.75)
#: Added to the attention logits of what is to be left out; within the range of float16.
BLOCKED = -1e4
#: Tokens before which log-weights of slots are moved for a finite difference, by how much, and what share of a slope
#: that may be off by.
MOVED, STEPS, SLACK = 3, (0.1, 0.01), 0.05


class Passes(Protocol):
    """What is compared: a model's parts as our passes use them; see `gcache.llm.frozen_model.FrozenModel`."""

    model: Any
    label: str
    base: Any
    decoder: Any
    cache_shape: tuple[int, int, int]

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def embed(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]: ...

    def logits(self, hidden: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class OwnForward:
    """What a model gives without any part of ours.

    Attributes:
        tokens: random ids. log_probs: (S, V), float32 or float64, after each of them.
        tolerance: nats that another way of computing them may be off by.
        rough: whether it computes in half precision.
    """

    tokens: tuple[int, ...]
    log_probs: Tensor
    tolerance: float
    rough: bool

    @classmethod
    @torch.no_grad()
    def of_model(cls, model: Any, label: str) -> OwnForward:
        """Run the model by itself.

        Raises:
            ModelError: it does not run on tokens alone.
        """
        with refusing(model, label, "its own forward pass fails on token ids alone"):
            embedding = model.get_input_embeddings()
            generator = generator_of("trial of a model")
            ids = _tokens(embedding, label, generator)
            tokens = tuple(ids[0].tolist())
            log_probs = log_softmax(model(input_ids=ids).logits[0])
            if log_probs.isnan().any():
                raise ModelError(
                    f"model {label!r} ({kind_of(model)}) cannot be used: the log-probabilities of its own forward pass "
                    f"are nan; {WAY_OUT}, or weights that are not broken"
                )
            rough = embedding.weight.dtype.itemsize <= 2
        with refusing(model, label, "its own forward pass fails on embeddings in place of token ids"):
            embeds = embedding(ids)
            signs = torch.randint(2, embeds.shape, generator=generator).to(embeds.device) * 2 - 1
            moved = embeds * (1 + torch.finfo(embeds.dtype).eps * signs).to(embeds.dtype)
            one, other = log_softmax(model(inputs_embeds=torch.cat((embeds, moved))).logits)
            rounding = distance(one, other, rough=True) * (ROUNDINGS if rough else LARGEST)
            return cls(tokens, log_probs, max(TOLERANCE, rounding), rough)


def _tokens(embedding: Any, label: str, generator: torch.Generator) -> Tensor:
    """(1, S) random ids of tokens that have an embedding: some are zeros, which stand for no word.

    Raises:
        ModelError: an embedding is nan or infinite.
    """
    wide = torch.promote_types(embedding.weight.dtype, torch.float32)
    norms = torch.linalg.vector_norm(embedding.weight, dim=1, dtype=wide)
    strange = (~norms.isfinite()).nonzero().flatten()
    if len(strange):
        kind = "nan" if norms[strange[0]].isnan() else "infinite"
        raise ModelError(
            f"model {label!r} cannot be used: the embeddings of {len(strange)} of its {len(norms)} tokens are nan or "
            f"infinite, that of token {int(strange[0])} is {kind}; put zeros there if no text has such a token"
        )
    known = norms.nonzero().flatten().cpu()
    if not len(known):
        raise ModelError(f"model {label!r} cannot be used: the embeddings of all tokens are zeros; load its weights")
    ids: Tensor = known[torch.randint(len(known), (1, FIRST + MORE), generator=generator)]
    return ids.to(embedding.weight.device)


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities in float32, or float64 where the logits are; that of 0 is finite."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.log_softmax(wide, dim=-1).clamp_min(BLOCKED)


def distance(one: Tensor, other: Tensor, rough: bool) -> float:
    """How far (S, V) log-probabilities are apart: at most, or if `rough`, the root mean square of the median token."""
    apart = (one - other).abs()
    return float(apart.square().mean(dim=-1).sqrt().median() if rough else apart.max())


def require_exact(llm: Passes, own: OwnForward) -> None:
    """Compare every path with the model's own forward pass.

    Raises:
        ModelError: the first that differs, with the measured error.
    """
    for what, error, allowed in measured(llm, own):
        if not error <= allowed:  # nan is no agreement either
            off = "nan, unlike" if math.isnan(error) else f"{error:.2g} off"
            raise ModelError(
                f"model {llm.label!r} ({kind_of(llm.model)}) cannot be used: {what} is {off} that of its own forward "
                f"pass, where rounding explains {allowed:.1g}{'' if own.rough else _meaning(what)}; {WAY_OUT}"
            )


def _meaning(what: str) -> str:
    """What is known about a model of which only that path differs, and by more than rounding ever does."""
    if "weighted" in what:
        return ", so a slot does not count in its attention by the log-weight that its mask has for it"
    return ", so autograd does not see all that it computes" if "gradient of" in what else ""


def measured(llm: Passes, own: OwnForward) -> Iterator[tuple[str, float, float]]:
    """Each path in words, by how much it is off, and how much that may be.

    Raises:
        ModelError: the model's layers do not run on our caches.
    """
    with refusing(llm.model, llm.label, "its layers do not run on the caches that they are given"):
        trial = _Trial(llm, own)
        paths = [*trial.without_gradient(), *trial.with_gradient()]
        errors = [distance(found, wanted, own.rough) for _, found, wanted in paths]
    for (what, _, _), error in zip(paths, errors, strict=True):
        yield f"the log-probability {what}", error, own.tolerance
    if not own.rough:  # a small difference of log-probabilities is all rounding there
        off, allowed = trial.gradient(max(errors))
        yield "the gradient of a log-probability along the log-weights of some slots", off, allowed


class _Trial:
    """The paths, on the tokens that the model was run on by itself.

    Attributes:
        by_steps: (steps, MOVED) slopes of scores along log-weights, by finite differences.
        by_autograd: (MOVED,).
    """

    def __init__(self, llm: Passes, own: OwnForward) -> None:
        self.llm, self.own = llm, own
        self.by_steps, self.by_autograd = torch.zeros((len(STEPS), MOVED)), torch.zeros(MOVED)
        self.rows = PagedBatch(llm.decoder, llm.cache_shape, llm.dtype, llm.device)  # nobody's memory is counted by it

    @torch.no_grad()
    def without_gradient(self) -> list[tuple[str, Tensor, Tensor]]:
        """(path, found, wanted) of the passes that think and write."""
        rows, own = self.rows, self.own
        rows.add([None], [FIRST + MORE])
        read = self._log_probs(rows.feed(self._embeds([range(FIRST + MORE)])))
        starts = list(_starts())
        places = [*starts, *(place for place in range(FIRST, FIRST + MORE) if place not in starts)]
        moves = [] if own.rough else [sign * step for step in STEPS for sign in (1, -1)]
        pasts = [past for place in places for past in (self._past(place), weighted(self._past(place)))]
        pasts += [weighted(self._past(start), move * some) for move in moves for start, some in self._moved()]
        rows.add(pasts, [TOGETHER] * len(pasts))
        chunks = [range(place, place + 1) for place in places for _ in range(2)]
        chunks += [range(start, start + 1) for _ in moves for start, _ in self._moved()]
        alone = self._log_probs(rows.feed(self._embeds(chunks), first=1))[:, 0]
        rests = [range(start + 1, start + TOGETHER) for start in starts]
        more = self._log_probs(rows.feed(self._embeds([rest for rest in rests for _ in range(2)]), first=1))
        if moves:
            ends = torch.stack([self._score(row[0], number) for number, row in enumerate(alone[2 * MORE :, None])])
            ends = ends.cpu().view(len(STEPS), 2, MOVED)
            self.by_steps = (ends[:, 0] - ends[:, 1]) / (2 * torch.tensor(STEPS)[:, None])
        one, several = own.log_probs[places], own.log_probs[[place for rest in rests for place in rest]]
        return [
            ("of a prompt", read[0], own.log_probs),
            ("of a token on a cache", alone[: 2 * MORE : 2], one),
            ("of a prompt on a cache", more[::2].flatten(0, 1), several),
            ("of a token on weighted slots", alone[1 : 2 * MORE : 2], one),
            ("of a prompt on weighted slots", more[1::2].flatten(0, 1), several),
        ]

    def with_gradient(self) -> list[tuple[str, Tensor, Tensor]]:
        """The same of the pass that training takes, after `without_gradient`."""
        pasts = [self._past(start) for start in _starts()]
        steps = [torch.zeros(start, requires_grad=True) for start in _starts()]
        with torch.enable_grad():
            moved = [weighted(past, step) for past, step in zip(pasts, steps, strict=True)]
            batch = GradientPass(self.llm.base, FusedCache.batch([*pasts, *moved]))
            embeds = self._embeds([range(start, start + TOGETHER) for start in _starts()] * 2)
            lengths = torch.full((2 * len(pasts),), TOGETHER, device=self.llm.device)
            found = self._log_probs(batch.feed(embeds, lengths))
            scores = [self._score(found[len(pasts) + number, 0], number) for number in range(MOVED)]
            slopes = torch.autograd.grad(torch.stack(scores).sum(), steps[:MOVED])
        self.by_autograd = torch.stack([s @ some for s, (_, some) in zip(slopes, self._moved(), strict=True)])
        plain, weights = found.detach().view(2, MORE, -1)
        wanted = self.own.log_probs[FIRST:]
        return [
            ("of a prompt on a cache, with gradient,", plain, wanted),
            ("of a prompt on weighted slots, with gradient,", weights, wanted),
        ]

    def gradient(self, rounding: float) -> tuple[float, float]:
        """How far the gradient is off its finite differences, and how far it may be where log-probabilities are off by
        `rounding`: at the best step, since one may take a token to another expert, where there is no slope; and of the
        token in the middle."""
        allowed = (TOLERANCE + rounding / torch.tensor(STEPS))[:, None].expand(-1, MOVED)
        off = ((self.by_autograd - self.by_steps).abs() - SLACK * self.by_steps.abs()).clamp_min(0)
        best = (off / allowed).argmin(dim=0, keepdim=True)
        off, allowed = off.gather(0, best)[0], allowed.gather(0, best)[0]
        middle = int((off / allowed).argsort()[MOVED // 2])
        return float(off[middle]), float(allowed[middle])

    @staticmethod
    def _moved() -> list[tuple[int, Tensor]]:
        """Places, and which of the slots before each are moved, (place,) as 0 and 1; each time others."""
        return [(start, (torch.arange(start) % MOVED == n).float()) for n, start in enumerate(_starts()[:MOVED])]

    def _score(self, log_probs: Tensor, number: int) -> Tensor:
        """Of (V,) after the token before which slots were moved, that of the next."""
        return log_probs[self.own.tokens[_starts()[number % MOVED] + 1]]

    def _past(self, slots: int) -> FusedCache:
        """The first tokens as a cache."""
        (first,) = self.rows.slots_of([Added(0, 0, FIRST + MORE, 0, SlotKind.PROMPT)])
        return FusedCache.plain(first.take(torch.arange(slots, device=first.mask.device)))

    def _embeds(self, places: Sequence[range]) -> Tensor:
        """Of as many tokens in every row."""
        return self.llm.embed([self.own.tokens[row.start : row.stop] for row in places])[0]

    def _log_probs(self, states: Tensor) -> Tensor:
        return log_softmax(self.llm.logits(states))


def _starts() -> range:
    """Where tokens that are read together begin."""
    return range(FIRST, FIRST + MORE, TOGETHER)


def weighted(past: FusedCache, step: Tensor | None = None) -> FusedCache:
    """A cache in other words: every slot twice, at shares of its weight, and once more with other values, left out.

    Args:
        step: (T,) added to the log-weight of the first of the two.
    """
    (plain,) = past.parts
    other = replace(plain, values=-plain.values)
    zeros = torch.zeros(plain.mask.shape, device=plain.mask.device)
    first = zeros + math.log(SHARES[0])
    biases = [first if step is None else first + step.to(zeros.device), zeros + math.log(SHARES[1]), zeros + BLOCKED]
    return FusedCache.of_parts([plain, plain, other], biases)
