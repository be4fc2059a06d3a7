"""A model is used where our passes give what its own forward pass gives: measured when it is loaded.

transformers knows far more families than anybody has looked into, and each may scale, cap, mask or weigh in a way of
its own. So the log-probabilities of a few random tokens by the model alone are compared with those by every path that
is used here: a prompt without a past, one on a cache, one on weighted slots, one token at a time, and the pass with
gradient, of which the gradient is looked at as well.

What may differ is rounding. In float32 and float64 that is less than 1e-3. In half precision it depends on the model:
its own log-probabilities are computed once more with every entry of the input embeddings moved by one unit in the last
place. Two exact ways of computing them differ by as much, give or take: over 300 tiny models of 75 families it was 0.6
times that in the median and 3.8 at most, for SmolLM2 0.8. So 5 times is allowed, of the median token, since some do
worse by chance (a router of experts that stands on the fence).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gcache.cache.kv_cache import FusedCache, SlotKind
from gcache.errors import ModelError
from gcache.llm.in_flight import InFlight
from gcache.llm.rows import Rows
from gcache.streams import generator as generator_of

if TYPE_CHECKING:
    from gcache.llm.local import LocalLLM

#: Tokens that become a cache; one comes alone after it, and then these together.
FIRST, SECOND = 5, 3
#: Nats that log-probabilities may be off by in float32; in half precision, times what one rounding of the input does.
TOLERANCE, ROUNDINGS = 1e-3, 5
#: Weights of a slot that is given twice; together they are the slot once.
SHARES = (0.25, 0.75)
#: Added to the attention logits of what is to be left out; within the range of float16.
BLOCKED = -1e4
#: Slots whose log-weight is moved for a finite difference, by how much, and what share of a slope that may be off by.
MOVED, STEPS, SLACK = 3, (0.1, 0.01), 0.05
WAY_OUT = "use a model of another family (Llama, Qwen2, Qwen3, SmolLM3, ...)"


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
            ids = torch.randint(len(embedding.weight), (1, FIRST + 1 + SECOND), generator=generator)
            tokens = tuple(ids[0].tolist())
            ids = ids.to(embedding.weight.device)
            log_probs = log_softmax(model(input_ids=ids).logits[0])
            rough = embedding.weight.dtype.itemsize <= 2
            if not rough:
                return cls(tokens, log_probs, TOLERANCE, rough)
            embeds = embedding(ids)
            signs = torch.randint(2, embeds.shape, generator=generator).to(embeds.device) * 2 - 1
            moved = embeds * (1 + torch.finfo(embeds.dtype).eps * signs).to(embeds.dtype)
            one, other = log_softmax(model(inputs_embeds=torch.cat((embeds, moved))).logits)
            return cls(tokens, log_probs, max(TOLERANCE, ROUNDINGS * distance(one, other, rough)), rough)


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities in float32, or float64 where the logits are; that of 0 is finite."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.log_softmax(wide, dim=-1).clamp_min(BLOCKED)


def distance(one: Tensor, other: Tensor, rough: bool) -> float:
    """How far (S, V) log-probabilities are apart: at most, or if `rough`, the root mean square of the median token."""
    apart = (one - other).abs()
    return float(apart.square().mean(dim=-1).sqrt().median() if rough else apart.max())


def require_exact(llm: LocalLLM, own: OwnForward) -> None:
    """Compare every path with the model's own forward pass.

    Raises:
        ModelError: the first that differs, with the measured error.
    """
    for what, error, allowed in measured(llm, own):
        if not error <= allowed:  # nan is no agreement either
            raise ModelError(
                f"model {llm.label!r} ({kind_of(llm.model)}) cannot be used: {what} is {error:.2g} off that of its own "
                f"forward pass, where rounding explains {allowed:.1g}{_meaning(what)}; {WAY_OUT}"
            )


def _meaning(what: str) -> str:
    """What is known about a model of which only that path differs."""
    if "weighted" in what:
        return ", so its attention does not add the log-weights that its mask gives it"
    return ", so autograd does not see all that it computes" if "gradient of" in what else ""


def measured(llm: LocalLLM, own: OwnForward) -> Iterator[tuple[str, float, float]]:
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
        yield "the gradient of a log-probability along a slot's log-weight", off, allowed


class _Trial:
    """The paths, on the tokens that the model was run on by itself.

    Attributes:
        by_steps: (steps, MOVED) slopes of a score along log-weights, by finite differences.
        by_autograd: (MOVED,).
    """

    def __init__(self, llm: LocalLLM, own: OwnForward) -> None:
        self.llm, self.own = llm, own
        self.by_steps, self.by_autograd = torch.zeros((len(STEPS), MOVED)), torch.zeros(MOVED)
        self.rows = Rows(llm.decoder, llm.cache_shape, llm.dtype, llm.device)  # nobody's memory is counted by it

    @torch.no_grad()
    def without_gradient(self) -> list[tuple[str, Tensor, Tensor]]:
        """(path, found, wanted) of the passes that think and write."""
        rows, own = self.rows, self.own
        rows.add([None], [FIRST])
        read = self._log_probs(rows.feed(self._embeds(0, FIRST, 1)))
        past = self._past()
        moves = [sign * step * slot for step in STEPS for sign in (1, -1) for slot in torch.eye(MOVED, FIRST)]
        pasts = [past, weighted(past), *(weighted(past, move) for move in moves if not own.rough)]
        rows.add(pasts, [1 + SECOND] * len(pasts))
        alone = self._log_probs(rows.feed(self._embeds(FIRST, 1, len(pasts)), first=1))
        more = self._log_probs(rows.feed(self._embeds(FIRST + 1, SECOND, 2), first=1))
        if not own.rough:
            ends = alone[2:, 0, own.tokens[FIRST + 1]].cpu().view(len(STEPS), 2, MOVED)
            self.by_steps = (ends[:, 0] - ends[:, 1]) / (2 * torch.tensor(STEPS)[:, None])
        one, several = own.log_probs[FIRST : FIRST + 1], own.log_probs[FIRST + 1 :]
        return [
            ("of a prompt", read[0], own.log_probs[:FIRST]),
            ("of a token on a cache", alone[0], one),
            ("of a prompt on a cache", more[0], several),
            ("of a token on weighted slots", alone[1], one),
            ("of a prompt on weighted slots", more[1], several),
        ]

    def with_gradient(self) -> list[tuple[str, Tensor, Tensor]]:
        """The same of the pass that training takes, after `without_gradient`."""
        step = torch.zeros(FIRST, requires_grad=True)
        past = self._past()
        with torch.enable_grad():
            batch = InFlight(self.llm.base, FusedCache.batch([past, weighted(past, step)]))
            lengths = torch.full((2,), 1 + SECOND, device=self.llm.device)
            found = self._log_probs(batch.feed(self._embeds(FIRST, 1 + SECOND, 2), lengths))
            (slope,) = torch.autograd.grad(found[1, 0, self.own.tokens[FIRST + 1]], step)
        self.by_autograd = slope[:MOVED]
        wanted = self.own.log_probs[FIRST:]
        return [
            ("of a prompt on a cache, with gradient,", found[0].detach(), wanted),
            ("of a prompt on weighted slots, with gradient,", found[1].detach(), wanted),
        ]

    def gradient(self, rounding: float) -> tuple[float, float]:
        """How far the gradient is off its finite differences, and how far it may be where log-probabilities are off by
        `rounding`: at the best step, since one may take a token to another expert, where there is no slope; and of the
        slot in the middle."""
        allowed = (TOLERANCE + rounding / torch.tensor(STEPS))[:, None].expand(-1, MOVED)
        off = ((self.by_autograd - self.by_steps).abs() - SLACK * self.by_steps.abs()).clamp_min(0)
        best = (off / allowed).argmin(dim=0, keepdim=True)
        off, allowed = off.gather(0, best)[0], allowed.gather(0, best)[0]
        middle = int((off / allowed).argsort()[MOVED // 2])
        return float(off[middle]), float(allowed[middle])

    def _past(self) -> FusedCache:
        """The first tokens as a cache."""
        return FusedCache.plain(self.rows.slots_of(0, 0, FIRST, 0, SlotKind.PROMPT))

    def _embeds(self, start: int, count: int, rows: int) -> Tensor:
        return self.llm.embed([self.own.tokens[start : start + count]] * rows)[0]

    def _log_probs(self, states: Tensor) -> Tensor:
        return log_softmax(self.llm.logits(states))


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


def kind_of(model: Any) -> str:
    """The name of a model's family."""
    return str(getattr(model.config, "model_type", type(model).__name__))


@contextmanager
def refusing(model: Any, label: str, what: str) -> Iterator[None]:
    """Whatever goes wrong in another library's code while a model is tried is a reason not to use it."""
    try:
        yield
    except (ModelError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # families share no class of errors
        why = f"{type(error).__name__}: {error}".partition("\n")[0][:160]
        raise ModelError(f"model {label!r} ({kind_of(model)}) cannot be used: {what} ({why}); {WAY_OUT}") from error
