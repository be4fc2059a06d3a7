"""Tables in Markdown."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gcache.evaluation.plain import one_line

logger = logging.getLogger(__name__)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in row) + " |"

    return "\n".join([line(head), "|---" * len(head) + "|", *map(line, rows)]) + "\n"


#: Share of texts cut off by a length limit above which a table says little.
MOST_CUT = 0.03


def warn_of_cut(name: str, cut: int, texts: int) -> None:
    """Say that too many texts were cut off, and how to mend it."""
    if cut > MOST_CUT * texts:
        logger.warning(
            "%s: %d of %d texts (%.1f %%) were cut off by the length limit, so its accuracy says little; raise "
            "--max_new_tokens, or --reason_tokens where agents' solutions are cut; a checkpoint has the limits that it "
            "was trained with", name, cut, texts, 100 * cut / texts,
        )  # fmt: skip


def difference(mean: float, low: float, high: float) -> list[str]:
    """A difference of accuracies and its interval, as two cells."""
    return [f"{mean:+.3f}", f"{low:+.3f} to {high:+.3f}"]
