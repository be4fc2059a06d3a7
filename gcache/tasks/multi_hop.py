"""Questions that take two or more of several documents: HotpotQA, 2WikiMultihopQA and MuSiQue.

Yang et al. 2018 (arXiv:1809.09600, the distractor setting), Ho et al. 2020 (arXiv:2011.01060) and Trivedi et al. 2022
(arXiv:2108.00573). Each document is one agent's note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gcache.errors import DataError
from gcache.tasks.data_fields import find, id_of, label_words
from gcache.tasks.data_set import Row, words
from gcache.tasks.example import Example
from gcache.tasks.reading import Document, ReadingTask, asked_of
from gcache.tasks.splits import Split
from gcache.tasks.text_lists import listed


class HotpotQa(ReadingTask):
    """Questions that two of about ten paragraphs answer together.

    A row has `question`, `answer`, `context` and, where it is known, `supporting_facts`, in the official form (lists of
    `[title, sentences]` and `[title, sentence]`) or the hub's (objects with lists of `title` and `sentences`).

    Args:
        data, whole_file, utility: see `ReadingTask`.
    """

    name = "hotpotqa"
    form = "HotpotQA's distractor setting in JSON or JSONL form"
    hub: tuple[str, str | None, Mapping[Split, str]] = (
        "hotpotqa/hotpot_qa", "distractor", {"train": "train", "test": "validation"}
    )  # fmt: skip
    closed = True

    def example(self, row: Row, number: int) -> Example:
        paragraphs = _pairs(row, "context", "sentences")
        facts = _pairs(row, "supporting_facts", "sent_id") if find(row, "supporting_facts") else None
        needed = None if facts is None else {title for title, _ in facts}
        documents = [
            Document(title, _joined(parts, title), None if needed is None else title in needed, _first(parts))
            for title, parts in paragraphs
        ]
        missing = sorted((needed or set()) - {title for title, _ in paragraphs})
        if missing:
            raise DataError(f"supporting_facts names {missing[0]!r:.60}, which is the title of no paragraph")
        about = {name: value for name in ("type", "level") if (value := label_words(row, name))}
        return asked_of(
            id_of(self.name, row, number), words(row, "question"), [words(row, "answer"), *_aliases(row)], documents,
            about,
        )  # fmt: skip


class TwoWikiMultihopQa(HotpotQa):
    """Questions that two or four of ten paragraphs answer together. Rows are those of HotpotQA.

    Args:
        data, whole_file, utility: see `ReadingTask`.
    """

    name = "2wikimultihopqa"
    form = "2WikiMultihopQA in JSON or JSONL form"
    hub = ("framolfese/2WikiMultihopQA", None, {"train": "train", "test": "validation"})


class Musique(ReadingTask):
    """Questions of two to four hops over twenty paragraphs.

    A row has `question`, `answer`, `answer_aliases` and `paragraphs`, objects with `title`, `paragraph_text` and
    `is_supporting`. One that cannot be answered (`answerable` is false) is left out.

    Args:
        data, whole_file, utility: see `ReadingTask`.
    """

    name = "musique"
    form = "MuSiQue in JSONL form"
    hub = ("bdsaglam/musique", "answerable", {"train": "train", "test": "validation"})

    def example(self, row: Row, number: int) -> Example | None:
        if row.get("answerable") is False:
            return None
        paragraphs = listed(row.get("paragraphs"), "paragraphs")
        if not isinstance(paragraphs, list) or not paragraphs or not all(isinstance(p, Mapping) for p in paragraphs):
            raise DataError(f"the field 'paragraphs' must be a list of objects, got {paragraphs!r:.60}")
        documents = [
            Document(words(p, "title"), words(p, "paragraph_text", "text"), _flag(p, "is_supporting"))
            for p in paragraphs
        ]
        return asked_of(
            id_of(self.name, row, number), words(row, "question"), [words(row, "answer"), *_aliases(row)], documents
        )


def _flag(row: Row, name: str) -> bool | None:
    value = row.get(name)
    if value is not None and not isinstance(value, bool):
        raise DataError(f"the field {name!r} of a paragraph must be true or false, got {value!r:.40}")
    return value


def _aliases(row: Row) -> list[str]:
    """Other right answers of a row."""
    value = listed(row.get("answer_aliases"), "answer_aliases") or []
    if not isinstance(value, list) or not all(isinstance(alias, str) for alias in value):
        raise DataError(f"the field 'answer_aliases' must be a list of strings, got {value!r:.60}")
    return [alias for alias in value if alias.strip()]


def _pairs(row: Row, field: str, second: str) -> list[tuple[str, Any]]:
    """(title, what belongs to it) in either form.

    Args:
        second: what the hub calls the latter.
    """
    value = listed(row.get(field), field)
    if isinstance(value, Mapping):
        titles, others = value.get("title"), value.get(second)
        if not isinstance(titles, list) or not isinstance(others, list) or len(titles) != len(others):
            raise DataError(f"the field {field!r} must have as many entries in 'title' as in {second!r}")
        value = [[title, other] for title, other in zip(titles, others, strict=True)]
    if not isinstance(value, list) or not value:
        raise DataError(f"the field {field!r} must be a list of [title, {second}], got {value!r:.60}")
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str) or not pair[0].strip():
            raise DataError(f"the field {field!r} must be a list of [title, {second}], got {pair!r:.60} in it")
    return [(title.strip(), other) for title, other in value]


def _joined(parts: Any, title: str) -> str:
    """A paragraph's sentences as one text; most of them begin with the blank that parts them."""
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts) or not "".join(parts).strip():
        raise DataError(f"the paragraph {title!r:.60} must be a list of sentences, got {parts!r:.60}")
    return " ".join(parts)


def _first(parts: Sequence[str]) -> str:
    return next(" ".join(part.split()) for part in parts if part.strip())
