"""The shape of a perceiver; apart from it, since the command line shows the defaults before torch is there."""

from __future__ import annotations

from dataclasses import dataclass

from gcache.errors import ConfigError
from gcache.runtime.settings import Settings, setting


@dataclass(frozen=True)
class PerceiverConfig(Settings):
    """Its shape.

    Raises:
        ConfigError: a value that is not allowed.
    """

    queries: int = setting(16, help="soft tokens that cross (K)", at_least=1)
    width: int = setting(256, help="of a query", group="fitting", at_least=1)
    heads: int = setting(4, help="of attention, which divide the width", group="fitting", at_least=1)
    blocks: int = setting(2, help="of attention and thought (L)", group="fitting", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads or self.width % 2:
            raise ConfigError(f"width must be even and a multiple of heads, got {self.width} and {self.heads}")
