"""Questions with choices, of which one letter is right.

    medqa                       Jin et al. 2020 (arXiv:2009.13081), four choices
    arc_easy, arc_challenge     Clark et al. 2018 (arXiv:1803.05457)
    mmlu                        Hendrycks et al. 2020 (arXiv:2009.03300)

GPQA is in `gcache.tasks.gpqa`. The choices stand below the question, one a line, and are shuffled only where a seed is
named, by it and the question's own id; the seed and the order are kept with every example. Which forms of a row are
read, and what they name the right choice by, is the same for all of these (docs/tasks.md).
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from gcache.errors import ConfigError, DataError
from gcache.runtime.numbers import is_whole
from gcache.runtime.streams import shuffler
from gcache.tasks.choice_rows import choices_of, stem_of, without_choices
from gcache.tasks.choice_set import Choices
from gcache.tasks.choice_sources import name_choices
from gcache.tasks.choices import LETTERS, grade_example
from gcache.tasks.data_fields import QUESTIONS, find, id_of, label_words, opened, same_name
from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example, Grade
from gcache.tasks.right_choice import ANSWERS, INDICES, LABELS, right_choice

#: What the field that names the right choice may be called.
_RIGHT_ONES = frozenset(map(same_name, (*LABELS, *INDICES, *ANSWERS)))
#: What MMLU-Redux says of a row that is right, and of one that is not.
_NO_ERRORS = frozenset(("", "ok", "none", "noerror"))
_ERRORS = (
    "bad_question_clarity", "bad_options_clarity", "no_correct_answer", "multiple_correct_answers",
    "wrong_groundtruth", "expert",
)  # fmt: skip


class MultipleChoice(DataSet, ABC):
    """Base of tasks whose answer is a letter.

    Args:
        data, whole_file: see `DataSet`.
        shuffle_seed: of the order of the choices; None for the order of the data.
    """

    #: Weighing four choices one by one takes small models more than 256 (docs/results.md).
    max_new_tokens = 512

    def __init__(
        self, data: str | Path | None = None, whole_file: bool = False, shuffle_seed: int | None = None
    ) -> None:
        if shuffle_seed is not None and (not is_whole(shuffle_seed) or shuffle_seed < 0):
            raise ConfigError(f"shuffle_seed must be a whole number of 0 or more, got {shuffle_seed!r}")
        self.shuffle_seed = shuffle_seed
        super().__init__(data, whole_file)

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the letter that the text states is the example's."""
        return grade_example(text, example)

    def asked(self, name: str, stem: str, choices: Sequence[str], right: int, **meta: str) -> Example:
        """An example of a question and its choices, the right one given by its place.

        Raises:
            DataError: fewer than two choices, or more than there are letters for.
        """
        if not 2 <= len(choices) <= len(LETTERS):
            raise DataError(f"a question has 2 to {len(LETTERS)} choices, got {len(choices)}")
        order = list(range(len(choices)))
        kept = {"choices": str(len(choices)), **meta}
        if self.shuffle_seed is not None:
            shuffler(self.shuffle_seed, name).shuffle(order)
            kept |= {"shuffle_seed": str(self.shuffle_seed), "order": " ".join(map(str, order))}
        lines = [f"{letter}) {choices[place]}" for letter, place in zip(LETTERS, order, strict=False)]
        return Example(name, "\n".join([stem, *lines]), LETTERS[order.index(right)], meta=kept)


class MedQa(MultipleChoice):
    """Questions of medical licensing exams, with choices. A row has `question`, `options` (a list, or an object
    by letter), and `answer` (the right option's words or letter) or `answer_idx` (its letter)."""

    name = "medqa"
    domain = "medicine"
    form = "MedQA as a JSON list or JSONL, with the fields question, options and answer"
    hub = ("GBaker/MedQA-USMLE-4-options", None, {"train": "train", "test": "test"})

    def example(self, row: Row, number: int) -> Example:
        choices = _choices(row, "options")
        stem = without_choices(stem_of(row), choices.written)
        return self.asked(f"medqa-{number}", stem, choices.texts, right_choice(row, choices, answer_is_words=True))


class Arc(MultipleChoice):
    """Questions of grade-school science, with choices. A row has `question`, `choices` (text and label) and
    `answerKey`, in the form of the hub or of the authors' own JSONL."""

    domain = "knowledge"
    form: ClassVar[str] = "ARC in JSONL form, with the fields question, choices and answerKey"

    def example(self, row: Row, number: int) -> Example:
        row = opened(row, "question")
        choices = _choices(row, "choices")
        if choices.flagged is None and find(row, *LABELS, *INDICES, *ANSWERS) is None:
            words(row, "answerKey")
        name = id_of(self.name, row, number)
        return self.asked(name, stem_of(row), choices.texts, right_choice(row, choices))


class ArcEasy(Arc):
    """The easy questions of grade-school science, with choices."""

    name = "arc_easy"
    hub = ("allenai/ai2_arc", "ARC-Easy", {"train": "train", "test": "test"})


class ArcChallenge(Arc):
    """The hard questions of grade-school science, with choices."""

    name = "arc_challenge"
    hub = ("allenai/ai2_arc", "ARC-Challenge", {"train": "train", "test": "test"})


class Mmlu(MultipleChoice):
    """Questions of 57 subjects, with choices. A row has `question`, `choices` and `answer` (a place from 0, or a
    letter), or is a line of the authors' CSV files: question, A, B, C, D, answer. Rows in which MMLU-Redux found an
    error are left out."""

    name = "mmlu"
    domain = "knowledge"
    form = "MMLU in JSONL form (question, choices, answer) or the authors' CSV"
    columns = ("question", "A", "B", "C", "D", "answer")
    hub = ("cais/mmlu", "all", {"train": "auxiliary_train", "test": "test"})

    def is_heading(self, fields: Sequence[str]) -> bool:
        """One word may be a choice's ("text"), so a heading has names for a question, its choices and the answer."""
        names = set(map(same_name, fields))
        parts = (bool(names & QUESTIONS), name_choices(fields), bool(names & _RIGHT_ONES))
        if len(fields) != len(self.columns):
            return parts[0] and (parts[1] or parts[2])
        is_label = fields[-1].strip().upper() in ("A", "B", "C", "D")
        if all(parts) and is_label and same_name(fields[0]) not in ("", *QUESTIONS, *_RIGHT_ONES):
            raise DataError(
                f"the first line may be a question with its choices or name the columns, got {list(fields)!r:.80}; put "
                f"the line {','.join(self.columns)} in front of a question, or let names begin with 'question'"
            )
        return all(parts)

    def example(self, row: Row, number: int) -> Example | None:
        row = opened(row, "train")  # as the hub's auxiliary_train holds its rows
        if _has_error(row):
            return None
        choices = _choices(row, "choices")
        subject = label_words(row, "subject", "category")
        try:
            right = right_choice(row, choices)
        except DataError as error:
            if number != 1 or tuple(row) != self.columns or len(str(row["answer"]).strip()) < 2:
                raise
            raise DataError(f"{error}; if this is the heading, name the columns {','.join(self.columns)}") from error
        return self.asked(f"mmlu-{number}", stem_of(row), choices.texts, right, subject=subject)


def _has_error(row: Row) -> bool:
    """Whether MMLU-Redux found an error in a row.

    Raises:
        DataError: it says something else, which must not leave the row out in silence.
    """
    found = find(row, "error_type")
    kind = "" if found is None else same_name(str(found[1]))
    if kind in _NO_ERRORS:
        return False
    if kind not in map(same_name, _ERRORS):
        shown = "" if found is None else found[1]
        raise DataError(f"the field 'error_type' must be ok or one of {', '.join(_ERRORS)}, got {shown!r:.40}")
    return True


def _choices(row: Row, field: str) -> Choices:
    """Those of a row, which is to have them in this field.

    Raises:
        DataError: it has none.
    """
    found = choices_of(row)
    if found is None:
        value = row.get(field)
        raise DataError(f"the field {field!r} must be a list of texts, or an object of texts, got {value!r:.60}")
    return found
