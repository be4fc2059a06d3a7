"""What may be spent on an API."""

from __future__ import annotations

import threading

from gcache.errors import ApiError, BudgetSpent, ConfigError
from gcache.runtime.numbers import require_whole


class Budget:
    """So many tokens or requests, shared by whoever draws on it.

    Args:
        most: the limit; None for none.
        unit: "tokens" (read and written, by the server's count) or "requests" (attempts).

    A budget of tokens is known to be spent only after the fact: requests that are under way when
    it runs out are finished and counted.
    """

    UNITS = ("tokens", "requests")

    def __init__(self, most: int | None = None, unit: str = "requests") -> None:
        if most is not None:
            require_whole("api_budget", most, 1)
        self.most, self.unit = most, unit
        self.requests = 0
        self.read = 0
        self.written = 0
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        return self.read + self.written

    @classmethod
    def parse(cls, text: str) -> Budget:
        """From "500requests", "2e6tokens" or "2000000 tokens".

        Raises:
            ConfigError: anything else.
        """
        for unit in cls.UNITS:
            number = text.strip().removesuffix(unit).strip()
            if number != text.strip():
                try:
                    most = float(number)
                    if most == int(most):
                        return cls(int(most), unit)
                except (ValueError, OverflowError):
                    break
        raise ConfigError(f"api_budget is a whole number and a unit, such as 500requests or 2e6tokens, got {text!r}")

    def check(self) -> None:
        """Raises BudgetSpent where nothing is left."""
        spent = self.tokens if self.unit == "tokens" else self.requests
        if self.most is not None and spent >= self.most:
            raise BudgetSpent(f"the API budget of {self.most} {self.unit} is spent; raise --api_budget to go on")

    def attempt(self) -> None:
        """Count an attempt that is about to be made.

        Raises:
            BudgetSpent: nothing is left for it.
        """
        with self._lock:
            self.check()
            self.requests += 1

    def charge(self, read: int | None, written: int | None) -> None:
        """Count the tokens of an answer.

        Raises:
            ApiError: the budget is in tokens and the server does not count them.
        """
        if (read is None or written is None) and self.most is not None and self.unit == "tokens":
            raise ApiError("the server counts no tokens, so a budget in tokens cannot be kept; give --api_budget "
                           "in requests")  # fmt: skip
        self.add(read, written)

    def add(self, read: int | None, written: int | None) -> None:
        """Count the tokens of what is no answer, and is paid for all the same."""
        with self._lock:
            self.read += read or 0
            self.written += written or 0
