"""What a text states as its answer, by the kind of answer that is asked for: the one reading that votes go by.

    number    what `extract_number` reads
    choice    the letter that `extract_choice` reads, of the choices that the question lists
    words     what stands behind the last words that answers begin with, or the whole text
    short     the first line of that, as short answers are graded; equal but for case, punctuation and articles
    fact      a number where the question asks for the number only, else as short answers are read

A text that a length limit cut off is read as graders read it: a number that it breaks off in is none.
"""

from __future__ import annotations

from gcache.tasks.answer_overlap import normalized, short_answer
from gcache.tasks.choices import LETTERS, extract_choice, listed_choices
from gcache.tasks.grading import as_cut, extract_number
from gcache.tasks.number_value import numbers_equal

#: Kinds of answers.
KINDS = ("number", "choice", "words", "short", "fact")
#: How a question ends that asks for a fact which is a number.
_A_NUMBER = "with the number only."


def stated(kind: str, text: str, question: str = "", cut: bool = False, beginning: str = "") -> str | None:
    """The answer that a text states; None where it states none.

    Args:
        kind: one of `KINDS`.
        question: what was asked, which may ask for a unit or list choices.
        cut: whether a length limit cut the text off.
        beginning: of `words` and `short`, what an answer begins with, such as "Label:".
    """
    if kind == "number" or (kind == "fact" and question.rstrip().endswith(_A_NUMBER)):
        return extract_number(as_cut(text) if cut else text, asked=question)
    if kind == "choice":
        listed = listed_choices(question)
        return extract_choice(text, list(listed) or LETTERS, list(listed.values()))
    words = text.rpartition(beginning)[2] if beginning else text
    if kind == "words":
        return words.strip() or None
    answer = short_answer(words)
    return answer if normalized(answer) else None


def is_same(kind: str, one: str, other: str) -> bool:
    """Whether two stated answers are one answer."""
    if one == other or (kind in ("number", "fact") and numbers_equal(one, other)):
        return True
    return kind in ("short", "fact") and normalized(one) == normalized(other)
