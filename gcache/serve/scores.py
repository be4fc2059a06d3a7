"""Log-probabilities as OpenAI's API tells them: of a chat, token by token, and of a completion, column by column."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gcache.llm.local import LocalLLM
from gcache.llm.requests import TokenScore
from gcache.serve.pieces import Piece, Pieces, places
from gcache.serve.text_stream import HALF

#: What is told of a token without any chance: JSON has no infinity. OpenAI and vLLM tell the same.
LEAST = -9999.0
#: Tokens that a character takes at most; what is longer is no character.
LONGEST_CHARACTER = 16


@dataclass(frozen=True)
class Scored:
    """A token, how likely it was, and what was likelier.

    Attributes:
        log_prob: None for the first token of a prompt.
        offset: characters before it in the text of its choice.
    """

    piece: Piece
    log_prob: float | None
    top: tuple[tuple[Piece, float], ...]
    offset: int


class Scorer:
    """Says of each token of one choice, as they come, how likely it was.

    Args:
        llm: the model that writes it.
        echoed: the prompt's text, where the choice begins with it; and `prompt` its tokens, of which scores come first.
    """

    def __init__(self, llm: LocalLLM, pieces: Pieces, echoed: str = "", prompt: Sequence[int] = ()) -> None:
        self.llm, self.pieces = llm, pieces
        self._places = deque(places(echoed, [pieces.of(token) for token in prompt]))
        self._written: list[int] = []
        self._text, self._before, self._read = len(echoed), 0, 0
        self._told = 0

    def more(self, scores: Sequence[TokenScore]) -> tuple[Scored, ...]:
        """Of all scores so far, those that were not told before."""
        fresh, self._told = scores[self._told :], len(scores)
        return tuple(self._scored(score) for score in fresh)

    def _scored(self, score: TokenScore) -> Scored:
        if self._places:
            offset = self._places.popleft()
        else:
            offset = self._text
            self._grow(score.token)
        top = tuple((self.pieces.of(token), _told(value)) for token, value in score.top)
        own = None if score.log_prob is None else _told(score.log_prob)
        return Scored(self.pieces.of(score.token), own, top, offset)

    def _grow(self, token: int) -> None:
        """Count the characters that a written token adds: a few tokens before it decide on its spaces."""
        self._written.append(token)
        known = self.llm.text(self._written[self._before : self._read])
        text = self.llm.text(self._written[self._before :])
        waits = text.endswith(HALF) and len(self._written) - self._read < LONGEST_CHARACTER
        if len(text) > len(known) and not waits:
            self._text += len(text) - len(known)
            self._before, self._read = self._read, len(self._written)


def chat_scores(scored: Sequence[Scored]) -> dict[str, Any]:
    """`logprobs` of a choice of a chat."""
    content = [
        {**_one(each.piece, each.log_prob), "top_logprobs": [_one(piece, value) for piece, value in each.top]}
        for each in scored
    ]
    return {"content": content, "refusal": None}


def text_scores(scored: Sequence[Scored]) -> dict[str, Any]:
    """`logprobs` of a completion."""
    return {
        "tokens": [each.piece.text for each in scored],
        "token_logprobs": [each.log_prob for each in scored],
        "top_logprobs": [_top(each) for each in scored],
        "text_offset": [each.offset for each in scored],
    }


def _top(each: Scored) -> dict[str, float] | None:
    """By text, the likeliest first; the token itself is always there, so there may be one more."""
    if each.log_prob is None:
        return None
    found: dict[str, float] = {}
    for piece, value in (*each.top, (each.piece, each.log_prob)):
        found.setdefault(piece.text, value)
    return found


def _one(piece: Piece, value: float | None) -> dict[str, Any]:
    raw = None if piece.raw is None else list(piece.raw)
    return {"token": piece.text, "logprob": value, "bytes": raw}


def _told(value: float) -> float:
    """What is no number, of a model that broke, has no chance either."""
    return value if value > LEAST else LEAST
