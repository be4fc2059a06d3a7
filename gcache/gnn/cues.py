"""What else the policy may see of a question and its agents: cues that embeddings of sentences blur.

    overlap   how many of the question's words stand in the agent's description, by BM25 (Robertson and Zaragoza 2009),
              among these agents; standardised
    content   the same of all that the agent alone knows, as an index of the documents has it
    named     1 where the question names the agent
    cited     the chance that the decision maker hears an agent that names this one
    citing    the chance that it hears an agent that this one names

The first three are known beforehand. The last two pass a message along who names whom: a question of two hops names one
document, and that document names the other. A message is 1 - prod (1 - p_j) over those neighbours j, where p_j is what
the policy says of j without messages, once it consults. All but `content` are made of what is public: roles,
descriptions and who names whom. By `content` the policy learns one number of what is private, and no word of it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from gcache.agents.roles import Agent
from gcache.gnn.cue_names import KNOWN
from gcache.tasks.citations import name_of, says


def known_cues(question: str, agents: Sequence[Agent], asked: Collection[str] = KNOWN) -> Tensor:
    """(N, 3) of overlap, content and named; those that are not asked for are 0."""
    found = torch.zeros(len(agents), len(KNOWN))
    if "overlap" in asked:
        found[:, KNOWN.index("overlap")] = _overlap(question, [agent.description for agent in agents])
    if "content" in asked:
        found[:, KNOWN.index("content")] = _overlap(question, [agent.private for agent in agents])
    if "named" in asked:
        found[:, KNOWN.index("named")] = torch.tensor([float(says(question, name_of(a.role))) for a in agents])
    return found


def _overlap(question: str, texts: Sequence[str]) -> Tensor:
    """(N,) scores of mean 0 and deviation 1; 0 for all where they are equal, but for rounding."""
    scores = torch.tensor(word_overlap(question, texts), dtype=torch.float64)
    if not scores.numel() or float(scores.max() - scores.min()) <= 1e-6 * float(scores.abs().max()):
        return torch.zeros(len(texts))
    return ((scores - scores.mean()) / scores.std(correction=0)).float()


def citations(agents: Sequence[Agent]) -> Tensor:
    """(N, N), 1 where the first agent names the second."""
    named = [[float(other.role in agent.cites) for other in agents] for agent in agents]
    return torch.tensor(named).reshape(len(agents), len(agents))


def messages(heard: Tensor, cites: Tensor) -> Tensor:
    """(N, 2) of cited and citing.

    Args:
        heard: (N,) the chances p_j.
        cites: (N, N) as `citations` gives it.
    """
    silent = [1 - heard[:, None] * neighbours for neighbours in (cites, cites.T)]  # (N from, N to)
    return torch.stack([1 - each.prod(dim=0) for each in silent], dim=1)


def word_overlap(question: str, texts: Sequence[str]) -> list[float]:
    """BM25's score of each text for a question, with these texts as all there are; 0 for all if no word is shared."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells of every index

    def words(texts: Sequence[str]) -> list[list[str]]:
        found: list[list[str]] = bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
        return found

    known = words(texts)
    vocabulary = set().union(*map(set, known))
    asked = [word for word in words([question])[0] if word in vocabulary]
    if not asked:
        return [0.0] * len(texts)
    index = bm25s.BM25()
    index.index(known, show_progress=False)
    scores: list[float] = index.get_scores(asked).tolist()
    return scores
