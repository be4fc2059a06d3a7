"""How near a short answer comes to the right ones: exact match, and F1 over words.

Counted as the official scripts of SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250) and HotpotQA (Yang et al. 2018,
arXiv:1809.09600) count: case, ASCII punctuation and the articles a, an, the do not count, and of several right answers
the nearest does. A text that merely shares a word with "yes" or "no" is no better than wrong (`closed`).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
#: Right answers that are a class and no span of a text.
CLOSED = ("yes", "no", "noanswer")


#: What stands before an answer.
_BEGINNING = re.compile(r"(?i)\banswer(?:, in a few words,)?(?: is)?:")


@dataclass(frozen=True)
class Overlap:
    """What an answer has in common with the nearest right one; `f1` is 1 where it is `exact`."""

    exact: bool
    f1: float


def short_answer(text: str) -> str:
    """The first line that is not blank, behind the last "answer:" or "answer is:" where there is one."""
    begins = [found.end() for found in _BEGINNING.finditer(text)]
    lines = text[begins[-1] if begins else 0 :].splitlines()
    return next((line.strip() for line in lines if line.strip()), "")


def normalized(answer: str) -> str:
    """An answer as it is compared.

    >>> normalized("The U.S. Senate,  an assembly")
    'us senate assembly'
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


def overlap(answer: str, right: Sequence[str], closed: bool = False) -> Overlap:
    """Exact match and F1 of an answer; each with the right answer for which it is highest.

    Args:
        right: one or more right answers.
        closed: answers such as "yes" have no F1 with any other answer, as HotpotQA's script has it.

    >>> overlap("in the city of Paris", ["Paris", "Paris, France"])
    Overlap(exact=False, f1=0.4)
    """
    ours = normalized(answer)
    theirs = [normalized(each) for each in right]
    return Overlap(ours in theirs, max(_f1(ours, each, closed) for each in theirs))


def _f1(ours: str, theirs: str, closed: bool) -> float:
    if ours == theirs:
        return 1.0
    if closed and (ours in CLOSED or theirs in CLOSED):
        return 0.0
    one, two = ours.split(), theirs.split()
    common = sum((Counter(one) & Counter(two)).values())
    if not common:
        return 0.0
    precision, recall = common / len(one), common / len(two)
    return 2 * precision * recall / (precision + recall)
