"""What is served: a graph, the local model inside it, and the name they go by."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from functools import cached_property

from gcache.build import Built
from gcache.errors import ConfigError
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.text_backends import LocalTextBackend
from gcache.graph.text_graph import TextGraph
from gcache.llm.local import LocalLLM
from gcache.llm.scheduler import BatchingLLM
from gcache.serve.library import Library
from gcache.serve.pieces import Pieces
from gcache.tasks.example import Example

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class ServedModel:
    """A graph that is there to be asked.

    Attributes:
        name: what clients call it.
        llm: its local model; None where an API says everything.
        created: seconds since 1970.
        library: documents that questions are asked over, if there are any.
    """

    name: str
    graph: AgentGraph
    llm: LocalLLM | None
    created: int = field(default_factory=lambda: int(time.time()))
    library: Library | None = None

    @classmethod
    def of(cls, built: Built, name: str, library: Library | None = None) -> ServedModel:
        """A graph that was built.

        Args:
            library: documents that questions without agents of their own are asked over; they are read now.

        Raises:
            ConfigError: its agents think with several models.
        """
        if isinstance(built.graph, CacheGraph) and built.graph.is_mixed:
            raise ConfigError(
                "the agents of this graph think with several models, and a service counts the context of one; ask it "
                "by `gcache run`, or serve a graph of one model"
            )
        if library is not None:
            if not isinstance(built.graph, CacheGraph) or built.llm is None:
                raise ConfigError("documents are handed on as caches, but the agents of this graph hand on text alone")
            keys = library.read(built.graph)
            if built.llm.store is not None:  # what clients bring is nobody's to keep
                built.llm.store = built.llm.store.of_keys(keys)
        return cls(name, built.graph, built.llm, library=library)

    def given(self, example: Example) -> Example:
        """A question with the documents that it is asked over, where there are some."""
        return example if self.library is None else self.library.given(example)

    @property
    def batching(self) -> BatchingLLM | None:
        """The queue of the local model, which the graph's agents use as well."""
        if isinstance(self.graph, CacheGraph):
            return self.graph.llm
        if isinstance(self.graph, TextGraph) and isinstance(self.graph.backend, LocalTextBackend):
            return self.graph.backend.llm
        return None

    @property
    def brings_agents(self) -> bool:
        """Whether it has agents for questions that come without any."""
        return bool(self.graph.agents) or isinstance(self.graph, TextGraph) or self.library is not None

    @property
    def context(self) -> int | None:
        """Positions that the local model was made for."""
        return None if self.llm is None else self.llm.context

    @property
    def tidied(self) -> bool:
        """Whether the tokenizer takes spaces away before punctuation."""
        return self.llm is not None and bool(getattr(self.llm.tokenizer, "clean_up_tokenization_spaces", False))

    @property
    def stop_words(self) -> tuple[str, ...]:
        """Words before which every text of the local model ends."""
        return () if self.llm is None else self.llm.stop_words

    @cached_property
    def byte_tokens(self) -> frozenset[int]:
        """Tokens that are single bytes, of which a run is characters only as a whole, and special ones, which are left
        out of a text and so may stand within such a run."""
        if self.llm is None:
            return frozenset()
        tokenizer = self.llm.tokenizer
        found = {number for token, number in tokenizer.get_vocab().items() if _BYTE.fullmatch(token)}
        return frozenset(found | set(tokenizer.all_special_ids)) if found else frozenset()

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token."""
        assert self.llm is not None
        return max(len(token) for token in self.llm.tokenizer.get_vocab())

    @cached_property
    def pieces(self) -> Pieces:
        """Its tokens, as clients read them."""
        assert self.llm is not None
        return Pieces(self.llm.tokenizer)

    @property
    def cache_bytes(self) -> int:
        """Of the caches that are alive."""
        return 0 if self.llm is None else self.llm.ledger.held
