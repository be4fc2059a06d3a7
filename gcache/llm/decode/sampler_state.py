"""What was drawn for each row of a batch of texts so far, and how its next tokens are drawn.

All of it stays on the device. A step draws for the latest token and for each guess, finds out what counts, and tells
the host in one small tensor: how many tokens each row got, whether it is done, whether all was finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gcache.llm.decode.prompt_lookup import MOST_GUESSES, REMEMBERED, guessed
from gcache.llm.decode.sampling import LOGIT_ROWS, drawn, raw_log_probs, scores, uniforms
from gcache.llm.forward.paged_batch import grown
from gcache.llm.requests import GenerateRequest, TokenScore
from gcache.runtime.transfers import moved, to_device

#: As `LOGIT_ROWS` where the host does not look at what is drawn: a bound of memory alone.
FIXED_ROWS = 64


@dataclass
class Row:
    """What the host knows of a row.

    Attributes:
        start: of its text in the history. top_p: 1 for a greedy row, which it does not change.
        wanted: how many of the likeliest tokens are told; None where nothing is.
        scores: what there is to tell.
        tokens: of its text, of a row that the host looks at in every step.
    """

    start: int
    temperature: float
    top_p: float
    wanted: int | None
    scores: list[TokenScore]
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Drawn:
    """What a step wrote, per row: how many tokens, whether the text is done, whether a stop token did it.

    Attributes:
        tokens: all rows one after another, as many of each as could be written; see `fresh`.
        on_device: (n,) `counts` once more.
        finite: whether the states were; where they were not, nothing was written.
    """

    counts: list[int]
    done: list[bool]
    stopped: list[bool]
    tokens: list[int]
    on_device: Tensor
    finite: bool

    def fresh(self, row: int) -> list[int]:
        """The tokens that a row got."""
        start = row * (len(self.tokens) // len(self.counts))
        return self.tokens[start : start + self.counts[row]]


class SamplerState:
    """What was drawn for each row so far, and how the next token is to be drawn.

    Args:
        stops: (s,) the ids that end a text.

    Attributes:
        looks: whether the host looks who goes on behind a guess, and nothing is drawn for the others. On a CPU a draw
            costs more than a look. Elsewhere a look makes the host wait, so everything is drawn at once.
    """

    def __init__(self, device: torch.device, stops: Tensor) -> None:
        self.stops, self.device = stops, device
        self.looks = device.type == "cpu"
        self.others = torch.zeros(0, dtype=torch.long, device=device)  # tokens of texts that are done
        self._begin()

    def _begin(self) -> None:
        device = self.device
        self.count = 0
        # of each row, on the device; some columns behind the longest text take what was drawn behind its end
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
        # of each row, on the host: how it is drawn, what is told of it
        self.rows: list[Row] = []
        self._look_at_rows()

    def _look_at_rows(self) -> None:
        self.greedy = not any(row.temperature for row in self.rows)  # no row is drawn at random
        self.whole = all(row.top_p == 1 for row in self.rows)  # no row is drawn from less than all tokens
        self.told = [number for number, row in enumerate(self.rows) if row.wanted is not None]

    def add(self, requests: Sequence[GenerateRequest], prompts: Sequence[list[TokenScore]]) -> None:
        """Rows for new requests behind the others; `prompts`: what is told of the tokens of each prompt."""
        before = [r.context + r.tokens for r in requests]
        self.rows += [
            Row(len(own), r.temperature, r.top_p if r.temperature else 1.0, r.top_log_probs, scores)
            for r, own, scores in zip(requests, before, prompts, strict=True)
        ]
        self._look_at_rows()
        first, self.count = self.count, self.count + len(requests)
        longest = max(self.values["log_probs"].shape[1], *(r.max_new_tokens + MOST_GUESSES for r in requests))
        whole = (len(b) + r.max_new_tokens + MOST_GUESSES for b, r in zip(before, requests, strict=True))
        widest = max(self.values["history"].shape[1], *whole)
        for name, old in self.values.items():
            width = widest if name == "history" else longest
            self.values[name] = grown(old, (self.count, width)[: old.dim()])
        fresh: dict[str, list[int] | list[float]] = {
            "start": [len(own) for own in before],
            "limit": [r.max_new_tokens for r in requests],
            "temperature": [r.temperature for r in requests],
            "top_p": [r.top_p for r in requests],
        }
        for name, numbers in fresh.items():
            self.values[name][first:] = to_device(numbers, self.device, self.values[name].dtype)
        for row, (request, tokens) in enumerate(zip(requests, before, strict=True), start=first):
            self.values["history"][row, : len(tokens)] = to_device(tokens, self.device)
            if request.temperature:
                self.values["uniforms"][row, : request.max_new_tokens] = moved(uniforms(request), self.device)

    def move(self, source: int, target: int) -> None:
        for values in self.values.values():
            values[target] = values[source]
        self.rows[target] = self.rows[source]

    def cut(self, count: int) -> None:
        """Keep the first `count` rows."""
        if not count:
            self._begin()  # a view of no rows would keep all that there were
            return
        self.count = count
        self.values = {name: values[:count] for name, values in self.values.items()}
        del self.rows[count:]
        self._look_at_rows()

    def of(self, row: int) -> tuple[list[int], list[float]]:
        """A row's tokens and their log-probabilities."""
        start, length = self.rows[row].start, int(self.values["length"][row])
        tokens: list[int] = self.values["history"][row, start : start + length].tolist()
        return tokens, self.values["log_probs"][row, :length].tolist()

    def scores(self, row: int) -> tuple[TokenScore, ...]:
        """What is told of a row's tokens so far."""
        return tuple(self.rows[row].scores)

    def shorten(self, row: int, length: int) -> None:
        """Forget what a row that the host looks at, and that is about to leave, has written beyond so many tokens."""
        beyond = len(self.rows[row].tokens) - length
        self.values["length"][row] = length
        if beyond and self.rows[row].wanted is not None:
            del self.rows[row].scores[-beyond:]

    def remember(self, tokens: Sequence[int]) -> None:
        """Look into these, too, for guesses."""
        self.others = torch.cat((self.others, to_device(tokens, self.device)))[-REMEMBERED:]

    def guesses(self, count: int) -> Tensor:
        """(R, count) the tokens that may come after each row's latest."""
        if not count:
            return self.values["latest"].new_zeros((self.count, 0))
        history = self.values["history"][:, :-MOST_GUESSES]
        return guessed(history, self.values["start"] + self.values["length"], self.others, count)

    def draw(self, logits: Tensor, first: int, guesses: Tensor, finite: Tensor | None = None) -> Drawn:
        """Tokens for each row from `first` on. The host waits for the device once.

        Args:
            logits: (n, 1 + g, V) after the latest token and after each guess. They may be written over.
            guesses: (n, g). The logits after a guess count where it is the token that was drawn.
            finite: () whether anything is to be written; None where it is.
        """
        own = {name: values[first:] for name, values in self.values.items()}
        asking = [row - first for row in self.told if row >= first]
        kept = logits[to_device(asking, self.device)] if asking else None  # a copy: draws work in place
        tokens, log_probs = (self._behind_right_guesses if self.looks else self._everywhere)(logits, own, guesses)
        steps = torch.arange(tokens.shape[1], device=self.device)
        stop = (tokens[:, :, None] == self.stops).any(dim=2)  # (n, 1 + g)
        end = stop | (own["length"][:, None] + steps + 1 >= own["limit"][:, None])
        right = (tokens[:, :-1] == guesses) & ~end[:, :-1]
        last = right.cumprod(dim=1).sum(dim=1, keepdim=True)  # (n, 1) place of the last token that counts
        count = last[:, 0] + 1
        if finite is not None:
            count = count * finite
        latest = tokens.gather(1, last)[:, 0]
        own["latest"].copy_(latest if finite is None else torch.where(finite, latest, own["latest"]))
        # what is behind a row's end is never looked at
        at = own["length"][:, None] + steps
        own["history"].scatter_(1, own["start"][:, None] + at, tokens)
        own["log_probs"].scatter_(1, at, log_probs)
        own["length"] += count
        flags = (count, end.gather(1, last)[:, 0], stop.gather(1, last)[:, 0])
        packed = torch.cat((*flags, count.new_ones(1) if finite is None else finite[None], tokens.flatten()))
        numbers: list[int] = packed.tolist()
        n = len(tokens)
        counts, done, stopped = (numbers[start : start + n] for start in (0, n, 2 * n))
        found = Drawn(
            counts, [*map(bool, done)], [*map(bool, stopped)], numbers[3 * n + 1 :], count, bool(numbers[3 * n])
        )
        if kept is not None and found.finite:
            self._score(kept, asking, first, found)
        return found

    def _everywhere(self, logits: Tensor, own: dict[str, Tensor], guesses: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 1 + g) tokens and log-probabilities, whether they count or not: no shape depends on what is drawn."""
        rows, places = logits.shape[:2]
        each = torch.arange(rows * places, device=self.device)
        tokens, log_probs = self._picked(logits.flatten(0, 1), own, each // places, each % places)
        return tokens.view(rows, places), log_probs.view(rows, places)

    def _behind_right_guesses(self, logits: Tensor, own: dict[str, Tensor], guesses: Tensor) -> tuple[Tensor, Tensor]:
        """The same of rows whose guesses were right so far; some tokens for the others, of which none counts."""
        tokens = torch.zeros(logits.shape[:2], dtype=torch.long, device=self.device)
        log_probs = torch.zeros(logits.shape[:2], device=self.device)
        going = torch.arange(len(logits), device=self.device)
        for place in range(logits.shape[1]):
            fresh = logits[:, place] if place == 0 else logits[going, place]
            found = self._picked(fresh, own, going, torch.full_like(going, place))
            tokens[going, place], log_probs[going, place] = found
            if place == guesses.shape[1]:
                break
            going = going[found[0] == guesses[going, place]]
            if not len(going):
                break
        return tokens, log_probs

    def _score(self, logits: Tensor, asking: Sequence[int], first: int, found: Drawn) -> None:
        """Note what was drawn for the rows that are told, of their (m, 1 + g, V) logits."""
        for own, row in zip(logits, asking, strict=True):
            written, told = found.fresh(row), self.rows[first + row]
            told.scores += scores(raw_log_probs(own[: len(written)]), written, [told.wanted or 0] * len(written))

    def _picked(self, logits: Tensor, own: dict[str, Tensor], rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """(m,) ids and log-probabilities for rows (m,) at places (m,) behind their latest token, of (m, V) logits."""
        picked = []
        at_once = LOGIT_ROWS if self.looks else FIXED_ROWS
        for part, row, place in zip(*(each.split(at_once) for each in (logits, rows, places)), strict=True):
            part = part.float()
            if self.greedy:
                best, tokens = part.max(dim=-1)
                rest = part.sub_(best[:, None]).exp_().sum(dim=-1)
                picked.append((tokens, -rest.log()))
            else:
                uniform = own["uniforms"][row, own["length"][row] + place]
                top_p = None if self.whole else own["top_p"][row]
                picked.append(drawn(part, own["temperature"][row], top_p, uniform, self.looks))
        all_tokens, all_log_probs = zip(*picked, strict=True)
        return torch.cat(all_tokens), torch.cat(all_log_probs)
