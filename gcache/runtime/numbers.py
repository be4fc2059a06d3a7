"""Numbers that come from outside: from a caller, a flag or a file."""

from __future__ import annotations

import math
from numbers import Integral
from typing import TypeGuard

from gcache.errors import ConfigError


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number; true and false are none.

    >>> is_whole(3), is_whole(3.0), is_whole(True)
    (True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number; true and false are none.

    >>> is_number(3), is_number(0.5), is_number(float("nan")), is_number(True)
    (True, True, False, False)
    """
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def require_whole(name: str, value: object, least: int, most: int | None = None, note: str = "") -> None:
    """Refuse what is no whole number within its bounds, both included.

    Args:
        name: of the parameter; note: what the message says behind the bounds.

    Raises:
        ConfigError: naming the parameter, the bounds and the value.

    >>> require_whole("rank", 0, 1)
    Traceback (most recent call last):
    gcache.errors.ConfigError: rank must be 1 or more, got 0
    """
    if not is_whole(value) or value < least or (most is not None and value > most):
        bounds = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name} must be {bounds}{note}, got {value!r}")
