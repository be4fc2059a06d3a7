"""What stands around a number in a field that is meant as nothing but that number."""

from __future__ import annotations

import re

#: Signs of mathematics (also with their backslashes escaped twice), bold type, brackets, the dot at its end, and the
#: mark of GSM8K in front.
_AROUND = re.compile(
    r"\$+(.+?)\$+|\\{1,2}\((.+?)\\{1,2}\)|\\{1,2}\[(.+?)\\{1,2}\]"
    r"|\\{1,2}(?:boxed|fbox|text|textbf|mathbf|mathrm)\s*\{(.+)\}|\*+(.+?)\*+|####(.+)|\{(.+)\}|\((.+)\)|(.+[^0-9])\.",
    re.DOTALL,
)
_LONGEST = 1000


def bare(text: str) -> str:
    r"""The text without what stands around it: `$70$`, `\boxed{70}`, "**70**" and "#### 70" as "70"."""
    text = text.strip()
    while len(text) <= _LONGEST and (around := _AROUND.fullmatch(text)) is not None:
        text = around[around.lastindex or 0].strip()
    return text
