"""Split GSM8K: word problems whose sentences are dealt out among the agents.

The decision maker sees the final question alone ("How many are left?"); what is told before it is
cut into runs of sentences, one run per agent, which stand in that agent's prompt and nowhere else.
So, unlike on GSM8K itself, nobody can answer without being handed something. The problems are those
of Cobbe et al. (2021), arXiv:2110.14168.
"""

from __future__ import annotations

import hashlib
import random
from fractions import Fraction
from pathlib import Path

from gcache.errors import ConfigError
from gcache.runtime.numbers import is_number, require_whole
from gcache.runtime.streams import shuffler
from gcache.tasks.data_set import Row
from gcache.tasks.dealing import MOST_AGENTS, ORDINALS, adversary, check_adversaries, runs
from gcache.tasks.example import Example, Note
from gcache.tasks.gsm8k import Gsm8k, problem
from gcache.tasks.number_data_set import NumberDataSet
from gcache.tasks.sentences import sentences


class SplitGsm8k(NumberDataSet):
    """GSM8K's problems, with the sentences before the question dealt out among the agents.

    Args:
        data, whole_file: see `DataSet`.
        n_agents: among whom the sentences are dealt, from 1 to 8; where there are fewer sentences
            than agents, the last ones know nothing.
        shared: share of the sentences, from 0 to 1, that everybody sees before the question; which
            ones is drawn by a hash of the problem.
        adversary: further agents that claim a wrong number.
        accept_last_number: see `NumberTask`.

    A problem that is one sentence cannot be split; it is left out.

    Raises:
        ConfigError: an option that is not allowed.
    """

    name = "split_gsm8k"
    domain = "maths"
    form = Gsm8k.form
    hub = Gsm8k.hub

    def __init__(
        self,
        data: str | Path | None = None,
        whole_file: bool = False,
        n_agents: int = 3,
        shared: float = 0.0,
        adversary: int = 0,
        accept_last_number: bool = False,
    ) -> None:
        require_whole("n_agents", n_agents, 1, MOST_AGENTS, " for split_gsm8k")
        if not is_number(shared) or not 0 <= shared <= 1:
            raise ConfigError(f"shared must be a share from 0 to 1, got {shared!r}")
        check_adversaries(adversary)
        self.n_agents, self.shared, self.adversaries = n_agents, float(shared), adversary
        super().__init__(data, whole_file, accept_last_number)

    def example(self, row: Row, number: int) -> Example | None:
        whole, answer = problem(row)
        *told, question = sentences(whole)
        if not told:
            return None
        rng = shuffler(hashlib.sha256(whole.encode("utf-8", "surrogatepass")).digest())
        open_to_all = set(rng.sample(range(len(told)), round(self.shared * len(told))))
        common = [told[i] for i in sorted(open_to_all)]
        private = [sentence for i, sentence in enumerate(told) if i not in open_to_all]
        notes = [_witness(i, part) for i, part in enumerate(runs(private, self.n_agents))]
        for _ in range(self.adversaries):
            notes.append(adversary(f"The answer is {_wrong(answer, rng)}."))
        return Example(
            id=f"split_gsm8k-{number}",
            question=" ".join([*common, question]),
            answer=answer,
            notes=tuple(notes),
            meta={"problem": whole},
        )

    def identity(self, example: Example) -> str:
        """The whole problem: many problems end in the same question."""
        return example.meta["problem"]


def _witness(index: int, told: list[str]) -> Note:
    place = ORDINALS[index]
    return Note(
        role=f"{place} witness",
        description=f"The {place} witness knows the {place} part of the story.",
        text=f"The {place} witness: {' '.join(told) if told else 'I was told nothing.'}",
        kind="witness" if told else "witness of nothing",
    )


def _wrong(answer: str, rng: random.Random) -> int:
    """A whole number near the answer that is not it."""
    value = round(Fraction(answer))
    return value + rng.choice([d for d in (-7, -5, -3, -2, 2, 3, 5, 7, 10) if value + d > 0])
