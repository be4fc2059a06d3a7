"""Names of the cues that a policy may see besides embeddings; `gcache.gnn.cues` says what they are."""

from __future__ import annotations

from collections.abc import Sequence

from gcache.errors import ConfigError, unknown

#: Those known beforehand, and the messages.
KNOWN, MESSAGES = ("overlap", "content", "named"), ("cited", "citing")
CUES = (*KNOWN, *MESSAGES)


def check_cues(cues: Sequence[str]) -> None:
    """Raise ConfigError for one that is not of `CUES`, or is named twice."""
    for name in cues:
        if name not in CUES:
            raise unknown("cue", name, CUES)
    if len(set(cues)) < len(cues):
        raise ConfigError(f"cues must each be named once, got {', '.join(cues)}")
