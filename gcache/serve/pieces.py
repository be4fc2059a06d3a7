"""Tokens as clients read them: the text of each, its bytes, and where it stands in a whole text.

A token may be half a character. It is written as OpenAI writes it, "bytes:\\xf0\\x9f", so that no two tokens look alike
because neither is text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gcache.llm.token_bytes import byte_letters, named_byte, with_spaces

logger = logging.getLogger(__name__)



@dataclass(frozen=True)
class Piece:
    """A token.

    Attributes:
        raw: its bytes; None where it stands for no text, as the end of a turn does.
    """

    text: str
    raw: bytes | None


class Pieces:
    """The pieces of one tokenizer.

    Args:
        tokenizer: a transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        decoders = _decoders(tokenizer)
        self._bytes = byte_letters() if "ByteLevel" in decoders else {}
        self._spaces = "Metaspace" in decoders or "Replace" in decoders
        self._added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = frozenset(getattr(tokenizer, "all_special_ids", ()))
        self._known: dict[int, Piece] = {}

    def of(self, token: int) -> Piece:
        """The piece of a token id."""
        if token not in self._known:
            self._known[token] = self._made(token)
        return self._known[token]

    def _made(self, token: int) -> Piece:
        word = self.tokenizer.convert_ids_to_tokens(token)
        if not isinstance(word, str) or not word:  # models have rows that no token has
            return Piece(f"token_id:{token}", None)
        if token in self._special or getattr(self._added.get(token), "special", False):
            return Piece(word, None)
        raw = word.encode("utf-8", "replace") if token in self._added else self._raw(token, word)
        try:
            return Piece(raw.decode(), raw)
        except UnicodeDecodeError:
            return Piece("bytes:" + "".join(f"\\x{byte:02x}" for byte in raw), raw)

    def _raw(self, token: int, word: str) -> bytes:
        if self._bytes and all(letter in self._bytes for letter in word):
            return bytes(self._bytes[letter] for letter in word)
        if (named := named_byte(word)) is not None:
            return named
        if self._spaces:
            return with_spaces(word)
        text: str = self.tokenizer.decode([token])
        return text.encode("utf-8", "replace")


def _decoders(tokenizer: Any) -> frozenset[str]:
    """Kinds of the steps by which a fast tokenizer makes text of tokens; none of a slow one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        logger.info("the tokenizer says nothing of its bytes; each token is decoded alone")
        return frozenset()
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    return frozenset(step["type"] for step in [decoder, *decoder.get("decoders", ())] if "type" in step)


def places(text: str, pieces: Sequence[Piece]) -> list[int]:
    """Where each piece begins in a text that was read as these, in characters.

    A piece that is not in the text (what a tokenizer puts before it) has no width. Spaces that the tokenizer added or
    took away are passed over.
    """
    data = text.encode("utf-8", "replace")
    at, counted, characters = 0, 0, 0
    found = []
    for piece in pieces:
        raw = piece.text.encode("utf-8", "replace") if piece.raw is None else piece.raw
        begin, end = _match(data, at, raw)
        # bytes that go on in a character begin none
        characters += sum(1 for byte in data[counted:begin] if byte & 0xC0 != 0x80)
        counted = begin
        inside = begin < len(data) and data[begin] & 0xC0 == 0x80
        found.append(characters - inside)
        at = end
    return found


def _match(data: bytes, at: int, raw: bytes) -> tuple[int, int]:
    """Where a piece begins and ends at a place or behind the spaces there; nowhere: no width."""
    if raw and data.startswith(raw, at):
        return at, at + len(raw)
    words, begin = raw.strip(), at
    while begin < len(data) and data[begin : begin + 1].isspace():
        begin += 1
    if words and data.startswith(words, begin):
        return begin, begin + len(words)
    return at, at
