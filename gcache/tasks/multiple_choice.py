"""Questions with choices, of which one letter is right.

    gpqa                        Rein et al. 2023 (arXiv:2311.12022); `subset`: main, extended, diamond
    medqa                       Jin et al. 2020 (arXiv:2009.13081), four choices
    arc_easy, arc_challenge     Clark et al. 2018 (arXiv:1803.05457)
    mmlu                        Hendrycks et al. 2020 (arXiv:2009.03300)

The choices stand below the question, one a line. In the data of GPQA the right one comes first, so
its choices are always shuffled, by a seed and the question's own id; the others' only where a seed
is named. The seed and the order are kept with every example. Which forms of a row are read, and what they name the
right choice by, is the same for all of these (docs/tasks.md).
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from gcache.errors import ConfigError, DataError, unknown
from gcache.runtime.streams import shuffler
from gcache.tasks.choice_rows import choices_of, name_choices, stem_of, without_choices
from gcache.tasks.choices import LETTERS, grade_example
from gcache.tasks.data_fields import QUESTIONS, find, label_words, opened, same_name
from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example, Grade
from gcache.tasks.right_choice import ANSWERS, INDICES, LABELS, Choices, right_choice
from gcache.tasks.splits import Split

#: What the field that names the right choice may be called.
_RIGHT_ONES = frozenset(map(same_name, (*LABELS, *INDICES, *ANSWERS)))


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
        is_whole = isinstance(shuffle_seed, int) and not isinstance(shuffle_seed, bool)
        if shuffle_seed is not None and (not is_whole or shuffle_seed < 0):
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


class Gpqa(MultipleChoice):
    """Graduate-level questions. A row has the columns of the authors' CSV files.

    Args:
        subset: main, extended or diamond; which one the hub is asked for.
        shuffle_seed: see `MultipleChoice`.
    """

    SUBSETS = ("main", "extended", "diamond")
    name = "gpqa"
    domain = "science"
    form = "GPQA in CSV form, with the columns Question, Correct Answer and Incorrect Answer 1 to 3"
    hub: tuple[str, str | None, Mapping[Split, str]]
    hub = ("Idavidrein/gpqa", "gpqa_main", {"train": "train", "test": "train"})

    def __init__(
        self, data: str | Path | None = None, whole_file: bool = False, shuffle_seed: int = 0, subset: str = "main"
    ) -> None:
        if subset not in self.SUBSETS:
            raise unknown("subset of gpqa", subset, self.SUBSETS)
        self.hub = (self.hub[0], f"gpqa_{subset}", self.hub[2])
        super().__init__(data, whole_file, shuffle_seed)

    def example(self, row: Row, number: int) -> Example:
        record = label_words(row, "Record ID") or str(number)
        subject = label_words(row, "Subdomain", "High-level domain", "subject", "domain")
        given = choices_of(row)
        for before in ("", "Pre-Revision "):
            if find(row, f"{before}Incorrect Answer 1") is None:
                continue
            wrong = [words(row, f"{before}Incorrect Answer {n}") for n in (1, 2, 3)]
            choices = [words(row, f"{before}Correct Answer"), *wrong]
            _check_same(row, choices, given)
            return self.asked(f"gpqa-{record}", words(row, f"{before}Question"), choices, 0, subject=subject)
        if given is None:
            words(row, "Correct Answer")  # which is missing, most likely
            words(row, "Incorrect Answer 1")
            raise DataError("a row has no choices; expected " + self.form)
        return self.asked(f"gpqa-{record}", stem_of(row), given.texts, right_choice(row, given), subject=subject)


def _check_same(row: Row, choices: Sequence[str], given: Choices | None) -> None:
    """Where a mirror adds the choices in an order of its own, with a letter or a place, it must say the same."""
    if given is None or find(row, "answer", "answer_idx", "answer_index") is None:
        return
    named = {name: value for name, value in row.items() if "correct" not in name.lower()}
    if given.texts[right_choice(named, given)] != choices[0]:
        raise DataError("'Correct Answer' and the field that names one of the listed choices contradict each other")


class MedQa(MultipleChoice):
    """Questions of medical licensing exams. A row has `question`, `options` (a list, or an object
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
    """Grade-school science. A row has `question`, `choices` (text and label) and `answerKey`, in
    the form of the hub or of the authors' own JSONL."""

    domain = "knowledge"
    form: ClassVar[str] = "ARC in JSONL form, with the fields question, choices and answerKey"

    def example(self, row: Row, number: int) -> Example:
        row = opened(row, "question")
        choices = _choices(row, "choices")
        if find(row, "answerKey", "answer", "answer_idx", "answer_index", "label", "target") is None:
            words(row, "answerKey")
        name = f"{self.name}-{label_words(row, 'id') or number}"
        return self.asked(name, stem_of(row), choices.texts, right_choice(row, choices))


class ArcEasy(Arc):
    name = "arc_easy"
    hub = ("allenai/ai2_arc", "ARC-Easy", {"train": "train", "test": "test"})


class ArcChallenge(Arc):
    name = "arc_challenge"
    hub = ("allenai/ai2_arc", "ARC-Challenge", {"train": "train", "test": "test"})


class Mmlu(MultipleChoice):
    """57 subjects. A row has `question`, `choices` and `answer` (a place from 0, or a letter), or
    is a line of the authors' CSV files: question, A, B, C, D, answer. Rows in which MMLU-Redux found an error are
    left out."""

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
        if label_words(row, "error_type") not in ("", "ok"):
            return None
        choices = _choices(row, "choices")
        subject = label_words(row, "subject", "category")
        return self.asked(f"mmlu-{number}", stem_of(row), choices.texts, right_choice(row, choices), subject=subject)


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
