"""One choice on its way to whoever reads it: its text in pieces that are never taken back, and its tokens with them."""

from __future__ import annotations

from collections.abc import Sequence

from gcache.agents.thinking import ThinkSplitter, Thought
from gcache.llm.local import LocalLLM
from gcache.llm.requests import TokenScore
from gcache.serve.deltas import Delta, SamplingParams, Tell
from gcache.serve.model import ServedModel
from gcache.serve.scores import Scored, Scorer
from gcache.serve.text_stream import TextStream


class ChoiceStream:
    """A choice that is being written.

    Args:
        llm: decodes its tokens; None where an API writes.
        number: of the choice.
        echoed: what stands before the text that is written, with the tokens it was read as.
        parting: tells thinking from answers; None where a text is told as it is.
    """

    def __init__(
        self,
        served: ServedModel,
        draw: SamplingParams,
        tell: Tell,
        number: int = 0,
        echoed: str = "",
        prompt: Sequence[int] = (),
        parting: ThinkSplitter | None = None,
    ) -> None:
        self.llm: LocalLLM | None = served.llm
        self._tell, self._number, self._echoed = tell, number, echoed
        self._growing = TextStream((*draw.stop, *served.stop_words), served.tidied)
        self._parting, self._bytes = parting, served.byte_tokens
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
        end = len(tokens)
        while end and tokens[end - 1] in self._bytes:  # one more may make another character of all of them
            end -= 1
        if self.llm is not None and (more := self._growing.grow(self.llm.text(tokens[:end]))):
            self._pass_on(Thought("", more) if self._parting is None else self._parting.grow(more))

    def finish(
        self, text: str, scores: Sequence[TokenScore], tell: bool, reasoning: str = ""
    ) -> tuple[Scored, ...] | None:
        """The whole text is there.

        Args:
            reasoning: what stands in think tags in front of it.
            tell: whether what was not told yet is told now.

        Returns all its tokens, where log-probabilities are told.
        """
        self._scores = scores
        if tell:
            if self._parting is None:
                self._pass_on(Thought("", self._growing.finish(text)))
            else:
                self._pass_on(self._parting.finish(reasoning, text))
        else:
            self._fresh()
        return None if self._scorer is None else tuple(self._scored)

    def _pass_on(self, more: Thought) -> None:
        text, self._echoed = self._echoed + more.answer, ""
        fresh = self._fresh()
        if text or fresh or more.thinking:
            self._tell(Delta(text, choice=self._number, scored=fresh, reasoning=more.thinking))

    def _fresh(self) -> tuple[Scored, ...]:
        fresh = () if self._scorer is None else self._scorer.more(self._scores)
        self._scored += fresh
        return fresh
