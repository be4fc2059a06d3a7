"""A text that is told while it is written, and of which nothing is ever taken back."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gcache.agents.thinking import overlap
from gcache.llm.decode.decoding import first_stop

logger = logging.getLogger(__name__)

#: What an incomplete character is decoded to.
HALF = "\ufffd"


class TextStream:
    """Holds back what may still change: half a character, the beginning of a stop word.

    Args:
        stop: words before which the text will be cut.
        tidied: whether the tokenizer takes spaces away before punctuation, so that a text's last word is not sure.
    """

    def __init__(self, stop: Sequence[str] = (), tidied: bool = False) -> None:
        self.stop, self.tidied = tuple(stop), tidied
        self.sent = ""

    def grow(self, text: str) -> str:
        """What can be told of the text so far, beyond what was.

        >>> growing = TextStream(["STOP"])
        >>> [growing.grow("one ST"), growing.grow("one STEP")]
        ['one ', 'STEP']
        """
        sure = self._sure(text)
        if len(sure) <= len(self.sent) or not sure.startswith(self.sent):
            return ""
        more, self.sent = sure[len(self.sent) :], sure
        return more

    def finish(self, text: str) -> str:
        """The rest of the whole text."""
        if not text.startswith(self.sent):
            logger.error("a text of %d characters does not begin with the %d told of it", len(text), len(self.sent))
            return ""
        more, self.sent = text[len(self.sent) :], text
        return more

    def _sure(self, text: str) -> str:
        cut = first_stop(text, self.stop)
        if cut is not None:
            return text[:cut]
        text = text.rstrip(HALF)
        if self.tidied:
            text = text[: max(0, text.rfind(" "))]
        return text[: len(text) - max((overlap(text, word) for word in self.stop), default=0)]
