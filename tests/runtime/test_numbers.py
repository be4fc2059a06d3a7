from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

from gcache.errors import ConfigError
from gcache.runtime.numbers import is_number, is_whole, require_whole


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [
        (3, True, True), (0.5, False, True), (3.0, False, True), (True, False, False), ("3", False, False),
        (None, False, False), (math.nan, False, False), (-math.inf, False, False), (10**400, True, True),
        (numpy.int64(3), True, True),
    ],
)  # fmt: skip
def test_what_is_a_number(value: Any, whole: bool, number: bool) -> None:
    assert (is_whole(value), is_number(value)) == (whole, number)


@pytest.mark.parametrize(
    ("value", "bounds", "said"),
    [
        (0, (1,), "size must be 1 or more, got 0"),
        (9, (1, 8, " for a box"), "size must be from 1 to 8 for a box, got 9"),
        (True, (1,), "size must be 1 or more, got True"),
        ("4", (1, 8), "size must be from 1 to 8, got '4'"),
        (1, (1, 8), ""),
        (8, (1, 8), ""),
    ],
)
def test_what_is_out_of_bounds_is_named(value: Any, bounds: tuple[Any, ...], said: str) -> None:
    try:
        require_whole("size", value, *bounds)
        found = ""
    except ConfigError as error:
        found = str(error)
    assert found == said
