"""What is told of a text while it is written."""

from __future__ import annotations

import logging

import pytest

from gcache.serve.text_stream import TextStream


def told(growing: TextStream, texts: list[str], whole: str) -> list[str]:
    return [growing.grow(text) for text in texts] + [growing.finish(whole)]


def test_each_part_is_told_once_and_together_they_are_the_text() -> None:
    assert told(TextStream(), ["a", "a b", "a b", "a b c"], "a b c d") == ["a", " b", "", " c", " d"]


def test_half_a_character_waits_for_its_other_half() -> None:
    assert told(TextStream(), ["caf\ufffd", "caf\ufffd\ufffd", "café"], "café") == ["caf", "", "é", ""]


def test_a_character_that_stays_broken_is_told_at_the_end() -> None:
    assert told(TextStream(), ["a\ufffd"], "a\ufffd") == ["a", "\ufffd"]


def test_what_may_begin_a_stop_word_is_held_back() -> None:
    growing = TextStream(["###", "END"])
    assert told(growing, ["one #", "one ##", "one ## E", "one ## EN", "one ## ENT"], "one ## ENTER") == [
        "one ", "", "## ", "", "ENT", "ER",
    ]  # fmt: skip


def test_nothing_from_a_stop_word_on_is_told() -> None:
    assert told(TextStream(["STOP"]), ["go ST", "go STOP and more"], "go ") == ["go ", "", ""]


def test_a_last_word_that_a_tokenizer_may_still_tidy_is_held_back() -> None:
    # such a tokenizer decodes "do n't" as "don't" once it is whole
    texts = ["I do", "I do n", "I don't", "I don't know"]
    parts = told(TextStream(tidied=True), texts, "I don't know")
    assert parts == ["I", " do", "", "n't", " know"]


def test_a_text_that_went_another_way_is_not_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    growing = TextStream()
    growing.grow("one two")
    with caplog.at_level(logging.ERROR):
        assert growing.grow("one") == "" and growing.finish("three") == ""
    assert "does not begin" in caplog.text
