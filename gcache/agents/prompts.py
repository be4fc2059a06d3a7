"""How a chat template is laid around joined caches.

The question comes first and is the same for all agents, so it is read once:

    | turn opens, question |  agent 0's words, its thoughts  |  the decision maker's words |
    |      shared prefix   |  agent 1's words, its thoughts  |                             |

An agent's words go on in the question's user turn. If it thinks in latent steps, the turn is
closed and the assistant's opened, so that it thinks where it would write. The decision maker
either opens a user turn of its own (`decision_turn="new"`) or goes on in the question's
(`"same"`).

With `question_order="last"` nobody's words depend on the question, so what an agent reads is the same for every
question, and its cache can be kept (`gcache.llm.cache_store`):

    | turn opens |  agent 0's words  |  question, the decision maker's words |
    |            |  agent 1's words  |                                       |

The pieces are cut out of the template with placeholders. Their tokens are those of the whole text: the question and
what stands behind it are tokenised together, and cut where the tokens of the question end. Many tokenizers have one
token for a question mark and the empty line behind it; with these the empty line in front of an agent's words belongs
to the question, so that the question's tokens are the same whatever follows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from gcache.agents.chat_template import MARKS, ChatTemplate, EndOfTurn, TemplateSettings
from gcache.agents.thinking import opens_thinking
from gcache.errors import ConfigError, ModelError, unknown

logger = logging.getLogger(__name__)

Tokens = tuple[int, ...]

DECISION_TURNS = ("new", "same")
#: Where the question stands: before all words, or behind those of the agents.
QUESTION_ORDERS = ("first", "last")
#: Between the question and words behind it.
GAP = "\n\n"
#: How questions end, to see whether the gap is joined to any of it.
_ENDINGS = ("a", "7", ".", "?", "!", ":", ")", '"', "'", "]", "}", "$", "%", "*", "`", "\u3002", "\uff1f")

#: Texts whose tokens are kept by a layout.
TEXTS_KEPT = 1024
#: How words behind a question begin.
_BEGINNINGS = ("A", "a", "1", "-", "*", "(")


@dataclass(frozen=True)
class ChatLayout:
    """The pieces of one model's chat template.

    Attributes:
        tokenizer: a transformers tokenizer.
        opening: everything before the user's words.
        closing: from the end of the user's words to the start of the assistant's.
        next_turn: from the end of the assistant's words to the start of the user's next ones.
        gap: what stands behind every question: the empty line, where the tokenizer joins it to what ends a question.
        thinks: whether the assistant's turn opens inside a think tag.
    """

    tokenizer: Any
    opening: str
    closing: str
    next_turn: str
    gap: str = ""
    thinks: bool = False
    _told: set[str] = field(default_factory=set, repr=False, compare=False)
    _encode: Callable[[str], Tokens] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tokenizer = self.tokenizer

        def encode(text: str) -> Tokens:
            return tuple(int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"])

        # rollouts of a question ask for the same prompts again and again
        object.__setattr__(self, "_encode", lru_cache(maxsize=TEXTS_KEPT)(encode))

    @classmethod
    def of(cls, tokenizer: Any, settings: TemplateSettings | None = None) -> ChatLayout:
        """Cut a tokenizer's template into its pieces.

        Raises:
            ModelError: no template, one that fails, or one that does not keep the words it is given.
        """
        first, second, third = MARKS
        talk = [
            {"role": "user", "content": first},
            {"role": "assistant", "content": second},
            {"role": "user", "content": third},
        ]
        template = ChatTemplate(tokenizer, settings)
        one, all_ = template.text(talk[:1]), template.text(talk)
        if one.count(first) != 1 or any(all_.count(mark) != 1 for mark in MARKS):
            raise ModelError("the tokenizer's chat template changes or drops the words of its turns")
        for name in template.unread():
            logger.warning("chat_template_kwargs sets %r, which the chat template of this model never reads", name)
        opening, closing = one.split(first)
        between = all_.split(second)[1].split(third)[0]
        made = cls(tokenizer, opening, closing, between, "", opens_thinking(closing))
        return cls(tokenizer, opening, closing, between, made._own_gap(), made.thinks)

    def _own_gap(self) -> str:
        """`GAP` where the tokenizer joins it to the end of a question."""
        for ending in _ENDINGS:
            alone = self._encode(self.opening + ending)
            if self._encode(self.opening + ending + GAP + "A")[: len(alone)] != alone:
                return GAP
        return ""

    def question(self, question: str) -> Tokens:
        """The shared prefix: the tokens that the whole text begins with, whatever stands behind the question."""
        start = self.opening + question + self.gap
        behind = [self._gap() + words for words in _BEGINNINGS] + [self.next_turn, self.closing]
        wholes = [self._encode(start + text) for text in behind if text]
        alone = self._encode(start)
        return alone[: min(_alike(alone, whole) for whole in wholes)]

    def agent(self, words: str, thinks: bool, question: str) -> Tokens:
        """An agent's own words behind the shared prefix of a question; `thinks`: up to where it would write."""
        return self._behind(question, self._gap(), words + (self.closing if thinks else ""))

    def decision(self, words: str, answer_prefix: str = "", turn: str = "new", *, question: str) -> Tokens:
        """The decision maker's words behind everything it was handed.

        Raises:
            ConfigError: unknown turn.
        """
        if turn not in DECISION_TURNS:
            raise unknown("decision turn", turn, DECISION_TURNS)
        start = self.next_turn if turn == "new" else self._gap()
        return self._behind(question, start, words + self.closing + answer_prefix)

    def in_one(self, question: str, between: str, words: str, answer_prefix: str = "", turn: str = "new") -> Tokens:
        """A whole prompt without caches: the question, other words in its turn where there are any, and the decision
        maker's."""
        start = self.opening + question + (GAP + between if between else self.gap)
        behind = self.next_turn if turn == "new" else "" if self.gap and not between else GAP
        return self._encode(start + behind + words + self.closing + answer_prefix)

    def answer(self, text: str, answer_prefix: str = "") -> Tokens:
        """The tokens of a text that the assistant writes, behind words that were put into its mouth."""
        start = self.closing + answer_prefix
        alone, whole = self._encode(start), self._encode(start + text)
        return whole[_alike(alone, whole) :]

    def ended_answer(self, text: str, answer_prefix: str = "") -> Tokens:
        """The tokens of a text as of `answer`, and the one with which the turn ends behind it."""
        start = self.closing + answer_prefix
        alone, whole = self._encode(start), self._encode(start + text)
        ended = self._encode(start + text + self.next_turn)
        return ended[_alike(alone, whole) : len(whole) + 1]

    def _gap(self) -> str:
        return "" if self.gap else GAP

    def _behind(self, question: str, start: str, words: str) -> Tokens:
        """The tokens of words behind a question's, in the tokens of both."""
        if not self._encode(start + words):
            raise ConfigError(f"the tokenizer makes no token of {start + words!r}; pass words")
        prefix = self.question(question)
        for behind in (words, words.lstrip()):  # line breaks in front may be joined to the empty line
            whole = self._encode(self.opening + question + self.gap + start + behind)
            if whole[: len(prefix)] == prefix and len(whole) > len(prefix):
                return whole[len(prefix) :]
        if "seam" not in self._told:
            self._told.add("seam")
            logger.warning("the tokens of %r depend on what stands before it; it is tokenised alone", words[:40])
        return self._encode(start + words)


class QuestionLast(ChatLayout):
    """A layout whose question stands behind the agents' words, in front of the decision maker's."""

    def question(self, question: str) -> Tokens:
        """What stands before everybody's words: where the turn opens.

        Raises:
            ModelError: nothing does.
        """
        opening = super().question("")
        if not opening:
            raise ModelError(
                "the tokenizer's chat template has no token before the user's words, so nothing is read before the "
                "agents' words; use question='first'"
            )
        return opening

    def agent(self, words: str, thinks: bool, question: str) -> Tokens:
        """An agent's own words, whatever the question is."""
        return super().agent(words, thinks, "")

    def decision(self, words: str, answer_prefix: str = "", turn: str = "new", *, question: str) -> Tokens:
        """The question and the decision maker's words behind everything it was handed, which is not known here: so
        they are tokenised alone.

        Raises:
            ConfigError: unknown turn.
        """
        if turn not in DECISION_TURNS:
            raise unknown("decision turn", turn, DECISION_TURNS)
        start = self.next_turn if turn == "new" else GAP
        return self._encode(start + question + GAP + words + self.closing + answer_prefix)

    def in_one(self, question: str, between: str, words: str, answer_prefix: str = "", turn: str = "new") -> Tokens:
        """A whole prompt without caches: other words where there are any, the question, and the decision maker's."""
        before = between + (self.next_turn if turn == "new" else GAP) if between else ""
        return self._encode(self.opening + before + question + GAP + words + self.closing + answer_prefix)

    def _own_gap(self) -> str:
        return ""

    def _gap(self) -> str:
        return ""


#: Of each order.
LAYOUTS = dict(zip(QUESTION_ORDERS, (ChatLayout, QuestionLast), strict=True))


class Layouts:
    """A tokenizer's layouts, by what its template is told.

    Args:
        settings: of every question that says nothing else.
        question_order: one of `QUESTION_ORDERS`.

    Raises:
        ModelError: see `ChatLayout.of`.
    """

    #: Layouts that are remembered.
    MOST = 64

    def __init__(self, tokenizer: Any, settings: TemplateSettings, question_order: str = "first") -> None:
        self.settings, self._tokenizer, self._layout = settings, tokenizer, LAYOUTS[question_order]
        self._known: dict[str, ChatLayout] = {"": self._layout.of(tokenizer, settings)}

    @cached_property
    def _end(self) -> EndOfTurn:
        """What closes a turn where a question says nothing else."""
        return EndOfTurn.of(self._tokenizer, self.settings)

    def of(self, variables: str = "") -> ChatLayout:
        """That of a question.

        Args:
            variables: of the template, as JSON, that are otherwise for this question; "" for none.

        Raises:
            ConfigError: with them a turn is closed by something else, at which the model's texts would not end.
        """
        found = self._known.get(variables)
        if found is None:
            settings = self.settings.changed(variables)
            if EndOfTurn.of(self._tokenizer, settings) != self._end:
                raise ConfigError(
                    f"chat_template_kwargs {variables[:60]} change what closes a turn of the chat template; set them "
                    "for the whole run by --chat_template_kwargs"
                )
            if len(self._known) >= self.MOST:
                self._known = {"": self._known[""]}
            found = self._known[variables] = self._layout.of(self._tokenizer, settings)
        return found


def _alike(one: Tokens, other: Tokens) -> int:
    """How many tokens two begin with that are the same."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def with_said(words: str, said: Sequence[tuple[str, str]], first: bool = True) -> str:
    """Words of a prompt with what others said, as (role, words), before them or after them."""
    if not said:
        return words
    lines = "\n".join(f"- {role}: {text.strip()}" for role, text in said)
    heard = f"Other agents said:\n{lines}"
    return f"{heard}\n\n{words}" if first else f"{words}\n\n{heard}"
