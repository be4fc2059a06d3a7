"""Which link an edge between two models uses: what they share decides, or a flag."""

from __future__ import annotations

from collections.abc import Sequence

from gcache.errors import unknown
from gcache.links.link import AUTO, Link, ModelEnds
from gcache.links.registry import CHOICES, LINKS


def negotiated(sender: ModelEnds, receiver: ModelEnds, wanted: str = AUTO) -> str:
    """The kind of link between two models, one of `LINKS`.

    "auto" is the first built-in kind that the two allow: same for equal weights, vocab for one tokenizer, overlap for
    two that have enough tokens in common, else text. A perceiver has to be trained, so it has to be asked for.

    Raises:
        ConfigError: `wanted` is not one of `CHOICES`.
    """
    if wanted not in CHOICES:
        raise unknown("link", wanted, CHOICES)
    if wanted != AUTO:
        return wanted
    return next(name for name, kind in LINKS.built_in.items() if kind.allowed(sender, receiver))


def make_link(name: str, sender: ModelEnds, receiver: ModelEnds, files: Sequence[str] = ()) -> Link | None:
    """The link of a negotiated kind; None where nothing is carried (same, text).

    Args:
        files: of fitted links, one of which is for these two models.

    Raises:
        ConfigError: the two models do not allow it, or a fitted link without a file.
        DataError: the file is missing, broken, or made for other weights.
    """
    return LINKS[name].make(sender, receiver, files)
