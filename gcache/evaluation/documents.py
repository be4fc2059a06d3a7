"""Which of a question's documents a method has at all: what anybody would try instead of learning whom to hear.

    all          every document
    none         none: the closed book
    supporting   those that the data says are needed: the oracle
    cosine:K     the K whose MiniLM embeddings are nearest to the question's
    bm25:K       the K that BM25 ranks first for the question (Robertson and Zaragoza 2009), among this question's own

The rest is left out before the method sees the question. So every choice serves methods of one prompt (documents as
text) and graphs (documents as caches) alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from gcache.errors import ConfigError
from gcache.evaluation.method import Answer, Method
from gcache.gnn.cues import word_overlap
from gcache.gnn.features import Encoder, make_encoder
from gcache.tasks.example import Example
from gcache.tasks.reading import NEEDED

logger = logging.getLogger(__name__)

#: The choices without a number, and those that take one.
WHOLE, NEAREST = ("all", "none", "supporting"), ("cosine", "bm25")
#: In `Example.meta`: the numbers of the documents that are left of a question's.
LEFT = "documents"


@dataclass(frozen=True)
class DocumentChoice:
    """A choice by name.

    Attributes:
        pick: the numbers of the documents that a question keeps, of those that it has.
    """

    name: str
    pick: Callable[[Example], Collection[int]]

    def of(self, example: Example) -> Example:
        """The question with what it keeps, in its order."""
        kept = sorted(self.pick(example))
        meta = {**example.meta, LEFT: " ".join(map(str, kept))}
        return replace(example, notes=tuple(example.notes[number] for number in kept), meta=meta)


def make_choices(names: Sequence[str]) -> list[DocumentChoice]:
    """Choices by their names.

    Raises:
        ConfigError: one of them is none, or is named twice.
    """
    kinds = [_parsed(name) for name in names]
    if len(set(names)) != len(names):
        raise ConfigError(f"choices of documents must each be named once, got {', '.join(names)}")
    encoder = make_encoder("minilm") if any(kind == "cosine" for kind, _ in kinds) else None
    return [
        DocumentChoice(name, _picking(kind, most, encoder)) for name, (kind, most) in zip(names, kinds, strict=True)
    ]


def check_choices(names: Sequence[str], examples: Sequence[Example]) -> None:
    """Refuse choices that cannot be made.

    Raises:
        ConfigError: a question has no documents, or the data does not say which are needed where that is chosen.
    """
    for example in examples if names else ():
        if not example.notes:
            raise ConfigError(f"question {example.id!r} has no documents to choose from; leave out --documents")
        if "supporting" in names:
            _supporting(example)


def _parsed(name: str) -> tuple[str, int]:
    """The kind of a choice, and its number."""
    kind, colon, most = name.partition(":")
    if kind in NEAREST and most.isascii() and most.isdigit() and len(most) < 9 and int(most):
        return kind, int(most)
    if kind in WHOLE and not colon:
        return kind, 0
    allowed = ", ".join((*WHOLE, *(f"{kind}:K" for kind in NEAREST)))
    raise ConfigError(f"unknown choice of documents {name!r}; choose one of: {allowed}, with K of 1 or more")


def _picking(kind: str, most: int, encoder: Encoder | None) -> Callable[[Example], Collection[int]]:
    if encoder is not None and kind == "cosine":
        return lambda example: _nearest(example, most, encoder)
    if kind == "bm25":
        return lambda example: _bm25(example, most)
    return {"all": _all, "none": _none, "supporting": _supporting}[kind]


@dataclass(frozen=True)
class OnDocuments:
    """A method that has only the documents of a choice."""

    method: Method
    choice: DocumentChoice

    @property
    def name(self) -> str:
        return f"{self.method.name}, {self.choice.name}"

    def answer(self, examples: Sequence[Example], on_answer: Callable[[], None] = lambda: None) -> list[Answer]:
        """See `Method.answer`."""
        asked = [self.choice.of(example) for example in examples]
        answers = self.method.answer(asked, on_answer)
        return [
            replace(answer, example=example, documents=answer.documents if had.notes else ())
            for answer, example, had in zip(answers, examples, asked, strict=True)
        ]


def on_choices(methods: Sequence[Method], choices: Sequence[DocumentChoice]) -> list[Method]:
    """Every method on every choice, choice by choice. Without documents a graph whose agents hold them has no agents:
    there it is left out, and one prompt is what to ask."""
    found: list[Method] = []
    for choice in choices:
        for method in methods:
            if choice.name == "none" and getattr(method, "agents_hold_notes", False):
                logger.info("%s is left out where there are no documents: nobody is there to be heard", method.name)
            else:
                found.append(OnDocuments(method, choice))
    return found


def every(example: Example) -> tuple[int, ...] | None:
    """The numbers that all notes of a question had before a choice; None where it brings none."""
    return original(example, range(len(example.notes))) if example.notes else None


def original(example: Example, notes: Collection[int]) -> tuple[int, ...]:
    """The numbers that some notes of a question had before a choice."""
    left = example.meta.get(LEFT)
    known = range(len(example.notes)) if left is None else [int(number) for number in left.split()]
    return tuple(sorted(known[number] for number in notes))


def needed(example: Example) -> tuple[int, ...]:
    """The documents that the data says are needed; () where it says nothing."""
    return tuple(int(number) for number in example.meta.get(NEEDED, "").split())


def set_f1(heard: Collection[int], wanted: Collection[int]) -> float:
    """F1 of a set of documents beside the needed ones: 2 |both| / (|heard| + |needed|)."""
    both, heard, wanted = set(heard) & set(wanted), set(heard), set(wanted)
    return 2 * len(both) / (len(heard) + len(wanted)) if heard or wanted else 1.0


def _all(example: Example) -> Collection[int]:
    return range(len(example.notes))


def _none(example: Example) -> Collection[int]:
    return ()


def _supporting(example: Example) -> Collection[int]:
    found = needed(example)
    if not found:
        raise ConfigError(
            f"the data does not say which documents of question {example.id!r} are needed; choose others than "
            "'supporting'"
        )
    return found


def _nearest(example: Example, most: int, encoder: Encoder) -> Collection[int]:
    vectors = encoder.encode([example.question, *(note.text for note in example.notes)])
    return _first(most, (vectors[1:] @ vectors[0]).tolist())


def _bm25(example: Example, most: int) -> Collection[int]:
    return _first(most, word_overlap(example.question, [note.text for note in example.notes]))


def _first(most: int, scores: Sequence[float]) -> Collection[int]:
    """The numbers of the highest scores; of equals the first."""
    return sorted(range(len(scores)), key=lambda number: -scores[number])[:most]
