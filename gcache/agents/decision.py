"""Decision makers: how the last agent turns what it was handed into an answer.

    refer    it hears everyone at once and writes one answer
    direct   it hears only the heaviest edge and writes one answer
    vote     it hears each edge alone and writes an answer to each; the weightiest answer wins

All three are ways to group the incoming caches, so they share prompts, fuser and log-probability.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gcache.errors import unknown
from gcache.tasks.choices import extract_choice
from gcache.tasks.grading import extract_number
from gcache.tasks.number_value import numbers_equal

DECISIONS = ("refer", "direct", "vote")
#: Kinds of answers, and how what a text states is read from it.
STATES: Mapping[str, Callable[[str], str | None]] = {
    "number": extract_number,
    "choice": extract_choice,
    "words": lambda text: None,
}


@dataclass(frozen=True)
class DecisionMaker:
    """The agent that answers.

    Attributes:
        description: one sentence; its embedding is the role's feature.
        instructions: what its prompt says after the question.
        answer_prefix: words put into its mouth, from which its text goes on; they are not part
            of the answer.
        method: one of `DECISIONS`.
        states: what an answer states, by which votes are compared; one of `STATES`.

    Raises:
        ConfigError: unknown method, or unknown kind of answer.
    """

    description: str
    instructions: str
    answer_prefix: str = ""
    method: str = "refer"
    states: str = "number"

    def __post_init__(self) -> None:
        if self.method not in DECISIONS:
            raise unknown("decision method", self.method, DECISIONS)
        if self.states not in STATES:
            raise unknown("kind of answer", self.states, STATES)

    def groups(self, weights: Sequence[float]) -> list[tuple[int, ...]]:
        """Which incoming caches, by number, are heard together; one text is written per group."""
        everyone = tuple(range(len(weights)))
        if not weights or self.method == "refer":
            return [everyone]
        if self.method == "direct":
            return [(max(everyone, key=lambda i: weights[i]),)]
        return [(i,) for i in everyone]

    def combine(self, texts: Sequence[str], weights: Sequence[float]) -> str:
        """The answer: the only text, or the first text of the answer that weighs most.

        Answers are compared by what they state, else as stripped text.
        """
        if len(texts) == 1:
            return texts[0]
        firsts: list[int] = []  # one text per different answer
        votes: list[float] = []
        for number, weight in enumerate(weights):
            same = [v for v, first in enumerate(firsts) if self.same(texts[first], texts[number])]
            if same:
                votes[same[0]] += weight
            else:
                firsts.append(number)
                votes.append(weight)
        return texts[firsts[votes.index(max(votes))]]

    def same(self, left: str, right: str) -> bool:
        """Whether two texts state the same, or, where either states nothing, are the same words."""
        one, other = (STATES[self.states](text) for text in (left, right))
        if one is None or other is None:
            return left.strip() == right.strip()
        return numbers_equal(one, other) if self.states == "number" else one == other


CHOOSE = (
    "Think step by step and write your reasoning. Then write on the last line: The answer is (X), with the letter of "
    "the right choice for X."
)

DECISION_MAKERS: Mapping[str, DecisionMaker] = {
    "maths": DecisionMaker(
        "The decision maker, who reads what the others thought and states the number.",
        "Think step by step and write your working. Write the final number on the last line after ####.",
    ),
    "science": DecisionMaker(
        "The decision maker, who reads what the others thought and states the letter of the right choice.",
        CHOOSE,
        states="choice",
    ),
    "medicine": DecisionMaker(
        "The decision maker, a senior doctor who reads what the others thought and states the right choice.",
        CHOOSE,
        states="choice",
    ),
    "knowledge": DecisionMaker(
        "The decision maker, who reads what the others thought and states the letter of the right choice.",
        CHOOSE,
        states="choice",
    ),
    "code": DecisionMaker(
        "The decision maker, who reads what the others thought and writes the final function.",
        "Write the whole function in one Python code block. Write nothing after it.",
        states="words",
    ),
    "split_facts": DecisionMaker(
        "The decision maker, who knows nothing and answers the question.",
        "Answer the question.",
        answer_prefix="Answer:",
    ),
    "classification": DecisionMaker(
        "The decision maker, who knows the labels and names the one that fits.",
        "Answer with the label alone.",
        answer_prefix="Label:",
        states="words",
    ),
    "hidden_profile": DecisionMaker(
        "The decision maker, who knows what everybody knows and chooses.",
        "Count the points of each choice, then answer with one letter.",
        answer_prefix="Answer:",
        states="choice",
    ),
}


def decision_maker(domain: str, method: str = "refer") -> DecisionMaker:
    """The decision maker of a domain.

    Raises:
        ConfigError: unknown domain or method.
    """
    if domain not in DECISION_MAKERS:
        raise unknown("domain", domain, DECISION_MAKERS)
    return replace(DECISION_MAKERS[domain], method=method)
