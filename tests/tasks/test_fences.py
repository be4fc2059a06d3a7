"""Whether a text that grows ends in a block of code, by what the whole text says."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gcache.tasks.fences import OpenBlock, fenced

PIECES = st.sampled_from(
    ["```", "``", "`", "~~~", "~", "python", "\n", "\n\n", " ", "\t", "> ", "- ", "x = 1", "words:", "<think>", "    "]
)


def is_open(text: str) -> bool:
    """By where a line that is added ends up."""
    return "MARK" not in fenced(f"{text}\nMARK")[1]


@settings(deadline=None)
@given(st.lists(PIECES, max_size=14))
@example(["```", "\n", "x = 1", "```"])
@example(["``", "`", "python", "\n", "x = 1", "\n", "`", "``"])
@example(["```", "\n", "~~~"])
def test_a_block_is_open_as_in_the_whole_text(pieces: list[str]) -> None:
    block, text = OpenBlock(), ""
    for piece in pieces:
        block.add(piece)
        text += piece
        assert block.is_open() == is_open(text), text
        assert block.is_open(" \n") == is_open(text + " ") == is_open(text + " \n"), text
