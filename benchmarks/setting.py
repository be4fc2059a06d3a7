"""What is measured: a model, questions, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcache.agents.decision import decision_maker
from gcache.errors import ConfigError
from gcache.tasks.example import Example, Task
from gcache.tasks.registry import make_task

if TYPE_CHECKING:
    from gcache.llm.load.loading import LoadedModel
    from gcache.llm.local import LocalLLM

DOMAIN = "maths"
DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """How much is measured; every section is given the same.

    Attributes:
        questions: how many are asked.
        batch: rows of a forward pass, of the reference and of ours.
        latent_steps: of each agent.
        max_new_tokens: the most tokens of a text.
        repeats: how often everything that is timed is measured again.
        seed: of the choice of questions.
        dtype: of the models, one of `DTYPES`; auto is bfloat16 where the processor has instructions for it. It asks the
            processor, and not what the environment lets torch use of it.
    """

    questions: int = 64
    batch: int = 16
    latent_steps: int = 10
    max_new_tokens: int = 256
    repeats: int = 1
    seed: int = 0
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for name in ("questions", "batch", "latent_steps", "max_new_tokens", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"--dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")


@dataclass(frozen=True)
class Questions:
    """The questions of a run, and where they are from.

    Attributes:
        origin: in words, for the tables.
    """

    task: Task
    examples: tuple[Example, ...]
    origin: str

    @classmethod
    def of(cls, data: str | None, settings: Settings) -> Questions:
        """From a GSM8K file, or generated where none is named.

        Raises:
            DataError: the file is missing or broken.
        """
        if data is None:
            task, origin = make_task("gsm_symbolic"), "generated (gsm_symbolic)"
        else:
            task, origin = make_task("gsm8k", data, whole_file=True), f"GSM8K, {Path(data).name}"
        return cls(task, tuple(task.test(settings.questions, settings.seed)), origin)


@dataclass(frozen=True)
class Bench:
    """Everything a section needs.

    Attributes:
        name: the model, as the command line called it.
        loaded: its weights and tokenizer.
        llm: a `LocalLLM` around them.
    """

    settings: Settings
    questions: Questions
    name: str
    loaded: LoadedModel
    llm: LocalLLM

    @classmethod
    def of(cls, name: str, questions: Questions, settings: Settings) -> Bench:
        """Load a model.

        Raises:
            ModelError: it cannot be had.
        """
        from gcache.llm.load.loading import load_model

        loaded = load_model(name, settings.dtype)
        return cls(settings, questions, name, loaded, local_llm(loaded, settings))

    @property
    def examples(self) -> tuple[Example, ...]:
        return self.questions.examples

    def prompts(self) -> list[tuple[int, ...]]:
        """Each question as one chat prompt that asks for working and a number."""
        from gcache.agents.prompts import ChatLayout

        layout = ChatLayout.of(self.loaded.tokenizer)
        words, asked = decision_maker(DOMAIN).instructions, [example.question for example in self.examples]
        return [layout.question(q) + layout.agent(words, thinks=True, question=q) for q in asked]


def local_llm(loaded: LoadedModel, settings: Settings) -> LocalLLM:
    """Our model, in batches of the size that the reference has."""
    from gcache.llm.cache_budget import Limits
    from gcache.llm.local import LocalLLM

    model: Any = loaded.model
    return LocalLLM(model, loaded.tokenizer, limits=Limits(max_batch_size=settings.batch))
