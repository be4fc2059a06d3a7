"""Text that stands in no chat, as tokens: with the special tokens that its tokenizer puts round a text, once.

A chat's template brings its own special tokens, so the pieces of a chat are read without; a bare text has none.
"""

from __future__ import annotations

from typing import Any

#: A text that has no special token in any vocabulary.
PLAIN = "a"


def raw_tokens(tokenizer: Any, text: str, specials: bool = True) -> tuple[int, ...]:
    """The tokens of a text, as transformers reads it; what the text has itself is not added a second time.

    Args:
        specials: False for the text's own tokens alone.
    """
    own = _ids(tokenizer, text, False)
    if not specials:
        return own
    whole = _ids(tokenizer, text, True)
    before, after = _around(tokenizer)
    if whole != (*before, *own, *after):
        return whole  # a tokenizer that does more than to put tokens round a text
    if own[: len(before)] == before:
        before = ()
    if after and own[-len(after) :] == after:
        after = ()
    return (*before, *own, *after)


def _around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens before and behind a text."""
    own, whole = _ids(tokenizer, PLAIN, False), _ids(tokenizer, PLAIN, True)
    for start in range(len(whole) - len(own) + 1):
        if whole[start : start + len(own)] == own:
            return whole[:start], whole[start + len(own) :]
    return (), ()


def _ids(tokenizer: Any, text: str, specials: bool) -> tuple[int, ...]:
    return tuple(int(token) for token in tokenizer(text, add_special_tokens=specials)["input_ids"])
