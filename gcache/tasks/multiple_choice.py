"""Questions with choices, of which one letter is right.

    gpqa                        Rein et al. 2023 (arXiv:2311.12022); `subset`: main, extended, diamond
    medqa                       Jin et al. 2020 (arXiv:2009.13081), four choices
    arc_easy, arc_challenge     Clark et al. 2018 (arXiv:1803.05457)
    mmlu                        Hendrycks et al. 2020 (arXiv:2009.03300)

The choices stand below the question, one a line. In the data of GPQA the right one comes first, so
its choices are always shuffled, by a seed and the question's own id; the others' only where a seed
is named. The seed and the order are kept with every example.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gcache.errors import ConfigError, DataError, unknown
from gcache.streams import shuffler
from gcache.tasks.choices import LETTERS, grade_example
from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example, Grade
from gcache.tasks.splits import Split


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
        if shuffle_seed is not None and (not isinstance(shuffle_seed, int) or shuffle_seed < 0):
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
        choices = [words(row, "Correct Answer"), *(words(row, f"Incorrect Answer {n}") for n in (1, 2, 3))]
        record = row.get("Record ID") or str(number)
        subject = row.get("Subdomain") or row.get("High-level domain") or ""
        return self.asked(f"gpqa-{record}", words(row, "Question"), choices, 0, subject=str(subject))


class MedQa(MultipleChoice):
    """Questions of medical licensing exams. A row has `question`, `options` (a list, or an object
    by letter) and `answer` (the right option's words or letter)."""

    name = "medqa"
    domain = "medicine"
    form = "MedQA as a JSON list or JSONL, with the fields question, options and answer"
    hub = ("GBaker/MedQA-USMLE-4-options", None, {"train": "train", "test": "test"})

    def example(self, row: Row, number: int) -> Example:
        stem, options = words(row, "question"), row.get("options")
        listed = list(options.values()) if isinstance(options, dict) else options
        if not isinstance(listed, list) or not all(isinstance(option, str) and option.strip() for option in listed):
            raise DataError(f"the field 'options' must be a list of texts, or an object of texts, got {options!r:.60}")
        choices = [_without_letter(option, place) for place, option in enumerate(listed)]
        # some files repeat the options at the end of the question
        first = stem.find(f"\n{listed[0].strip()}")
        return self.asked(
            f"medqa-{number}", stem[:first].strip() if first > 0 else stem, choices, _place(row["answer"], choices)
            if "answer" in row else _place(words(row, "answer_idx"), choices),
        )  # fmt: skip


class Arc(MultipleChoice):
    """Grade-school science. A row has `question`, `choices` (text and label) and `answerKey`, in
    the form of the hub or of the authors' own JSONL."""

    domain = "knowledge"
    form: ClassVar[str] = "ARC in JSONL form, with the fields question, choices and answerKey"

    def example(self, row: Row, number: int) -> Example:
        question, choices = row.get("question"), row.get("choices")
        if isinstance(question, dict):
            row, choices = {**row, "question": question.get("stem")}, question.get("choices")
        if isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
            choices = {name: [choice.get(name) for choice in choices] for name in ("text", "label")}
        texts, labels = (choices.get(name) if isinstance(choices, dict) else None for name in ("text", "label"))
        if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
            raise DataError(f"the field 'choices' must have as many texts as labels, got {choices!r:.60}")
        key = words(row, "answerKey")
        if key not in labels:
            raise DataError(f"the field 'answerKey' must be one of {', '.join(map(str, labels))}, got {key!r}")
        name = f"{self.name}-{row.get('id') or number}"
        return self.asked(name, words(row, "question"), [str(text) for text in texts], labels.index(key))


class ArcEasy(Arc):
    name = "arc_easy"
    hub = ("allenai/ai2_arc", "ARC-Easy", {"train": "train", "test": "test"})


class ArcChallenge(Arc):
    name = "arc_challenge"
    hub = ("allenai/ai2_arc", "ARC-Challenge", {"train": "train", "test": "test"})


class Mmlu(MultipleChoice):
    """57 subjects. A row has `question`, `choices` and `answer` (a place from 0, or a letter), or
    is a line of the authors' CSV files: question, A, B, C, D, answer."""

    name = "mmlu"
    domain = "knowledge"
    form = "MMLU in JSONL form (question, choices, answer) or the authors' CSV"
    columns = ("question", "A", "B", "C", "D", "answer")
    hub = ("cais/mmlu", "all", {"train": "auxiliary_train", "test": "test"})

    def example(self, row: Row, number: int) -> Example:
        choices = row.get("choices")
        if choices is None:
            choices = [words(row, letter) for letter in "ABCD"]
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise DataError(f"the field 'choices' must be a list of texts, got {choices!r:.60}")
        subject = str(row.get("subject") or "")
        place = _place(row.get("answer"), choices)
        return self.asked(f"mmlu-{number}", words(row, "question"), choices, place, subject=subject)


def _without_letter(option: str, place: int) -> str:
    """ "B. Aspirin" as "Aspirin", if it is the second."""
    option = option.strip()
    return option[2:].strip() if option[:2] in (f"{LETTERS[place]}.", f"{LETTERS[place]})") else option


def _place(answer: Any, choices: Sequence[str]) -> int:
    """Of the right choice, which is given by its place, its letter or its words.

    Raises:
        DataError: it is none of the choices.
    """
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    if isinstance(answer, str):
        answer = answer.strip()
        if choices.count(answer) == 1:
            return list(choices).index(answer)
        if len(answer) == 1 and answer.upper() in LETTERS[: len(choices)]:
            return LETTERS.index(answer.upper())
    raise DataError(f"the field 'answer' must be one of the {len(choices)} choices, got {answer!r:.60}")
