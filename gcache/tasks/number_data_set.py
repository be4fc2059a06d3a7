"""A task whose questions come from a file or the hub, and whose answers are numbers."""

from __future__ import annotations

from pathlib import Path

from gcache.tasks.data_set import DataSet
from gcache.tasks.grading import NumberTask, accepts


class NumberDataSet(NumberTask, DataSet):
    """Base of these tasks.

    Args:
        data, whole_file: see `DataSet`.
        accept_last_number: see `NumberTask`.
    """

    #: Worked solutions need room: of texts cut at 256 tokens, about half never come to an answer.
    max_new_tokens = 768

    def __init__(
        self, data: str | Path | None = None, whole_file: bool = False, accept_last_number: bool = False
    ) -> None:
        self.accept_last_number = accepts(accept_last_number)
        super().__init__(data, whole_file)
