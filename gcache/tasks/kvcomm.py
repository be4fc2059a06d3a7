"""The two tasks that KVComm made to measure hand-overs: one agent knows something, another is asked.

"KVComm: Communication Between Language Models via Transferring Key-Value Cache" (ICLR 2026). Both files stand in its
repository (dataloader/data of Zephyroam/KVComm), and on no hub.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gcache.errors import DataError
from gcache.tasks.answer_overlap import short_answer
from gcache.tasks.classification import named
from gcache.tasks.data_fields import id_of
from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example, Grade, Note
from gcache.tasks.reading import ReadingTask, asked_of
from gcache.tasks.text_lists import listed


class Countries(ReadingTask):
    """Which country a person is in, where one agent alone knows at which landmark.

    A row has `prompt_A` (what is known), `prompt_B` (what is asked) and the country as `y`, `answer` or `country`.

    Args:
        data, whole_file, utility: see `ReadingTask`.
    """

    name = "countries"
    form = "KVComm's countries in JSONL form"
    max_new_tokens = 12

    def __init__(self, data: str | Path, whole_file: bool = False, utility: str = "f1") -> None:
        super().__init__(data, whole_file, utility)

    def example(self, row: Row, number: int) -> Example:
        right = words(row, "y", "answer", "country")
        asked = asked_of(id_of(self.name, row, number), words(row, "prompt_B"), [right], ())
        return replace(asked, notes=(_knowing(row),))

    def identity(self, example: Example) -> str:
        """What is known: the same names are asked about again and again."""
        return example.notes[0].text


class Tipsheets(DataSet):
    """Which of a few companies to choose, where one agent alone has read about them.

    A row has `prompt_A` (what is known), `prompt_B` (what is asked), `options` and the right one as `label`.

    Args:
        data, whole_file: see `DataSet`.
    """

    name = "tipsheets"
    domain = "reading"
    form = "KVComm's tipsheets in JSONL form"
    max_new_tokens = 12

    def __init__(self, data: str | Path, whole_file: bool = False) -> None:
        super().__init__(data, whole_file)

    def example(self, row: Row, number: int) -> Example:
        options, right = listed(row.get("options"), "options"), " ".join(words(row, "label", "answer").split())
        if not isinstance(options, list) or not all(isinstance(each, str) and each.strip() for each in options):
            raise DataError(f"the field 'options' must be a list of names, got {options!r:.60}")
        options = [" ".join(each.split()) for each in options]
        if right not in options or len(set(map(str.casefold, options))) < len(options):
            raise DataError(f"the label {right!r:.40} must be one of different options, got {options!r:.80}")
        if any(";" in each for each in options):
            raise DataError(f"an option must have no semicolon, got {options!r:.80}")
        name, told = id_of(self.name, row, number), {"options": "; ".join(options)}
        asked = Example(name, words(row, "prompt_B"), right, (_knowing(row),), told)
        if self.grade(right, asked).outcome != "right":
            raise DataError(f"the label {right!r:.40} cannot be read in an answer; give it words of its own")
        return asked

    def identity(self, example: Example) -> str:
        """What is known: the same names are asked about again and again."""
        return example.notes[0].text

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the one option that the first line states is the right one; none, or several, is no answer."""
        found = named(short_answer(text), example.meta["options"].split("; "))
        return Grade("unparsed") if found is None else Grade("right" if found == example.answer else "wrong", found)


def _knowing(row: Row) -> Note:
    """The agent that knows what the other is asked about."""
    return Note("informant", "The informant, who alone knows the facts.", words(row, "prompt_A"), "informant")
