"""GSM-symbolic: word problems drawn from templates of GSM8K questions, with new names and numbers.

Mirzadeh et al., "GSM-Symbolic: Understanding the Limitations of Mathematical Reasoning in Large
Language Models", 2024 (arXiv:2410.05229), in the implementation of the package reasoning-gym.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gcache.errors import ConfigError, DataError
from gcache.runtime.numbers import require_whole
from gcache.tasks.example import Example
from gcache.tasks.grading import NumberTask, accepts
from gcache.tasks.splits import Split, check_limit, is_held_out

MOST = 100_000  # questions of one split and seed
_BLOCK = 1024  # questions generated at a time
_SEEDS = 1 << 20  # generator seeds that a split may use up: 10 candidates a question


class GsmSymbolic(NumberTask):
    """Word problems from templates of GSM8K questions, with new names and numbers.

    Every split is generated from its seed alone, so equal calls give equal questions,
    and a smaller `limit` gives the first questions of a larger one.

    No question text is in both splits, whatever their sizes and seeds: they come from different
    generator seeds, and of those candidates only a fifth, chosen by a hash of the text, may be
    test questions, only the rest training questions. Within a split no text occurs twice. Both
    splits do share the 85 templates.

    Args:
        train_size, test_size: how many questions a split has unless `limit` says otherwise.
        accept_last_number: see `NumberTask`.

    Raises:
        ConfigError: a size or limit is not from 1 to `MOST`, or a seed is negative.
        DataError: reasoning-gym is not installed; raised by `train` and `test`.
    """

    name: str = "gsm_symbolic"
    domain: str = "maths"
    max_new_tokens: int = 768

    def __init__(self, train_size: int = 4096, test_size: int = 512, accept_last_number: bool = False) -> None:
        for option, size in (("train_size", train_size), ("test_size", test_size)):
            require_whole(option, size, 1, MOST)
        self.train_size = train_size
        self.test_size = test_size
        self.accept_last_number = accepts(accept_last_number)

    def train(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        """The first `limit` (or `train_size`) training questions of this seed."""
        return _questions("train", self.train_size if limit is None else limit, seed)

    def test(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        """The first `limit` (or `test_size`) test questions of this seed."""
        return _questions("test", self.test_size if limit is None else limit, seed)


def _questions(split: Split, size: int, seed: int) -> list[Example]:
    check_limit(size, seed)
    require_whole("limit", size, 1, MOST, " for gsm_symbolic")
    examples: list[Example] = []
    seen: set[str] = set()
    first = (2 * seed + (split == "test")) * _SEEDS
    for question, answer in _candidates(first):
        if is_held_out(question) != (split == "test") or question in seen:
            continue
        seen.add(question)
        examples.append(Example(f"gsm_symbolic-{split}-{seed}-{len(examples)}", question, answer))
        if len(examples) == size:
            return examples
    raise ConfigError(
        f"limit is {size}, but seed {seed} gives only {len(examples)} {split} questions; ask for fewer"
    )


def _candidates(first: int) -> Iterator[tuple[str, str]]:
    """Questions with their answers, from the generator seeds `first` to `first + _SEEDS`."""
    try:
        from reasoning_gym import create_dataset
    except ImportError as error:
        raise DataError(
            "gsm_symbolic needs the package 'reasoning-gym', which is not installed; "
            "run pip install reasoning-gym, or choose the task gsm8k"
        ) from error
    for start in range(first, first + _SEEDS, _BLOCK):
        block = create_dataset("gsm_symbolic", seed=start, size=_BLOCK)
        for index in range(_BLOCK):
            item = block[index]
            yield item["question"], item["answer"]
