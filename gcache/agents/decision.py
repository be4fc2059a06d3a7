"""Decision makers: how the last agent turns what it was handed into an answer.

    refer     it hears everyone at once and writes one answer
    direct    it hears only the heaviest edge and writes one answer
    vote      it hears each edge alone and writes an answer to each; the weightiest answer wins
    marginal  it hears each edge alone and writes nothing: how likely each answer is under each cache decides
              (`gcache.graph.marginal`)

The first three are ways to group the incoming caches, so they share prompts, fuser and log-probability.

A decision maker that is handed solutions judges: it states an answer of these, and works out none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gcache.errors import unknown
from gcache.tasks.stated import KINDS, is_same, stated

DECISIONS = ("refer", "direct", "vote", "marginal")


@dataclass(frozen=True)
class Candidate:
    """An answer that texts state.

    Attributes:
        answer: what is stated.
        texts: the numbers of the texts that state it.
    """

    answer: str
    texts: tuple[int, ...]


@dataclass(frozen=True)
class DecisionMaker:
    """The agent that answers.

    Attributes:
        description: one sentence; its embedding is the role's feature.
        instructions: what its prompt says after the question.
        answer_prefix: words put into its mouth, from which its text goes on; they are not part
            of the answer.
        method: one of `DECISIONS`.
        states: what an answer states, by which votes are compared; one of `gcache.tasks.stated.KINDS`.
        statement: how an answer is to be stated, which agents who write solutions are told as well.
        judging, judging_prefix: its instructions and prefix where it is handed solutions.

    Raises:
        ConfigError: unknown method, or unknown kind of answer.
    """

    description: str
    instructions: str
    answer_prefix: str = ""
    method: str = "refer"
    states: str = "number"
    statement: str = ""
    judging: str = "Decide which answer is right and state it alone."
    judging_prefix: str = ""

    def __post_init__(self) -> None:
        if self.method not in DECISIONS:
            raise unknown("decision method", self.method, DECISIONS)
        if self.states not in KINDS:
            raise unknown("kind of answer", self.states, KINDS)

    @property
    def hears_together(self) -> bool:
        """Whether one text, or one choice, is of several incoming caches."""
        return self.method in ("refer", "marginal")

    def groups(self, weights: Sequence[float]) -> list[tuple[int, ...]]:
        """Which incoming caches, by number, are heard together; one text is written per group."""
        everyone = tuple(range(len(weights)))
        if not weights or self.method == "refer":
            return [everyone]
        if self.method == "direct":
            return [(max(everyone, key=lambda i: weights[i]),)]
        return [(i,) for i in everyone]

    def combine(
        self, texts: Sequence[str], weights: Sequence[float], question: str = "", cut: Sequence[bool] = ()
    ) -> int:
        """The number of the answer's text: the first of those that state the answer that weighs most.

        Texts that state nothing have no vote. Where all state nothing, they are compared as they stand. Of answers that
        weigh the same, the one that was stated first wins.

        Args:
            cut: of each text, whether a length limit cut it off; () where none was.
        """
        found = self.candidates(texts, question, cut)
        if not found:
            alike: dict[str, list[int]] = {}
            for number, text in enumerate(texts):
                alike.setdefault(text.strip(), []).append(number)
            found = [Candidate(words, tuple(numbers)) for words, numbers in alike.items()]
        heaviest = max(found, key=lambda candidate: sum(weights[i] for i in candidate.texts))
        return heaviest.texts[0]

    def candidates(self, texts: Sequence[str], question: str = "", cut: Sequence[bool] = ()) -> list[Candidate]:
        """The different answers that texts state, in the order in which they are first stated."""
        found: list[Candidate] = []
        for number, text in enumerate(texts):
            answer = self.stated(text, question, bool(cut) and cut[number])
            if answer is None:
                continue
            same = next((n for n, c in enumerate(found) if is_same(self.states, c.answer, answer)), None)
            if same is None:
                found.append(Candidate(answer, (number,)))
            else:
                found[same] = replace(found[same], texts=(*found[same].texts, number))
        return found

    def stated(self, text: str, question: str = "", cut: bool = False) -> str | None:
        """The answer that a text states; see `gcache.tasks.stated`."""
        return stated(self.states, text, question, cut, self.answer_prefix.strip())

    @property
    def states_words(self) -> bool:
        """Whether an answer may be as long as a text."""
        return self.states not in ("number", "choice")

    def written(self, answer: str) -> str:
        """An answer as it stands behind the judging prefix."""
        return f" ({answer})" if self.states == "choice" else f" {answer}"


JUDGE = "Decide which choice is right and answer with its letter alone."
CHOICE = "The answer is"
STATE_CHOICE = (
    "Then write on the last line: The answer is (X), with the letter of the right choice for X."
)
CHOOSE = f"Think step by step and write your reasoning. {STATE_CHOICE}"
SHORT_ANSWER = "The answer, in a few words, is:"
STATE_NUMBER = "Write the final number on the last line after ####."

DECISION_MAKERS: Mapping[str, DecisionMaker] = {
    "maths": DecisionMaker(
        "The decision maker, who reads what the others thought and states the number.",
        f"Think step by step and write your working. {STATE_NUMBER}",
        statement=STATE_NUMBER,
        judging="Decide which number is right and state it alone.",
        judging_prefix="####",
    ),
    "science": DecisionMaker(
        "The decision maker, who reads what the others thought and states the letter of the right choice.",
        CHOOSE,
        states="choice",
        statement=STATE_CHOICE,
        judging=JUDGE,
        judging_prefix=CHOICE,
    ),
    "medicine": DecisionMaker(
        "The decision maker, a senior doctor who reads what the others thought and states the right choice.",
        CHOOSE,
        states="choice",
        statement=STATE_CHOICE,
        judging=JUDGE,
        judging_prefix=CHOICE,
    ),
    "knowledge": DecisionMaker(
        "The decision maker, who reads what the others thought and states the letter of the right choice.",
        CHOOSE,
        states="choice",
        statement=STATE_CHOICE,
        judging=JUDGE,
        judging_prefix=CHOICE,
    ),
    "code": DecisionMaker(
        "The decision maker, who reads what the others thought and writes the final function.",
        "Write the whole function in one Python code block. Write nothing after it.",
        states="words",
        judging="Write the function that is right, whole, in one Python code block. Write nothing after it.",
    ),
    "split_facts": DecisionMaker(
        "The decision maker, who knows nothing and answers the question.",
        "Answer the question.",
        answer_prefix="Answer:",
        statement="Write the answer on the last line after Answer:",
        judging_prefix="Answer:",
        states="fact",
    ),
    "classification": DecisionMaker(
        "The decision maker, who knows the labels and names the one that fits.",
        "Answer with the label alone.",
        answer_prefix="Label:",
        statement="Write the label on the last line after Label:",
        judging="Decide which label is right and answer with it alone.",
        judging_prefix="Label:",
        states="short",
    ),
    "hidden_profile": DecisionMaker(
        "The decision maker, who knows what everybody knows and chooses.",
        "Count the points of each choice, then answer with one letter.",
        answer_prefix="Answer:",
        states="choice",
        statement="Write on the last line: Answer: (X), with the letter of the right choice for X.",
        judging=JUDGE,
        judging_prefix="Answer:",
    ),
    "reading": DecisionMaker(
        "The decision maker, who has the question and none of the documents, and answers it in a few words.",
        "Give only the answer itself: a name, a place, a date, a number, yes or no. Write no sentence.",
        answer_prefix=SHORT_ANSWER,
        states="short",
        statement=f"Write on the last line: {SHORT_ANSWER} X, with the answer for X.",
        judging="Decide which answer is right and state it alone.",
        judging_prefix=SHORT_ANSWER,
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
