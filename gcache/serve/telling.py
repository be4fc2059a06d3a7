"""One choice on its way to whoever reads it: its text in pieces that are never taken back, and its tokens with them."""

from __future__ import annotations

from collections.abc import Sequence

from gcache.llm.local import LocalLLM
from gcache.llm.requests import TokenScore
from gcache.serve.growing import Growing
from gcache.serve.scores import Scored, Scorer
from gcache.serve.served import Served
from gcache.serve.told import Draw, Tell, Told


class Telling:
    """A choice that is being written.

    Args:
        llm: decodes its tokens; None where an API writes.
        number: of the choice.
        echoed: what stands before the text that is written, with the tokens it was read as.
    """

    def __init__(
        self, served: Served, draw: Draw, tell: Tell, number: int = 0, echoed: str = "", prompt: Sequence[int] = ()
    ) -> None:
        self.llm: LocalLLM | None = served.llm
        self._tell, self._number, self._echoed = tell, number, echoed
        self._growing = Growing(draw.stop, served.tidied)
        self._scores: Sequence[TokenScore] = ()
        self._scored: list[Scored] = []
        self._scorer: Scorer | None = None
        if draw.top_log_probs is not None and served.llm is not None:
            self._scorer = Scorer(served.llm, served.pieces, echoed, prompt)

    def scores(self, scores: Sequence[TokenScore]) -> None:
        """All scores so far; they are told with the text that comes next."""
        self._scores = scores

    def written(self, tokens: tuple[int, ...]) -> None:
        """All tokens that are written so far."""
        if self.llm is not None and (more := self._growing.grow(self.llm.text(tokens))):
            self._pass_on(more)

    def finish(self, text: str, scores: Sequence[TokenScore], tell: bool) -> tuple[Scored, ...] | None:
        """The whole text is there.

        Args:
            tell: whether what was not told yet is told now.

        Returns all its tokens, where log-probabilities are told.
        """
        self._scores = scores
        if tell:
            self._pass_on(self._growing.finish(text))
        else:
            self._fresh()
        return None if self._scorer is None else tuple(self._scored)

    def _pass_on(self, more: str) -> None:
        text, self._echoed = self._echoed + more, ""
        fresh = self._fresh()
        if text or fresh:
            self._tell(Told(text, choice=self._number, scored=fresh))

    def _fresh(self) -> tuple[Scored, ...]:
        fresh = () if self._scorer is None else self._scorer.more(self._scores)
        self._scored += fresh
        return fresh
