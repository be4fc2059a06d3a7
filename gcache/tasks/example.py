"""One question of a task, and what a scorer says of one answer.

These records are all that the rest of the package knows of a task: a question, the right
answer, and, where the task deals knowledge out, one private note per agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

Outcome = Literal["right", "wrong", "unparsed", "unstated"]


@dataclass(frozen=True)
class Note:
    """What one agent privately knows.

    Attributes:
        role: the agent's role, as a short noun phrase ("the librarian").
        description: one sentence about the role; its embedding is the role's feature.
        text: the private knowledge. It stands in that agent's prompt and nowhere else.
        kind: a label for tables of learned edges ("asked", "other", "gossip"); never shown to a
            model or to the policy.
        cites: the roles of other notes that the text names, as a list of links would say. Public: the policy may see
            it (`gcache.gnn.cues`).
    """

    role: str
    description: str
    text: str
    kind: str = "agent"
    cites: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """One question.

    Attributes:
        id: unique within its task and split.
        question: the text every agent sees.
        answer: the right answer, in the form the task's scorer compares with.
        notes: one per agent where the task brings its own agents, else empty.
        meta: whatever a reader of results may want to group by.
    """

    id: str
    question: str
    answer: str
    notes: tuple[Note, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Grade:
    """The scorer's verdict.

    Attributes:
        outcome: `unparsed` where the scorer found no answer and did not guess one; `unstated` where it found a number
            that merely stands last. The utility of both is 0, as a wrong answer's is, but they are counted apart.
        answer: what was read.
        last_number: whether a number that merely stands last was accepted as the answer, where a task's option says so.
        f1: overlap of the answer's words with the right one's (`gcache.tasks.answer_overlap`); None where answers are
            right or not.
        worth: the utility, where it is something else than 1 for a right answer and 0 for any other.
    """

    outcome: Outcome
    answer: str | None = None
    last_number: bool = False
    f1: float | None = None
    worth: float | None = None

    @property
    def utility(self) -> float:
        """What training goes by."""
        if self.worth is not None:
            return self.worth
        return 1.0 if self.outcome == "right" else 0.0

    @property
    def unstated(self) -> bool:
        """Whether the text states no answer, but has a number that stands last."""
        return self.last_number or self.outcome == "unstated"


@runtime_checkable
class Task(Protocol):
    """A data set with its scorer. `domain` names the set of roles in `gcache.agents` that
    works on it; `max_new_tokens` is the answer length that suits it."""

    @property
    def name(self) -> str: ...

    @property
    def domain(self) -> str: ...

    @property
    def max_new_tokens(self) -> int: ...

    def train(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]: ...

    def test(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]: ...

    def grade(self, text: str, example: Example) -> Grade: ...


class Graded(Protocol):
    """A grade, or a record of one."""

    @property
    def f1(self) -> float | None: ...


def f1s_of(graded: Sequence[Graded]) -> tuple[float, ...]:
    """The F1 of each; () where answers are right or not."""
    found = tuple(each.f1 for each in graded if each.f1 is not None)
    return found if len(found) == len(graded) else ()


def grade_text(task: Task, text: str, example: Example, cut: bool = False) -> Grade:
    """A task's grade of a text.

    Args:
        cut: whether a length limit cut the text off. A task that has a `grade_cut` is asked for that, then: of a text
            that breaks off in "the answer is 1" nobody knows the number.

    Raises:
        GradingError: what grades it failed, such as the sandbox that its program would have run in.
    """
    of_a_cut_text = getattr(task, "grade_cut", None) if cut else None
    return of_a_cut_text(text, example) if of_a_cut_text else task.grade(text, example)
