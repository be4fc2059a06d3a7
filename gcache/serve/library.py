"""Documents that questions are asked over: each question is given those nearest to it, an agent each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor
from tqdm import tqdm

from gcache.errors import ConfigError, DataError
from gcache.evaluation.read_documents import read_documents
from gcache.gnn.features import Encoder
from gcache.graph.cache_graph import CacheGraph
from gcache.runtime.numbers import require_whole
from gcache.tasks.citations import with_citations
from gcache.tasks.example import Example, Note

logger = logging.getLogger(__name__)

#: Words of a passage, by which documents are compared with a question: about what the encoder reads at once.
PASSAGE = 120


class Library:
    """Documents, and which of them a question is given.

    A document is as near to a question as the nearest of its passages.

    Args:
        notes: the documents.
        nearest: how many a question is given; 0 for all, among which the graph chooses.
        encoder: of passages and questions.

    Raises:
        ConfigError: no documents, or a number below 0.
    """

    def __init__(self, notes: Sequence[Note], nearest: int, encoder: Encoder) -> None:
        require_whole("nearest", nearest, 0)
        if not notes:
            raise ConfigError("there are no documents to ask questions over; name a folder that has some")
        self.notes, self.nearest, self._encoder = with_citations(notes), nearest, encoder
        self._passages = [(number, passage) for number, note in enumerate(notes) for passage in passages(note.text)]

    @cached_property
    def _vectors(self) -> Tensor:
        """(P, E) of all passages."""
        return self._encoder.encode([passage for _, passage in self._passages])

    def given(self, example: Example) -> Example:
        """A question with its documents, in their order; one that brings agents of its own as it is."""
        if example.notes:
            return example
        return replace(example, notes=tuple(self.notes[number] for number in self.numbers(example.question)))

    def numbers(self, question: str) -> list[int]:
        """Of the documents that a question is given, in order."""
        if not self.nearest or self.nearest >= len(self.notes):
            return list(range(len(self.notes)))
        near = self._vectors @ self._encoder.encode([question])[0]  # (P,)
        best = torch.full((len(self.notes),), -torch.inf)
        owners = torch.tensor([number for number, _ in self._passages])
        best.scatter_reduce_(0, owners, near, "amax")
        order = best.sort(descending=True, stable=True).indices
        return sorted(order[: self.nearest].tolist())

    def read(self, graph: CacheGraph) -> list[str]:
        """Read all documents into the model's store, and find their passages' vectors, before anybody asks. Returns
        the keys of what is there.

        Raises:
            DataError: one cannot be read, such as one that is longer than the model's context.
        """
        _ = self._vectors
        if graph.config.question_order == "first" or graph.llm.store is None:
            logger.info("documents are read as questions come (question first, or no store): none is read beforehand")
            return []
        with (
            tqdm(total=len(self.notes), desc="read", unit="document") as bar,
            ThreadPoolExecutor(1) as thread,  # an event loop runs in this one
        ):
            done = thread.submit(read_documents, graph, self.notes, bar.update).result()
        if done.failed:
            note, error = done.failed[0]
            raise DataError(
                f"{len(done.failed)} of {len(self.notes)} documents cannot be read; the first, {note.role!r}: {error}"
            )
        return done.keys


def passages(text: str) -> list[str]:
    """A text in pieces of `PASSAGE` words, each beginning in the middle of the one before."""
    words = text.split()
    starts = range(0, max(len(words) - PASSAGE // 2, 1), PASSAGE // 2)
    return [" ".join(words[start : start + PASSAGE]) for start in starts]
