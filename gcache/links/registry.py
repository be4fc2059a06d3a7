"""Links by name: when two models get one, and how it is made.

What makes a link is imported when one is made: names are known before torch is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcache.errors import ConfigError, DataError, PluginError
from gcache.links.link import AUTO, Link, ModelEnds
from gcache.runtime.registry import Deferred, Registry, lacks_methods, refuses

logger = logging.getLogger(__name__)

#: What models of the same weights get; nobody has to ask for it.
SAME = "same"


@dataclass(frozen=True)
class LinkKind:
    """A kind of link.

    Attributes:
        allowed: whether `--link auto` may take it for a sender and a receiver.
        make: it, from (sender, receiver, files of fitted links); None where nothing is carried.
        fitted: of what is read from a file, how to have one, in words; "" of all others.
        about: what has its docstring.
    """

    allowed: Callable[[ModelEnds, ModelEnds], bool]
    make: Callable[[ModelEnds, ModelEnds, Sequence[str]], Link | None]
    fitted: str = ""
    about: Any = None


def _same(sender: ModelEnds, receiver: ModelEnds) -> bool:
    """The cache itself, between models of the same weights. It is never asked for by name."""
    return bool(sender.fingerprint) and sender.fingerprint == receiver.fingerprint


def _vocab(sender: ModelEnds, receiver: ModelEnds) -> bool:
    """Hidden states through a linear map, between models of one tokenizer."""
    from gcache.links.vocabulary import same_vocabulary

    return same_vocabulary(sender.tokenizer, receiver.tokenizer)


def _overlap(sender: ModelEnds, receiver: ModelEnds) -> bool:
    """Hidden states through a linear map, between models whose tokenizers have 100 tokens in common."""
    from gcache.links.linear import FEWEST_TOKENS
    from gcache.links.vocabulary import common_tokens

    common = len(common_tokens(sender.tokenizer, receiver.tokenizer)[0])
    if common < FEWEST_TOKENS:
        logger.info("%s and %s have %d tokens in common, too few for overlap", sender.label, receiver.label, common)
    return common >= FEWEST_TOKENS


def _text(sender: ModelEnds, receiver: ModelEnds) -> bool:
    """The sender's words in the receiver's prompt, between any two models."""
    return True


def _never(sender: ModelEnds, receiver: ModelEnds) -> bool:
    """Of what has to be asked for."""
    return False


def _nothing(sender: ModelEnds, receiver: ModelEnds, files: Sequence[str]) -> None:
    """Where no states are carried."""


def _linear(name: str) -> Callable[[ModelEnds, ModelEnds, Sequence[str]], Link]:
    def make(sender: ModelEnds, receiver: ModelEnds, files: Sequence[str]) -> Link:
        from gcache.links.link_file import linear_link

        return linear_link(name, sender, receiver)

    return make


def _fitted(cls: Any, name: str, way_out: str) -> LinkKind:
    """Read by `cls.load` from the one of several files that is for the two models; where none is, what is wrong with
    the last."""

    def make(sender: ModelEnds, receiver: ModelEnds, files: Sequence[str]) -> Link:
        if not files:
            raise ConfigError(
                f"the link {name} from {sender.label!r} to {receiver.label!r} needs its fitted file; {way_out}, or use "
                "--link auto"
            )
        for file in files[:-1]:
            try:
                found: Link = cls.load(Path(file), sender, receiver)
                return found
            except DataError as error:
                logger.info("not for %s and %s: %s", sender.label, receiver.label, error)
        last: Link = cls.load(Path(files[-1]), sender, receiver)
        return last

    return LinkKind(_never, make, way_out, cls)


def _perceiver() -> LinkKind:
    from gcache.links.perceiver import Perceiver

    return _fitted(Perceiver, "perceiver", "make one with `gcache fit-perceiver` and pass it by --link_file")


_BUILT_IN = Deferred({
    SAME: lambda: LinkKind(_same, _nothing, about=_same),
    "vocab": lambda: LinkKind(_vocab, _linear("vocab"), about=_vocab),
    "overlap": lambda: LinkKind(_overlap, _linear("overlap"), about=_overlap),
    "perceiver": _perceiver,
    "text": lambda: LinkKind(_text, _nothing, about=_text),
})  # fmt: skip


def _wrong(found: Any) -> str:
    if not isinstance(found, type):
        return f"must be a class with carry, got {type(found).__name__}"
    lacking = lacks_methods(found, ("carry",))
    return lacking or ("" if hasattr(found, "load") else refuses(found, "sender", "receiver"))


def _adapted(found: Any) -> LinkKind:
    """A stranger's link: made of the two models, or read by its `load` from a file that the user names."""
    if hasattr(found, "load"):
        return _fitted(found, found.__name__, "pass it by --link_file")

    def make(sender: ModelEnds, receiver: ModelEnds, files: Sequence[str]) -> Link:
        import torch

        made = found(sender, receiver)
        if not isinstance(made, Link):
            raise PluginError(f"the link {found.__name__} lacks name; see gcache.links.link.Link")
        with torch.no_grad():
            got = tuple(made.carry(sender.w_out.new_zeros(2, sender.w_out.shape[1])).shape)
        if len(got) != 2 or got[1] != receiver.w_in.shape[1]:
            raise PluginError(
                f"the link {found.__name__} must give (S', {receiver.w_in.shape[1]}) embeddings for "
                f"{receiver.label!r}, got {got}"
            )
        return made

    return LinkKind(_never, make, about=found)


#: The built-in ones stand in the order in which `--link auto` tries them: what loses least comes first.
LINKS: Registry[LinkKind] = Registry("link", "gcache.links", _BUILT_IN, _wrong, _adapted, lambda kind: kind.about)


class _Choices(Collection[str]):
    """What a user may ask for: AUTO, and every link but SAME."""

    #: Without plug-ins.
    built_in = (AUTO, *(name for name in LINKS.built_in if name != SAME))

    def __contains__(self, name: object) -> bool:
        return name == AUTO or (name != SAME and name in LINKS)

    def __iter__(self) -> Iterator[str]:
        return iter((AUTO, *(name for name in LINKS if name != SAME)))

    def __len__(self) -> int:
        return len(LINKS)


CHOICES = _Choices()
