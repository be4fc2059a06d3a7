"""The shape of a perceiver; apart from it, since the command line shows the defaults before torch is there."""

from __future__ import annotations

from dataclasses import dataclass

from gcache.errors import ConfigError
from gcache.runtime.numbers import require_whole


@dataclass(frozen=True)
class PerceiverConfig:
    """Its shape.

    Attributes:
        queries: K, the soft tokens.
        width: of the queries; heads: of attention, which divide it.
        blocks: L.

    Raises:
        ConfigError: a value that is not allowed.
    """

    queries: int = 16
    width: int = 256
    heads: int = 4
    blocks: int = 2

    def __post_init__(self) -> None:
        for name in ("queries", "width", "heads", "blocks"):
            require_whole(f"{name} of a perceiver", getattr(self, name), 1)
        if self.width % self.heads or self.width % 2:
            raise ConfigError(f"width must be even and a multiple of heads, got {self.width} and {self.heads}")
