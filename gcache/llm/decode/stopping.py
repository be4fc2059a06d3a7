"""Where a text ends: the stop words of its request, and who watches it on the way there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gcache.llm.requests import TokenScore


@dataclass(frozen=True)
class TextEnds:
    """How a row's text may end, and who is told of it; see `GenerateRequest`."""

    stop: tuple[str, ...]
    watch: Callable[[tuple[int, ...]], None] | None
    watch_scores: Callable[[tuple[TokenScore, ...]], None] | None

    @property
    def is_heeded(self) -> bool:
        """Whether the tokens must be looked at as they come."""
        return bool(self.stop) or self.watch is not None or self.watch_scores is not None

    def cut(self, text: str) -> int | None:
        """Where the first stop word begins; None where the text has none."""
        return first_stop(text, self.stop) if self.stop else None

    def first_end(
        self, tokens: tuple[int, ...], fresh: int, text_of: Callable[[tuple[int, ...]], str]
    ) -> int | None:
        """How many tokens there are at the first of the `fresh` last ones with which the text has a stop word.

        Every beginning is looked at, as if its tokens had come one by one: what a text ends with must not depend on
        how many of them were guessed, and the text of a beginning is not always the beginning of the text (half a
        character, a space that the tokenizer takes away before what comes next).
        """
        if not self.stop:
            return None
        lengths = range(len(tokens) - fresh + 1, len(tokens) + 1)
        return next((n for n in lengths if self.cut(text_of(tokens[:n])) is not None), None)


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the first of some stop words begins in a text; None where it has none.

    >>> first_stop("one. two", (" two", "."))
    3
    """
    places = [place for word in stop if (place := text.find(word)) >= 0]
    return min(places, default=None)
