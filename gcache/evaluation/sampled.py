"""Several draws of one prompt, and one of them chosen: what anybody would try before a graph.

    self_consistency   the answer that most draws state (Wang et al. 2023)
    best_of_n          the draw that the model finds likeliest, by the mean log-probability of its tokens

Both ask the same prompt as `single` (with the words of all notes, where a question deals some out) and draw the same
texts, so where texts are kept the second costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gcache.agents.decision import DecisionMaker
from gcache.evaluation.documents import every
from gcache.evaluation.method import Answer
from gcache.evaluation.one_prompt import in_one_prompt
from gcache.graph.loops import run_to_end
from gcache.graph.result import TOKENS
from gcache.graph.text_backends import LocalTextBackend, Prompt, TextOutput
from gcache.runtime.streams import derive
from gcache.tasks.example import Example


def most_stated(decision: DecisionMaker, texts: Sequence[TextOutput], question: str) -> int:
    """The number of the first text that states what most state; see `DecisionMaker.combine`."""
    return decision.combine([t.text for t in texts], [1.0] * len(texts), question, [t.cut for t in texts])


def likeliest(decision: DecisionMaker, texts: Sequence[TextOutput], question: str) -> int:
    """The number of the text of the highest mean log-probability among those that state an answer, or of all where none
    does."""
    stating = [i for i, t in enumerate(texts) if decision.stated(t.text, question, t.cut) is not None]
    return max(stating or range(len(texts)), key=lambda i: mean_log_prob(texts[i]))


def mean_log_prob(text: TextOutput) -> float:
    """Per token."""
    assert text.generation is not None
    return text.generation.log_prob / len(text.generation.tokens)


#: Chooses one of some texts.
Choose = Callable[[DecisionMaker, Sequence[TextOutput], str], int]


@dataclass(frozen=True)
class Sampled:
    """Draws `samples` texts of one prompt and chooses one.

    Args:
        decision: whose prompt it is, and how answers are read.
        choose: `most_stated` or `likeliest`.
        temperature: of the draws.
        question_order: where the question stands beside its notes; see `in_one_prompt`.
    """

    name: str
    backend: LocalTextBackend
    decision: DecisionMaker
    choose: Choose
    samples: int
    temperature: float
    max_new_tokens: int
    question_order: str = "first"

    def answer(self, examples: Sequence[Example], on_answer: Callable[[], None] = lambda: None) -> list[Answer]:
        """See `Method.answer`."""

        async def one(example: Example) -> Answer:
            asked = in_one_prompt(example, self.question_order).question
            texts = await asyncio.gather(*(self.backend.say(self._prompt(asked, n)) for n in range(self.samples)))
            on_answer()
            return self._answer(example, texts)

        async def together() -> list[Answer]:
            return list(await asyncio.gather(*(one(example) for example in examples)))

        return run_to_end(together, "answer", "await asyncio.to_thread(method.answer, ...)")

    def _prompt(self, question: str, number: int) -> Prompt:
        return Prompt(
            question, self.decision.instructions, (), self.max_new_tokens, self.decision.answer_prefix,
            self.temperature, derive("draw", question, number),
        )  # fmt: skip

    def _answer(self, example: Example, texts: Sequence[TextOutput]) -> Answer:
        chosen = texts[self.choose(self.decision, texts, example.question)]
        tokens = dict.fromkeys(TOKENS, 0)
        tokens["prefilled"] = sum(len(t.tokens) for t in texts)
        tokens["generated"] = sum(len(t.generation.tokens) for t in texts if t.generation is not None)
        cuts = tuple(t.cut for t in texts)
        return Answer(example, chosen.text, tokens, cut=chosen.cut, cuts=cuts, documents=every(example))
