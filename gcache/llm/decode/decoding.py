"""Writing text in a batch that changes while it runs: rows leave when they are done, others join.

A step writes a token for every row, and more where the guesses of `gcache.llm.decode.prompt_lookup` were right.
What belongs to a token stays on the device. Per step the host waits for it once, for a few numbers per row, and looks
at rows only when some are done, watched or may end at a word.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from gcache.cache.kv_cache import SlotKind
from gcache.llm.batch_sizes import RequestSize, group_similar_lengths
from gcache.llm.decode.prompt_lookup import AcceptanceRate
from gcache.llm.decode.sampler_state import Drawn, SamplerState
from gcache.llm.decode.sampling import LOGIT_ROWS, raw_log_probs, scores
from gcache.llm.decode.stopping import TextEnds
from gcache.llm.forward.gradient_pass import last_real
from gcache.llm.forward.paged_batch import Added
from gcache.llm.forward.pages import padded_slots
from gcache.llm.requests import GenerateRequest, Generation, TokenScore

if TYPE_CHECKING:
    from gcache.llm.forward.paged_batch import PagedBatch
    from gcache.llm.frozen_model import FrozenModel

Ticket = TypeVar("Ticket", bound=Hashable)
#: Prompts that are read in one pass where they come with caches of their own: so many, or a
#: quarter of those that join together.
READ_WITH_PAST = 4
#: What became of a row: its text, or what went wrong.
Outcome = Generation | Exception


def _slots_of(request: GenerateRequest, owner: int) -> Added:
    """What is handed on of a request's row, whose number and text are not known yet."""
    past = 0 if request.past is None else request.past.slots
    return Added(0, past, request.prompt_slots, owner, SlotKind.PROMPT, request.latent_steps)


class Decoding(Generic[Ticket]):
    """Texts in the making.

    Args:
        llm: the model that writes them.
        rows: an empty batch; None for a new one.

    Rows are named by the tickets they came with. A pass that fails is tried again row by row, so
    that only the rows that fail by themselves are lost. After `join` and `step`, `notify` is to be called.
    """

    def __init__(self, llm: FrozenModel, rows: PagedBatch | None = None) -> None:
        self.llm = llm
        self.rows = llm.rows(recorded=True) if rows is None else rows
        self.tickets: list[Ticket] = []
        self._slots: list[int] = []  # of each row when its text is as long as it may be
        self._ends: list[TextEnds] = []  # of each row
        self._kept: list[Added | None] = []  # of each row whose slots are handed on
        self._heeded: list[int] = []  # rows whose tokens the host looks at in every step
        self._written = SamplerState(llm.device, torch.tensor(sorted(llm.stop_tokens), device=llm.device))
        self._luck = AcceptanceRate(llm.pass_seconds)
        self._news: list[tuple[Ticket, Callable[[Any], None], Any]] = []

    def __len__(self) -> int:
        return len(self.tickets)

    @property
    def rows_worth_filling(self) -> int:
        """With this many rows or fewer, others should join: an eighth of the batch is vacant."""
        most = self.llm.limits.max_batch_size
        return most - max(1, most // 8)

    def admits(self, waiting: Sequence[GenerateRequest]) -> int:
        """How many of the waiting requests, from the first on, should join before the next step.

        Joining costs a pass, so rows that came free wait for a few more, up to an eighth of the batch.
        """
        vacant = min(self.llm.limits.max_batch_size - len(self), len(waiting))
        if vacant <= 0 or (len(self) > self.rows_worth_filling and vacant < len(waiting)):
            return 0
        slots = [RequestSize.of(request).total for request in waiting[:vacant]]
        while vacant and self._block(slots[:vacant]) > self.llm.limits.max_batch_tokens and vacant + len(self) > 1:
            vacant -= 1
        if not vacant:
            return 0
        bytes_ = self.llm.slot_bytes
        return self.llm.ledger.most_that_fit(
            vacant, lambda n: max(0, self._padded(slots[:n]) * bytes_ - self.rows.nbytes), free=len(self) > 0
        )

    def _block(self, more: Sequence[int]) -> int:
        """Slots that a pass looks at for the rows there are and `more`, at their longest, padding as well."""
        everyone = [*self._slots, *more]
        return len(everyone) * max(everyone, default=0)

    def _padded(self, more: Sequence[int]) -> int:
        """Slots that are kept for them."""
        return sum(map(padded_slots, (*self._slots, *more)))

    def join(self, tickets: Sequence[Ticket], requests: list[GenerateRequest]) -> list[tuple[Ticket, Outcome]]:
        """Read the requests' prompts and let them write along; returns those that are done already.

        Prompts of like length are read together. The list is empty afterwards: requests leave it as
        soon as they are read, so that what they were handed and the rows it was copied to are not
        all there at once.
        """
        joining = sorted(zip(tickets, requests, strict=True), key=lambda pair: pair[1].prompt_slots, reverse=True)
        requests.clear()
        outcomes: list[tuple[Ticket, Outcome]] = []
        most = max(READ_WITH_PAST, -(-len(joining) // 4))
        while joining:
            together = next(group_similar_lengths([request.prompt_slots for _, request in reversed(joining)])).stop
            think = [(r.latent_steps, id(r.alignment)) for _, r in reversed(joining[-together:])]
            together = next((n for n, each in enumerate(think) if each != think[0]), together)
            if any(request.past is not None for _, request in joining[-together:]):
                together = min(together, most)
            read = [joining.pop() for _ in range(together)]
            outcomes += self._join_group([ticket for ticket, _ in read], [request for _, request in read])
        return outcomes

    @torch.no_grad()
    def _join_group(
        self, tickets: Sequence[Ticket], requests: Sequence[GenerateRequest]
    ) -> list[tuple[Ticket, Outcome]]:
        """The same for requests that are read in one pass."""
        before = len(self)
        hidden: Tensor | None
        try:
            embeds, lengths = self.llm.embed_prompts(requests)
            pasts = [self.llm.checked(r.past) for r in requests]
            first = self.rows.add(pasts, [self._room(r) for r in requests])
            states = self.rows.feed(embeds, lengths, first)
            prompts = [self._prompt_scores(own, r) for own, r in zip(states, requests, strict=True)]
            hidden = self._after_latents(requests, first, last_real(states, lengths), tickets)
            del states
        except Exception as error:
            self.rows.remove(range(before, self.rows.count))
            if len(requests) == 1:
                return [(tickets[0], error)]
            hidden = None
        if hidden is None:  # out of the block: the error would keep what the pass had made until the next one
            one_by_one = (self._join_group([t], [r]) for t, r in zip(tickets, requests, strict=True))
            return [outcome for outcomes in one_by_one for outcome in outcomes]
        self.tickets += tickets
        self._slots += [RequestSize.of(request).total for request in requests]
        self._ends += [TextEnds((*r.stop, *self.llm.stop_words), r.watch, r.watch_scores) for r in requests]
        self._kept += [None if r.owner is None else _slots_of(r, r.owner) for r in requests]
        self._find_heeded()
        self._written.add(requests, prompts)
        drawn = self._draw(hidden[:, None], first, lengths.new_zeros((len(requests), 0)))
        return self._write(drawn, first, 0)

    def _after_latents(
        self, requests: Sequence[GenerateRequest], first: int, hidden: Tensor, tickets: Sequence[Ticket]
    ) -> Tensor:
        """(n, E) states of rows from `first` on after their latent steps, of those after their prompts."""
        fed: list[Tensor] = []
        align = requests[0].alignment or self.llm.alignment
        for _ in range(requests[0].latent_steps):
            fed.append(hidden)
            hidden = self.rows.feed(align(hidden)[:, None], first=first)[:, 0]
        for row, (ticket, request) in enumerate(zip(tickets, requests, strict=True)):
            if request.watch_latents is not None:
                states = torch.stack([state[row] for state in fed]) if fed else hidden[:0]
                self._news.append((ticket, request.watch_latents, states))
        return hidden

    def _room(self, request: GenerateRequest) -> int:
        """Slots to take for a request beside its past: those that it needs now, or all where pools should stay."""
        now = request.prompt_slots + request.latent_steps
        return now + (1 if self.rows.graphs is None else request.max_new_tokens)

    def _prompt_scores(self, states: Tensor, request: GenerateRequest) -> list[TokenScore]:
        """What is told of a prompt's tokens, of its hidden states (S, E); the first has nothing before it."""
        if not request.score_prompt:
            return []
        tokens, count = request.tokens, request.top_log_probs or 0
        found = [TokenScore(tokens[0], None)]
        for part in states[: len(tokens) - 1].split(LOGIT_ROWS):  # never the logits of a whole prompt at once
            next_ = tokens[len(found) : len(found) + len(part)]
            found += scores(raw_log_probs(self.llm.head(part)), next_, [count] * len(next_))
        return found

    @torch.no_grad()
    def step(self) -> list[tuple[Ticket, Outcome]]:
        """A token or more for every row; returns the texts that are done."""
        tokens = self._written.values["latest"][:, None]
        guesses = self._written.guesses(self._worth_guessing() if self.llm.limits.prompt_lookup else 0)
        embeds = self.llm.embedding(torch.cat((tokens, guesses), dim=1))
        hidden, failed = self._fed(embeds)
        if not self.tickets:
            return failed
        guesses = guesses[: len(hidden), : hidden.shape[1] - 1]  # none where rows were fed one by one
        drawn = self._draw(hidden, 0, guesses)
        if not drawn.finite:  # a guess that is nan makes its row nan
            self.rows.forget(embeds.shape[1])
            hidden, failed = self._fed(embeds[:, :1])
            if not self.tickets:
                return failed
            guesses = guesses[: len(hidden), :0]
            drawn = self._draw(hidden, 0, guesses)
        return failed + self._write(drawn, 0, guesses.shape[1])

    def _worth_guessing(self) -> int:
        """How many tokens to guess for each row."""
        return self._luck.guesses(len(self), sum(self.rows.used) / len(self))

    def _fed(self, embeds: Tensor) -> tuple[Tensor, list[tuple[Ticket, Outcome]]]:
        """A step's hidden states, of the latest tokens alone where rows had to be fed one by one; and who left."""
        try:
            return self.rows.feed(embeds), []
        except Exception as error:
            if len(self) == 1:
                return embeds[:0], self._retire([0], [error])
        # out of the block: the error would keep what the pass had made
        return self._row_by_row(embeds[:, :1])

    def _row_by_row(self, embeds: Tensor) -> tuple[Tensor, list[tuple[Ticket, Outcome]]]:
        """A step's hidden states of the rows that can be fed alone; the others leave."""
        states: list[Tensor] = []
        errors: dict[int, Exception] = {}
        for row in range(len(self)):
            try:
                states.append(self.rows.feed(embeds[row : row + 1], torch.ones_like(self.rows.positions[:1]), row))
            except Exception as error:
                states.append(embeds[row : row + 1])
                errors[row] = error
        hidden = torch.cat(states)
        for gone in sorted(errors, reverse=True):  # as `PagedBatch.remove` fills the places
            hidden[gone] = hidden[-1]
            hidden = hidden[:-1]
        return hidden, self._retire(list(errors), list(errors.values()))

    def _draw(self, hidden: Tensor, first: int, guesses: Tensor) -> Drawn:
        """Tokens for rows from `first` on, of states (n, 1 + g, E) and guesses (n, g); none where a guess made some
        state nan."""
        finite = hidden.isfinite().all() if guesses.shape[1] else None
        return self._written.draw(self.llm.head(hidden), first, guesses, finite)

    def _write(self, drawn: Drawn, first: int, guesses: int) -> list[tuple[Ticket, Outcome]]:
        """Note what was drawn for rows from `first` on, with so many guesses each. Rows that are done leave."""
        if guesses:
            self.rows.take_back(1 + guesses - drawn.on_device, [1 + guesses - count for count in drawn.counts])
            self._luck.tried(len(self), sum(drawn.counts) - len(self))
        else:
            self._luck.not_tried()
        stopped = self._at_stop_words(first, drawn) if self._heeded else set()
        if not stopped and not any(drawn.done):
            return []
        gone = sorted(stopped | {row for row, done in enumerate(drawn.done, start=first) if done})
        texts = [self._text(row, drawn.stopped[row - first] or row in stopped) for row in gone]
        return self._retire(gone, self._with_slots(gone, texts))

    def _at_stop_words(self, first: int, drawn: Drawn) -> set[int]:
        """The rows from `first` on that have a stop word now, with what was drawn for them; what watchers are to be
        told is noted for `notify`."""
        found: set[int] = set()
        for row in self._heeded:
            if row < first:
                continue
            ends, written = self._ends[row], self._written.rows[row].tokens
            written += drawn.fresh(row - first)
            tokens = tuple(written)
            end = ends.first_end(tokens, drawn.counts[row - first], self.llm.text)
            if end is not None:
                found.add(row)
                self._written.shorten(row, end)
            if ends.watch_scores is not None:
                self._news.append((self.tickets[row], ends.watch_scores, self._written.scores(row)))
            if ends.watch is not None:
                self._news.append((self.tickets[row], ends.watch, tokens[:end]))
        return found

    def _find_heeded(self) -> None:
        self._heeded = [row for row, ends in enumerate(self._ends) if ends.is_heeded]

    def _text(self, row: int, ended: bool) -> Generation:
        """What a row has written, up to its stop word."""
        tokens, log_probs = self._written.of(row)
        self._written.remember(tokens)
        text = self.llm.text(tokens)
        cut = self._ends[row].cut(text)
        scored = self._written.scores(row)
        return Generation(text if cut is None else text[:cut], tuple(tokens), tuple(log_probs), ended, scored)

    def _with_slots(self, rows: Sequence[int], texts: Sequence[Generation]) -> list[Generation]:
        """The texts with their slots, where these are handed on; copies, for the rows are about to leave."""
        kept = [
            None if own is None else replace(own, row=row, text=len(text.tokens) - 1)
            for row, text, own in zip(rows, texts, (self._kept[row] for row in rows), strict=True)
        ]
        slots = iter(self.rows.slots_of([own for own in kept if own is not None]) if any(kept) else ())
        found: list[Generation] = []
        for text, own in zip(texts, kept, strict=True):
            if own is not None:
                cache = next(slots)
                self.llm.ledger.hold(cache, cache.slots * self.llm.slot_bytes)
                text = replace(text, slots=cache)
            found.append(text)
        return found

    def notify(self, done: Sequence[tuple[Ticket, Outcome]]) -> list[tuple[Ticket, Outcome]]:
        """Tell watchers what was written since; returns the outcomes that a step gave, with a watcher's error in place
        of its text. To be called when the turn is given back: a watcher may wait for another thread."""
        news, self._news = self._news, []
        outcomes = dict(done)
        for ticket, watch, what in news:
            if ticket not in outcomes and ticket not in self.tickets:
                continue  # another watcher has dropped it
            try:
                watch(what)
            except Exception as error:
                outcomes[ticket] = error
        lost = [row for row, ticket in enumerate(self.tickets) if ticket in outcomes]
        if lost:
            self._retire(lost, [outcomes[self.tickets[row]] for row in lost])
        return list(outcomes.items())

    def drop(self, ticket: Ticket) -> None:
        """Let a row go whose text nobody waits for any more."""
        if ticket in self.tickets:
            self._retire([self.tickets.index(ticket)], [RuntimeError("dropped")])

    def _retire(self, gone: Sequence[int], outcomes: Sequence[Outcome]) -> list[tuple[Ticket, Outcome]]:
        """Take rows out of the batch; each with what became of it."""
        left = [(self.tickets[row], outcome) for row, outcome in zip(gone, outcomes, strict=True)]
        for source, target in self.rows.remove(gone):
            self.tickets[target], self._slots[target] = self.tickets[source], self._slots[source]
            self._ends[target], self._kept[target] = self._ends[source], self._kept[source]
            self._written.move(source, target)
        for per_row in (self.tickets, self._slots, self._ends, self._kept):
            del per_row[self.rows.count :]
        self._find_heeded()
        self._written.cut(self.rows.count)
        return left
