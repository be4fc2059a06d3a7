"""How a chat template is laid around joined caches.

The question comes first and is the same for all agents, so it is read once:

    | turn opens, question |  agent 0's words, its thoughts  |  the decision maker's words |
    |      shared prefix   |  agent 1's words, its thoughts  |                             |

An agent's words go on in the question's user turn. If it thinks in latent steps, the turn is
closed and the assistant's opened, so that it thinks where it would write. The decision maker
either opens a user turn of its own (`decision_turn="new"`) or goes on in the question's
(`"same"`). The pieces are cut out of the template with placeholders and tokenised one by one, so
that a prefix is the same tokens whatever follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gcache.errors import ConfigError, ModelError, unknown

Tokens = tuple[int, ...]

DECISION_TURNS = ("new", "same")
_MARKS = ("\u27e8first\u27e9", "\u27e8second\u27e9", "\u27e8third\u27e9")


@dataclass(frozen=True)
class ChatLayout:
    """The pieces of one model's chat template.

    Attributes:
        tokenizer: a transformers tokenizer.
        opening: everything before the user's words.
        closing: from the end of the user's words to the start of the assistant's.
        next_turn: from the end of the assistant's words to the start of the user's next ones.
    """

    tokenizer: Any
    opening: str
    closing: str
    next_turn: str

    @classmethod
    def of(cls, tokenizer: Any) -> ChatLayout:
        """Cut a tokenizer's template into its pieces.

        Raises:
            ModelError: no template, or one that does not keep the words it is given.
        """
        first, second, third = _MARKS
        talk = [
            {"role": "user", "content": first},
            {"role": "assistant", "content": second},
            {"role": "user", "content": third},
        ]
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError("the tokenizer has no chat template; use an instruction-tuned model")
        one = tokenizer.apply_chat_template(talk[:1], tokenize=False, add_generation_prompt=True)
        all_ = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        if one.count(first) != 1 or any(all_.count(mark) != 1 for mark in _MARKS):
            raise ModelError("the tokenizer's chat template changes or drops the words of its turns")
        opening, closing = one.split(first)
        between = all_.split(second)[1].split(third)[0]
        return cls(tokenizer, opening, closing, between)

    def question(self, question: str) -> Tokens:
        """The shared prefix."""
        return self._encode(self.opening + question)

    def agent(self, words: str, thinks: bool) -> Tokens:
        """An agent's own words behind the shared prefix; `thinks`: up to where it would write."""
        return self._encode("\n\n" + words + (self.closing if thinks else ""))

    def decision(self, words: str, answer_prefix: str = "", turn: str = "new") -> Tokens:
        """The decision maker's words behind everything it was handed.

        Raises:
            ConfigError: unknown turn.
        """
        if turn not in DECISION_TURNS:
            raise unknown("decision turn", turn, DECISION_TURNS)
        start = self.next_turn if turn == "new" else "\n\n"
        return self._encode(start + words + self.closing + answer_prefix)

    def _encode(self, text: str) -> Tokens:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise ConfigError(f"the tokenizer makes no token of {text!r}; pass words")
        return tuple(int(token) for token in ids)


def with_said(words: str, said: Sequence[tuple[str, str]], first: bool = True) -> str:
    """Words of a prompt with what others said, as (role, words), before them or after them."""
    if not said:
        return words
    lines = "\n".join(f"- {role}: {text.strip()}" for role, text in said)
    heard = f"Other agents said:\n{lines}"
    return f"{heard}\n\n{words}" if first else f"{words}\n\n{heard}"
