"""What a decision without a text was between, and what was chosen; see `gcache.graph.marginal`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a configuration is made before torch is there
    from gcache.llm.requests import Generation


@dataclass(frozen=True)
class Option:
    """An answer that was to be had.

    Attributes:
        tokens: that state it behind a prompt, with the one that ends the turn.
        text: that states it: what the agent `writer` wrote, where there is one; without what stands in think tags.
        generation: as it was written; thinks: whether its prompt ended inside a think tag.
    """

    answer: str
    tokens: tuple[int, ...]
    text: str
    writer: int | None = None
    generation: Generation | None = None
    thinks: bool = False

    @property
    def cut(self) -> bool:
        """Whether a length limit cut the text off."""
        return self.generation is not None and not self.generation.finished


@dataclass(frozen=True)
class Ballot:
    """A decision without a text; see `gcache.graph.marginal`.

    Attributes:
        heard: agents, each alone; () where the question was the only cache.
        prompts: the decision maker's, behind each cache.
        options: the answers to choose from.
        scores: (caches, options) log-probabilities of each answer's tokens under each cache; 0 where there was one
            answer and nothing to ask.
        probabilities: with which each was chosen from, at `temperature`; of 0, which is greedy, as they stand.
        chosen: the number of the one that was.
        shares: of each cache in the decision; they sum to 1.
    """

    heard: tuple[int, ...]
    prompts: tuple[tuple[int, ...], ...]
    options: tuple[Option, ...]
    scores: tuple[tuple[float, ...], ...]
    probabilities: tuple[float, ...]
    chosen: int
    shares: tuple[float, ...]
    temperature: float = 0.0

    @property
    def choice(self) -> Option:
        """What was chosen."""
        return self.options[self.chosen]

    def under(self, agent: int) -> tuple[float, ...]:
        """Of each answer, its probability where that agent's cache alone is heard."""
        scores = self.scores[self.heard.index(agent)]
        highest = max(scores)
        odds = [math.exp(score - highest) for score in scores]
        return tuple(each / sum(odds) for each in odds)

    @property
    def log_prob(self) -> float:
        """Of the answer that was chosen."""
        return math.log(max(self.probabilities[self.chosen], 1e-45))
