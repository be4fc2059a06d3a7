"""How a token is drawn from logits, and how likely tokens were.

    logits / temperature  ->  the smallest set of most likely tokens that holds top_p  ->  a draw

as vLLM and transformers have it. At temperature 0 the most likely token is taken, whatever top_p says. What is told of
a token's chance (`scores`) is the model's own: neither the temperature nor top_p is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcache.llm.decode.prompt_lookup import REMEMBERED, guessed
from gcache.llm.forward.paged_batch import grown
from gcache.llm.requests import GenerateRequest, TokenScore
from gcache.runtime.streams import stream

#: Temperatures below this one would make logits infinite, and draw the same tokens.
COLDEST = 1e-30
#: Rows of logits that are looked at together: so many fit a processor's cache.
LOGIT_ROWS = 16


@dataclass(frozen=True)
class Drawn:
    """What a step wrote, per row (n,): how many tokens, whether the text is done, whether a stop token did it."""

    count: Tensor
    done: Tensor
    stopped: Tensor


class SamplerState:
    """What was drawn for each row so far, and how the next token is to be drawn.

    Args:
        stops: (s,) the ids that end a text.
    """

    def __init__(self, device: torch.device, stops: Tensor) -> None:
        self.stops, self.device = stops, device
        self.others = torch.zeros(0, dtype=torch.long, device=device)  # tokens of texts that are done
        self._begin()

    def _begin(self) -> None:
        device = self.device
        self.count = 0
        self.greedy = True  # no row is drawn at random
        self.whole = True  # no row is drawn from less than all tokens
        self.values = {
            "history": torch.zeros((0, 0), dtype=torch.long, device=device),  # (R, W) context, prompt, text
            "log_probs": torch.zeros((0, 0), device=device),  # (R, longest text)
            "uniforms": torch.zeros((0, 0), dtype=torch.float64, device=device),
            "latest": torch.zeros(0, dtype=torch.long, device=device),  # (R,)
            "start": torch.zeros(0, dtype=torch.long, device=device),  # of the text in the history
            "length": torch.zeros(0, dtype=torch.long, device=device),
            "limit": torch.zeros(0, dtype=torch.long, device=device),
            "temperature": torch.zeros(0, device=device),
            "top_p": torch.zeros(0, dtype=torch.float64, device=device),
        }
        # of each row: how many of the likeliest tokens are told (None: nothing is), and what there is to tell
        self.wanted: list[int | None] = []
        self.scores: list[list[TokenScore]] = []

    def add(self, requests: Sequence[GenerateRequest], prompts: Sequence[list[TokenScore]]) -> None:
        """Rows for new requests behind the others; `prompts`: what is told of the tokens of each prompt."""
        self.wanted += [request.top_log_probs for request in requests]
        self.scores += prompts
        first, self.count = self.count, self.count + len(requests)
        before = [r.context + r.tokens for r in requests]
        longest = max(self.values["log_probs"].shape[1], *(r.max_new_tokens for r in requests))
        whole = (len(b) + r.max_new_tokens for b, r in zip(before, requests, strict=True))
        widest = max(self.values["history"].shape[1], *whole)
        for name, old in self.values.items():
            width = widest if name == "history" else longest
            self.values[name] = grown(old, (self.count, width)[: old.dim()])
        for row, (request, tokens) in enumerate(zip(requests, before, strict=True), start=first):
            self.values["history"][row, : len(tokens)] = torch.tensor(tokens)
            self.values["start"][row] = len(tokens)
            self.values["limit"][row] = request.max_new_tokens
            self.values["temperature"][row] = request.temperature
            self.values["top_p"][row] = request.top_p
            if request.temperature:
                self.greedy = False
                self.whole &= request.top_p == 1
                self.values["uniforms"][row, : request.max_new_tokens] = uniforms(request)

    def move(self, source: int, target: int) -> None:
        for values in self.values.values():
            values[target] = values[source]
        self.wanted[target], self.scores[target] = self.wanted[source], self.scores[source]

    def cut(self, count: int) -> None:
        """Keep the first `count` rows."""
        if not count:
            self._begin()  # a view of no rows would keep all that there were
            return
        self.count = count
        self.values = {name: values[:count] for name, values in self.values.items()}
        del self.wanted[count:], self.scores[count:]
        self.greedy = not bool(self.values["temperature"].any())
        self.whole = bool((self.values["top_p"] == 1).all())

    def of(self, row: int) -> tuple[list[int], list[float]]:
        """A row's tokens and their log-probabilities."""
        start, length = int(self.values["start"][row]), int(self.values["length"][row])
        tokens: list[int] = self.values["history"][row, start : start + length].tolist()
        return tokens, self.values["log_probs"][row, :length].tolist()

    def shorten(self, row: int, length: int) -> None:
        """Forget what a row, which is about to leave, has written beyond so many tokens."""
        beyond = int(self.values["length"][row]) - length
        self.values["length"][row] = length
        if beyond and self.wanted[row] is not None:
            del self.scores[row][-beyond:]

    def remember(self, tokens: Sequence[int]) -> None:
        """Look into these, too, for guesses."""
        self.others = torch.cat((self.others, self.others.new_tensor(tokens)))[-REMEMBERED:]

    def guesses(self, count: int) -> Tensor:
        """(R, count) the tokens that may come after each row's latest."""
        if not count:
            return self.values["latest"].new_zeros((self.count, 0))
        return guessed(self.values["history"], self.values["start"] + self.values["length"], self.others, count)

    def draw(self, logits: Tensor, first: int, guesses: Tensor) -> Drawn:
        """Tokens for each row from `first` on.

        Args:
            logits: (n, 1 + g, V) after the latest token and after each guess.
            guesses: (n, g). The logits after a guess count where it is the token that was drawn.
        """
        own = {name: values[first:] for name, values in self.values.items()}
        before = own["length"].clone()
        done = torch.zeros_like(before, dtype=torch.bool)
        stopped = torch.zeros_like(done)
        going = torch.arange(len(before), device=before.device)
        for place in range(logits.shape[1]):
            length = own["length"][going]
            fresh = logits[:, place] if place == 0 else logits[going, place]
            asking = self._asking(first, going)
            raw = raw_log_probs(fresh[[at for at, _ in asking]]) if asking else None  # before draws work in place
            tokens, log_probs = self._picked(fresh, own, going)
            if raw is not None:
                self._score(raw, asking, tokens)
            own["history"][going, own["start"][going] + length] = tokens
            own["log_probs"][going, length] = log_probs
            own["length"][going] = length + 1
            own["latest"][going] = tokens
            stopped[going] = torch.isin(tokens, self.stops)
            done[going] = stopped[going] | (length + 1 >= own["limit"][going])
            if place == guesses.shape[1]:
                break
            going = going[~done[going] & (tokens == guesses[going, place])]
            if not len(going):
                break
        return Drawn(own["length"] - before, done, stopped)

    def _asking(self, first: int, going: Tensor) -> list[tuple[int, int]]:
        """Who of the rows `going` is told scores: (place among them, row)."""
        if all(count is None for count in self.wanted[first:]):
            return []
        rows = [first + row for row in going.tolist()]
        return [(place, row) for place, row in enumerate(rows) if self.wanted[row] is not None]

    def _score(self, log_probs: Tensor, asking: Sequence[tuple[int, int]], tokens: Tensor) -> None:
        """Note what was drawn for those who are told."""
        own = tokens[[place for place, _ in asking]].tolist()
        found = scores(log_probs, own, [self.wanted[row] or 0 for _, row in asking])
        for (_, row), score in zip(asking, found, strict=True):
            self.scores[row].append(score)

    def _picked(self, logits: Tensor, own: dict[str, Tensor], going: Tensor) -> tuple[Tensor, Tensor]:
        """(m,) ids and log-probabilities for rows `going`, of (m, V) logits."""
        picked = []
        for rows, part in zip(going.split(LOGIT_ROWS), logits.split(LOGIT_ROWS), strict=True):
            part = part.float()
            if self.greedy:
                best, tokens = part.max(dim=-1)
                rest = part.sub_(best[:, None]).exp_().sum(dim=-1)
                picked.append((tokens, -rest.log()))
            else:
                uniform = own["uniforms"][rows, own["length"][rows]]
                top_p = None if self.whole else own["top_p"][rows]
                picked.append(drawn(part, own["temperature"][rows], top_p, uniform))
        all_tokens, all_log_probs = zip(*picked, strict=True)
        return torch.cat(all_tokens), torch.cat(all_log_probs)


def uniforms(request: GenerateRequest) -> Tensor:
    """(max_new_tokens,) draws in [0, 1), from the request's own seed: a batch mate changes none of them."""
    return torch.from_numpy(stream("tokens", request.seed).random(request.max_new_tokens))


def drawn(logits: Tensor, temperature: Tensor, top_p: Tensor | None, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Pick a token per row of (n, V) logits; returns (n,) ids and (n,) log-probabilities of the draws.

    Drawn by inverting the cumulative distribution at `uniform`, in float64; greedy at temperature 0.

    Args:
        temperature, top_p, uniform: (n,); None where nobody's top_p is below 1.
    """
    greedy = temperature == 0
    warmth = torch.where(greedy, 1.0, temperature.clamp_min(COLDEST))
    log_probs = torch.log_softmax(logits / warmth[:, None], dim=-1)
    if top_p is not None:
        narrow = ((top_p < 1) & ~greedy).nonzero().squeeze(1)
        kept = log_probs[narrow].masked_fill(~nucleus(log_probs[narrow], top_p[narrow]), -torch.inf)
        log_probs[narrow] = torch.log_softmax(kept, dim=-1)
    cumulative = log_probs.double().exp().cumsum(dim=-1)
    whole = cumulative[:, -1:]
    # below the whole, however it rounds: what lies behind the last token of the nucleus has no chance
    target = torch.minimum(uniform[:, None] * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    found = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_max(logits.shape[1] - 1)
    tokens = torch.where(greedy, logits.argmax(dim=-1), found)
    return tokens, log_probs.gather(1, tokens[:, None]).squeeze(1)


def nucleus(log_probs: Tensor, top_p: Tensor) -> Tensor:
    """(n, V) whether a token is in the smallest set of most likely tokens whose probabilities reach top_p (n,).

    The token that crosses it is in the set; of equally likely tokens those with smaller ids come first (Holtzman et
    al., "The Curious Case of Neural Text Degeneration", 2020).
    """
    ordered, order = log_probs.double().exp().sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    inside = before < top_p[:, None]
    inside[:, 0] = True
    return torch.zeros_like(inside).scatter_(1, order, inside)


def scores(log_probs: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[TokenScore]:
    """How likely tokens were under (n, V) log-probabilities, and which `counts` tokens were the most likely."""
    if not tokens:
        return []
    most = min(max(counts), log_probs.shape[1])
    best = log_probs.topk(most, dim=-1)
    own = log_probs.gather(1, torch.tensor(tokens, device=log_probs.device)[:, None]).squeeze(1).tolist()
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    tops = [list(zip(ids, values, strict=True)) for ids, values in pairs]
    return [
        TokenScore(token, value, tuple(top[:count]))
        for token, value, top, count in zip(tokens, own, tops, counts, strict=True)
    ]


def raw_log_probs(logits: Tensor) -> Tensor:
    """(n, V) the model's own log-probabilities, a copy: neither tempered nor cut."""
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
