"""Which link an edge between two models uses: what they share decides, or a flag."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from gcache.errors import ConfigError, DataError, unknown
from gcache.links.linear import FEWEST_TOKENS
from gcache.links.link import AUTO, CHOICES, Link, ModelEnds
from gcache.links.link_file import linear_link
from gcache.links.perceiver import Perceiver
from gcache.links.vocabulary import common_tokens, same_vocabulary

logger = logging.getLogger(__name__)


def negotiated(sender: ModelEnds, receiver: ModelEnds, wanted: str = AUTO) -> str:
    """The kind of link between two models, one of `LINKS`.

    "auto" is same for equal weights, vocab for one tokenizer, overlap for two that have enough tokens in common, else
    text: a perceiver has to be trained, so it has to be asked for.

    Raises:
        ConfigError: `wanted` is not one of `CHOICES`.
    """
    if wanted not in CHOICES:
        raise unknown("link", wanted, CHOICES)
    if wanted != AUTO:
        return wanted
    if sender.fingerprint and sender.fingerprint == receiver.fingerprint:
        return "same"
    if same_vocabulary(sender.tokenizer, receiver.tokenizer):
        return "vocab"
    common = len(common_tokens(sender.tokenizer, receiver.tokenizer)[0])
    if common >= FEWEST_TOKENS:
        return "overlap"
    logger.info(
        "%s and %s have %d tokens in common: their agents hand each other text", sender.label, receiver.label, common
    )
    return "text"


def make_link(name: str, sender: ModelEnds, receiver: ModelEnds, files: Sequence[str] = ()) -> Link | None:
    """The link of a negotiated kind; None where nothing is carried (same, text).

    Args:
        files: of perceivers, one of which is for these two models.

    Raises:
        ConfigError: the two models do not allow it, or a perceiver without a file.
        DataError: the file is missing, broken, or made for other weights.
    """
    if name in ("same", "text"):
        return None
    if name != "perceiver":
        return linear_link(name, sender, receiver)
    if not files:
        raise ConfigError(
            f"the link perceiver from {sender.label!r} to {receiver.label!r} needs its fitted file; make one with "
            "`gcache fit-perceiver` and pass it by --link_file, or use --link auto"
        )
    return _fitted(sender, receiver, files)


def _fitted(sender: ModelEnds, receiver: ModelEnds, files: Sequence[str]) -> Perceiver:
    """The perceiver for two models among several files; where none is for them, what is wrong with the last."""
    for file in files[:-1]:
        try:
            return Perceiver.load(Path(file), sender, receiver)
        except DataError as error:
            logger.info("not for %s and %s: %s", sender.label, receiver.label, error)
    return Perceiver.load(Path(files[-1]), sender, receiver)
