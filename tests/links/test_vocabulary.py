"""Which tokens two tokenizers share."""

from __future__ import annotations

from typing import Any

import pytest
from two_models import tokenizer_of

from gcache.links.vocabulary import common_tokens, same_vocabulary


def byte_level(words: list[str], special: tuple[str, ...] = ()) -> Any:
    """A tokenizer whose tokens stand as byte-level letters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token=words[0]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=list(special))


def sentence_pieces(words: list[str], special: tuple[str, ...] = ()) -> Any:
    """A tokenizer whose tokens begin with U+2581 for a space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token=words[0]))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=list(special))


def pairs(one: Any, other: Any) -> list[tuple[int, int]]:
    mine, theirs = common_tokens(one, other)
    return list(zip(mine.tolist(), theirs.tolist(), strict=True))


def test_the_same_bytes_are_the_same_token() -> None:
    # "Ġ" is a space and "Ċ" a line's end at byte level; "Ã©" is é, byte by byte
    one = byte_level(["<unk>", "Ġthe", "the", "Ċ", "Ã©", "only"])
    other = sentence_pieces(["<unk>", "é", "<0x0A>", "\u2581the", "the", "alone"])
    assert pairs(one, other) == [(0, 0), (1, 3), (2, 4), (3, 2), (4, 1)]


def test_a_special_token_is_common_with_a_special_one_alone() -> None:
    one = byte_level(["<unk>", "a"], ("<|im_start|>",))
    assert pairs(one, byte_level(["<unk>", "<|im_start|>", "a"])) == [(0, 0), (1, 2)]
    assert pairs(one, byte_level(["a", "b"], ("<|im_start|>",))) == [(1, 0), (2, 2)]


def test_bytes_that_two_tokens_stand_for_say_nothing() -> None:
    other = sentence_pieces(["<unk>", "\n", "<0x0A>", "a"])
    assert pairs(byte_level(["<unk>", "Ċ", "a"]), other) == [(0, 0), (2, 3)]


def test_the_same_vocabulary_has_the_same_numbers() -> None:
    assert same_vocabulary(tokenizer_of(["<unk>", "<|im_start|>", "<|im_end|>", "a"]), tokenizer_of(
        ["<unk>", "<|im_start|>", "<|im_end|>", "a"]
    ))  # fmt: skip
    assert not same_vocabulary(tokenizer_of(["<unk>", "a", "b"]), tokenizer_of(["<unk>", "b", "a"]))


@pytest.mark.slow
def test_of_the_embedded_tokenizer_every_token_decodes_to_its_bytes(embedded_llm: Any) -> None:
    tokenizer = embedded_llm.tokenizer
    mine, theirs = common_tokens(tokenizer, tokenizer)
    assert len(mine) == len(tokenizer)
    assert mine.tolist() == theirs.tolist()
