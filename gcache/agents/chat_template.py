"""A tokenizer's chat template: what it makes of turns, with nothing in it from outside, and what ends a turn.

A template is a program. It may ask for today's date (`strftime_now`), read variables that the caller sets
(`enable_thinking`), draw at random, and raise. Here the date is fixed, variables are named, and whatever goes wrong is
one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from gcache.errors import ConfigError, ModelError

#: Stand for the words of a question, an answer and the next question.
MARKS = ("\u27e8first\u27e9", "\u27e8second\u27e9", "\u27e8third\u27e9")
#: Opening and closing tags of thinking that models of the field are trained with.
THINK_TAGS = (
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"), ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|START_THINKING|>", "<|END_THINKING|>"), ("<|inner_prefix|>", "<|inner_suffix|>"),
)  # fmt: skip
#: How often a template is rendered to see whether it always says the same.
RENDERINGS = 4
#: How a template draws at random: by a filter, or by a function that Jinja always has.
_DRAWS = re.compile(r"\|\s*random\b|\blipsum\s*\(")
#: Directives of `strftime` that templates may use, the longer ones first.
_LETTERS = "aAbBcCdDeFfgGhHIjklmMnpPrRsStTuUVwWxXyYzZ"
_DIRECTIVES = tuple(f"%{flag}{letter}" for flag in ("-", "_", "0", "^", "#", "") for letter in _LETTERS)
#: Put in front of a template that asks for the date: transformers' own `strftime_now` takes the present, and what
#: callers hand to a template is data, so a function of the same name is written in Jinja. The line break is the
#: block's, by transformers' settings; the template begins on a line of its own.
_FIXED_DATE = (
    "{% macro strftime_now(format) %}{% set told = namespace(text=format) %}{% for code, value in gcache_date %}"
    "{% set told.text = told.text.replace(code, value) %}{% endfor %}{{ told.text }}{% endmacro %}\n"
)
#: What `apply_chat_template` and the templates' surroundings name themselves.
RESERVED = frozenset({
    "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "gcache_date",
    "max_length", "messages", "padding", "raise_exception", "return_assistant_tokens_mask", "return_dict",
    "return_tensors", "strftime_now", "tokenize", "tokenizer_kwargs", "tools", "truncation",
})  # fmt: skip

Turn = Mapping[str, str]


@dataclass(frozen=True)
class TemplateSettings:
    """What a chat template may read beside the turns.

    Attributes:
        kwargs: variables of the template, as JSON: '{"enable_thinking": false}'; "" for none.
        date: the date, or date and time, that it is told (ISO 8601); "" for the present.

    Raises:
        ConfigError: not JSON, not an object, a name that is not the template's, or not a date.
    """

    kwargs: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        self.variables()
        if self.date:
            self.now()

    def variables(self) -> dict[str, Any]:
        """Name -> value."""
        if not self.kwargs.strip():
            return {}
        try:
            found = json.loads(self.kwargs)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f'chat_template_kwargs must be a JSON object such as \'{{"enable_thinking": false}}\', got '
                f"{self.kwargs[:60]!r} ({error})"
            ) from error
        check_variables(found)
        return dict(found)

    def changed(self, variables: str) -> TemplateSettings:
        """With some variables set otherwise."""
        more = TemplateSettings(variables).variables()
        return replace(self, kwargs=json.dumps({**self.variables(), **more}, sort_keys=True))

    def now(self) -> datetime:
        """The fixed moment; the present where none is."""
        if not self.date:
            return datetime.now()
        try:
            return datetime.fromisoformat(self.date)
        except ValueError as error:
            raise ConfigError(f"prompt_date must be a date such as 2026-01-31, got {self.date!r}") from error


def check_variables(found: Any) -> None:
    """Refuse what cannot be variables of a template.

    Raises:
        ConfigError: as for `TemplateSettings`.
    """
    if not isinstance(found, Mapping):
        raise ConfigError(
            f'chat_template_kwargs must be a JSON object such as {{"enable_thinking": false}}, got '
            f"{json.dumps(found, default=str)[:60]}"
        )
    wrong = sorted(name for name in found if not isinstance(name, str) or name in RESERVED or not name.isidentifier())
    if wrong:
        raise ConfigError(
            f"chat_template_kwargs names {wrong[0]!r}, which is no variable of a template's own; leave it out"
        )


def as_text(variables: Mapping[str, Any] | None) -> str:
    """Variables as JSON, the same ones always in the same words; "" for none."""
    return json.dumps(dict(variables), sort_keys=True) if variables else ""


class ChatTemplate:
    """A tokenizer's template under fixed settings.

    Args:
        tokenizer: a transformers tokenizer.

    Attributes:
        reads_date: whether it may ask for the date; a branch that asks need not be one that is tried here.

    Raises:
        ModelError: there is none, it fails, or it does not always say the same.
    """

    def __init__(self, tokenizer: Any, settings: TemplateSettings | None = None) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError("the tokenizer has no chat template; use an instruction-tuned model")
        self.tokenizer = tokenizer
        self.settings = settings or TemplateSettings()
        self._variables = self.settings.variables()
        self._source = self._its_source()
        self._date = _said(self.settings.now())
        self.reads_date = "strftime_now" in self._source
        talk = [{"role": "user", "content": MARKS[0]}]
        first = self.text(talk)
        if _DRAWS.search(self._source) or any(self.text(talk) != first for _ in range(RENDERINGS)):
            raise ModelError(
                "the tokenizer's chat template writes something else each time, so no run could be repeated; use a "
                "model with another template"
            )

    def text(self, talk: Sequence[Turn], answer: bool = True) -> str:
        """What the template makes of some turns.

        Args:
            answer: whether the assistant's turn is opened behind them.

        Raises:
            ModelError: the template fails.
        """
        return self._text(talk, answer, self._date)

    def _text(self, talk: Sequence[Turn], answer: bool, date: list[list[str]]) -> str:
        fixed = {"chat_template": _FIXED_DATE + self._source, "gcache_date": date} if self.reads_date else {}
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(turn) for turn in talk], tokenize=False, add_generation_prompt=answer, **fixed,
                **self._variables,
            )  # fmt: skip
        except Exception as error:  # Jinja's errors, and those of what the template calls, share no class
            why = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise ModelError(
                f"the tokenizer's chat template fails on turns of {', '.join(t['role'] for t in talk)} "
                f"({type(error).__name__}: {why}); use a model whose template takes them, or mend the template"
            ) from error
        if not isinstance(text, str):
            raise ModelError(f"the tokenizer's chat template gives {type(text).__name__} where text is expected")
        half = next((letter for letter in text if "\ud800" <= letter <= "\udfff"), None)
        if half is not None:  # no tokenizer reads it
            raise ModelError(
                f"the tokenizer's chat template writes half a character ({half!a}), which is no text; write the whole "
                "character in the template, or in chat_template_kwargs"
            )
        return text

    def _its_source(self) -> str:
        """The template of turns, where a tokenizer has several."""
        find = getattr(self.tokenizer, "get_chat_template", None)
        try:
            return str(find() if find else self.tokenizer.chat_template)
        except ValueError as error:
            raise ModelError(f"the tokenizer has no chat template for plain turns ({str(error)[:120]})") from error

    def unread(self) -> list[str]:
        """Variables that were set and that the template's text never names."""
        return sorted(name for name in self._variables if name not in self._source)


def _said(moment: datetime) -> list[list[str]]:
    """What each directive of `strftime` comes to."""
    kept = "\x00"  # a percent sign of its own
    codes = [["%%", kept], *([code, moment.strftime(code)] for code in _DIRECTIVES)]
    return [*codes, [kept, "%"]]


@dataclass(frozen=True)
class EndOfTurn:
    """What closes the assistant's turn.

    Attributes:
        tokens: ids of the token that does; none where it is no token of its own.
        words: the text that does, then.
    """

    tokens: frozenset[int] = frozenset()
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, tokenizer: Any, settings: TemplateSettings | None = None) -> EndOfTurn:
        """What a tokenizer's template puts behind an assistant's words; nothing without a template.

        Folders often name another token as the end of texts: that of documents, not of turns.

        Args:
            settings: what the template reads beside the turns.

        Raises:
            ModelError: the template fails.
        """
        if not getattr(tokenizer, "chat_template", None):
            return cls()
        template = ChatTemplate(tokenizer, settings)
        user, assistant, again = (
            {"role": role, "content": mark} for role, mark in zip(("user", "assistant", "user"), MARKS, strict=True)
        )
        # behind the last answer of a talk stands what a model is to write; between turns it may be something else
        for talk, answer in (([user, assistant], False), ([user, assistant, again], True)):
            try:
                text = template.text(talk, answer)
            except ModelError:
                if answer:  # a template may refuse a talk that ends with the assistant's turn
                    raise
                continue
            tail = text.rpartition(MARKS[1])[2].partition(MARKS[2])[0] if MARKS[1] in text else ""
            token = _first_of_its_own(tokenizer, tail)
            if token is not None:
                return cls(frozenset({token}))
            if not answer and tail.strip() and tail.startswith("\n") and tail.endswith("\n"):  # a line of its own
                return cls(words=(f"\n{tail.strip()}\n",))
            if len(tail.strip()) > 2 and not tail.strip().isalnum():  # shorter ones stand in any sentence
                return cls(words=(_word(tail),))
        return cls()


def _first_of_its_own(tokenizer: Any, tail: str) -> int | None:
    """The first token of a text that is no piece of words: special, added, or all that there is."""
    if not tail.strip():
        return None
    ids = [int(token) for token in tokenizer(tail, add_special_tokens=False)["input_ids"]]
    own = {int(token) for token in getattr(tokenizer, "all_special_ids", ())}
    added = getattr(tokenizer, "added_tokens_decoder", {})
    own |= {int(number) for number, token in added.items() if str(token).strip()}  # some add line breaks
    own.discard(-1 if getattr(tokenizer, "unk_token_id", None) is None else int(tokenizer.unk_token_id))
    return next((token for token in ids if token in own), None)


def _word(tail: str) -> str:
    """What to look for: the line break in front tells the next turn's name from the same word in a sentence."""
    return ("\n" if tail.lstrip(" ").startswith("\n") else "") + tail.strip()


def special_think_tokens(tokenizer: Any) -> dict[int, str]:
    """Tags of thinking that are special tokens, which decoding leaves out: id -> tag."""
    numbers, tokens = (getattr(tokenizer, name, ()) for name in ("all_special_ids", "all_special_tokens"))
    tags = {tag for pair in THINK_TAGS for tag in pair}
    return {int(number): str(token) for number, token in zip(numbers, tokens, strict=True) if str(token) in tags}
