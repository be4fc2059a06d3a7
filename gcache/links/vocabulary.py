"""Which tokens two tokenizers share: the same token under the same number, or the same bytes under any."""

from __future__ import annotations

import functools
import json
from typing import Any

import torch
from torch import Tensor

from gcache.llm.token_bytes import byte_letters, named_byte, with_spaces


def same_vocabulary(one: Any, other: Any) -> bool:
    """Whether every token has the same number in both tokenizers."""
    return one is other or bool(one.get_vocab() == other.get_vocab())


@functools.lru_cache(maxsize=16)
def common_tokens(sender: Any, receiver: Any) -> tuple[Tensor, Tensor]:
    """Numbers of the tokens that stand for the same bytes in both, (n,) each, in the sender's order.

    Bytes that several tokens of one tokenizer stand for are left out: they do not say which is meant.
    A special token is common where the other's special token has the same name.
    """
    theirs = _unique(receiver)
    pairs = [(number, theirs[content]) for content, number in _unique(sender).items() if content in theirs]
    mine, other = ([pair[end] for pair in pairs] for end in (0, 1))
    return torch.tensor(mine, dtype=torch.long), torch.tensor(other, dtype=torch.long)


def _unique(tokenizer: Any) -> dict[tuple[bool, bytes], int]:
    """(special?, bytes) -> number, of those that only one token stands for."""
    found: dict[tuple[bool, bytes], int] = {}
    twice: set[tuple[bool, bytes]] = set()
    decode = _decoder(tokenizer)
    added = tokenizer.added_tokens_decoder
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        special = number in added and bool(added[number].special)
        content = token.encode("utf-8", "replace") if number in added else decode(token)
        if not content:
            continue
        key = (special, content)
        if key in found:
            twice.add(key)
        found[key] = number
    return {key: number for key, number in found.items() if key not in twice}


def _decoder(tokenizer: Any) -> Any:
    """From a token as it stands in the vocabulary to its bytes."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    kinds = json.dumps([described.get("pre_tokenizer"), described.get("decoder")])
    if '"ByteLevel"' in kinds:
        letters = byte_letters()
        return lambda token: bytes(letters[c] for c in token) if all(c in letters for c in token) else token.encode()
    return _of_words


def _of_words(token: str) -> bytes:
    """Of SentencePiece, or of whole words: "\u2581the" is " the", "<0x0A>" a byte."""
    return named_byte(token) or with_spaces(token)
