"""Tasks whose questions are drawn, as many as are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from gcache.tasks.example import Example
from gcache.tasks.splits import numbered


class GeneratedTask(ABC):
    """Base of tasks that draw each question from its split, its seed and its number alone.

    So a smaller `limit` gives the first questions of a larger one.

    Attributes:
        train_size, test_size: how many questions a split has unless `limit` says otherwise.
    """

    train_size: int
    test_size: int

    @abstractmethod
    def draw(self, split: str, seed: int, index: int) -> Example:
        """A question of the split "train" or "test"."""

    def train(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        """Questions to learn from.

        Raises:
            ConfigError: `limit` is below 1, or `seed` is negative.
        """
        return [self.draw("train", seed, index) for index in numbered(limit, self.train_size, seed)]

    def test(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        """Questions about what no training question mentions.

        Raises:
            ConfigError: as for `train`.
        """
        return [self.draw("test", seed, index) for index in numbered(limit, self.test_size, seed)]
