"""Where handed-on slots may go; apart from `positions`, since the command line names these before torch is there."""

from __future__ import annotations

from gcache.errors import unknown

#: `parallel`: siblings keep the positions they were computed at, as branches of a tree.
#: `sequential`: one after another, each re-rotated to start where the one before it ends.
POSITIONS = ("parallel", "sequential")


def check_positions(positions: str) -> None:
    """Raise ConfigError for a name that is not one of `POSITIONS`."""
    if positions not in POSITIONS:
        raise unknown("positions", positions, POSITIONS)
