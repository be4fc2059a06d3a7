"""GPQA: graduate-level questions of science (Rein et al. 2023, arXiv:2311.12022).

In the data the right answer comes first, so the choices are always shuffled, by a seed and the question's own id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gcache.errors import DataError, unknown
from gcache.tasks.choice_rows import choices_of, stem_of
from gcache.tasks.choice_set import Choices, same_words
from gcache.tasks.choices import LETTERS
from gcache.tasks.data_fields import Row, find, label_words, same_name, words
from gcache.tasks.example import Example
from gcache.tasks.multiple_choice import MultipleChoice
from gcache.tasks.right_choice import ANSWERS, INDICES, LABELS, right_choice
from gcache.tasks.splits import Split


class Gpqa(MultipleChoice):
    """Graduate-level questions of science, with choices. A row has the columns of the authors' CSV files.

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
            names = [f"{before}Incorrect Answer {n}" for n in range(1, len(LETTERS))]
            wrong = [words(row, name) for at, name in enumerate(names) if at < 3 or find(row, name) is not None]
            choices = [words(row, f"{before}Correct Answer"), *wrong]
            _check_same(row, choices, given)
            return self.asked(f"gpqa-{record}", words(row, f"{before}Question"), choices, 0, subject=subject)
        if given is None:
            words(row, "Correct Answer")  # which is missing, most likely
            words(row, "Incorrect Answer 1")
            raise DataError("a row has no choices; expected " + self.form)
        return self.asked(f"gpqa-{record}", stem_of(row), given.texts, right_choice(row, given), subject=subject)


def _check_same(row: Row, choices: Sequence[str], given: Choices | None) -> None:
    """Refuse four answers, the right one first, that the rest of a row contradicts. Where a mirror adds the choices in
    an order of its own, they must be these; and whatever names the right one must name the first."""
    right, *wrong = same_words(choices)
    if right in wrong:
        raise DataError(f"'Correct Answer' and 'Incorrect Answer {wrong.index(right) + 1}' are the same: {right!r:.60}")
    named = {name: value for name, value in row.items() if same_name(str(name)) != "correctanswer"}
    if given is None:
        said = [found[1] for name in ANSWERS if (found := find(named, name)) is not None and isinstance(found[1], str)]
        if any(words_said in wrong for words_said in same_words(said)):
            raise DataError("'Correct Answer' and the field that names the right one in words contradict each other")
        return
    if sorted(map(str.casefold, same_words(given.texts))) != sorted(map(str.casefold, (right, *wrong))):
        raise DataError(
            "the listed choices are not 'Correct Answer' and the 'Incorrect Answer' fields; leave one of both"
        )
    if given.flagged is None and find(named, *LABELS, *INDICES, *ANSWERS) is None:
        return
    if same_words([given.texts[right_choice(named, given)]]) != [right]:
        raise DataError("'Correct Answer' and the field that names one of the listed choices contradict each other")
