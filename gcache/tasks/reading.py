"""Questions about documents, dealt out: every document is one agent's, and the decision maker has only the question.

The topology policy sees a document's title and its first sentence, as it sees a role, and may see which of the others
it names. Answers are short and graded by their overlap with the right ones (`gcache.tasks.answer_overlap`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gcache.errors import DataError, unknown
from gcache.tasks.answer_overlap import normalized, overlap, short_answer
from gcache.tasks.citations import with_citations
from gcache.tasks.data_set import DataSet
from gcache.tasks.example import Example, Grade, Note
from gcache.tasks.sentences import sentences

#: What an answer is worth: its F1, or 1 where it matches exactly and else 0.
UTILITIES = ("f1", "em")
#: Kinds of documents, for tables of learned edges; "document" where the data does not say which are needed.
SUPPORTING, OTHER, UNKNOWN = "supporting", "other", "document"
#: In `Example.meta`: the numbers of needed documents.
NEEDED = "supporting"


@dataclass(frozen=True)
class Document:
    """A titled text.

    Attributes:
        supports: whether the answer needs it; None where the data does not say.
        first: its first sentence; None to look for where it ends.
    """

    title: str
    text: str
    supports: bool | None = None
    first: str | None = None

    def note(self) -> Note:
        """As what one agent alone knows."""
        title, text = " ".join(self.title.split()), " ".join(self.text.split())
        kind = UNKNOWN if self.supports is None else SUPPORTING if self.supports else OTHER
        return Note(title, f"{title}: {self.first or sentences(text)[0]}", f"{title}: {text}", kind)


class ReadingTask(DataSet):
    """A data set of questions about documents.

    Args:
        data, whole_file: see `DataSet`.
        utility: what an answer is worth, one of `UTILITIES`. It is right where it matches exactly, in any case.

    Attributes:
        closed: see `overlap`.

    Raises:
        ConfigError: an option that is not allowed.
    """

    domain = "reading"
    max_new_tokens = 32
    closed: ClassVar[bool] = False

    def __init__(self, data: str | Path | None = None, whole_file: bool = False, utility: str = "f1") -> None:
        if utility not in UTILITIES:
            raise unknown("utility", utility, UTILITIES)
        self.utility = utility
        super().__init__(data, whole_file)

    def grade(self, text: str, example: Example) -> Grade:
        """Right if what the text states is one of the right answers, but for case, punctuation and articles."""
        answer = short_answer(text)
        if not normalized(answer):
            return Grade("unparsed", f1=0.0)
        found = overlap(answer, right_answers(example), self.closed)
        worth = found.f1 if self.utility == "f1" else None
        return Grade("right" if found.exact else "wrong", answer, f1=found.f1, worth=worth)


def right_answers(example: Example) -> tuple[str, ...]:
    """All answers that are right."""
    return (example.answer, *json.loads(example.meta.get("aliases", "[]")))


def asked_of(
    name: str,
    question: str,
    answers: Sequence[str],
    documents: Sequence[Document],
    meta: Mapping[str, str] | None = None,
) -> Example:
    """A question about documents.

    Args:
        answers: the right ones, at least one; the first is shown where one is.
        meta: besides which documents are needed, by number, and the other right answers.

    Raises:
        DataError: a right answer that nothing would match.
    """
    answers = list(dict.fromkeys(" ".join(answer.split()) for answer in answers))
    lost = next((answer for answer in answers if not normalized(answer) or short_answer(answer) != answer), None)
    if lost is not None:
        raise DataError(f"the answer {lost!r:.60} cannot be read in a text: it has 'answer:', or no word that counts")
    needed = [str(number) for number, document in enumerate(documents) if document.supports]
    found = {**(meta or {})}
    if needed:
        found[NEEDED] = " ".join(needed)
    if len(answers) > 1:
        found["aliases"] = json.dumps(answers[1:], ensure_ascii=False)
    notes = with_citations([document.note() for document in documents])
    return Example(name, question, answers[0], notes, found)
