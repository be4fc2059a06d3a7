"""A link's file: safetensors, whose header says what it is and which two models it is for.

What can be computed from two models alone (vocab, overlap) is kept under ``cache_home()/links`` by the content of the
two, and computed again where it is missing or broken. What was learned (perceiver) is a file that its user names.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gcache.environment import cache_home
from gcache.errors import DataError
from gcache.links.linear import LinearLink, fit_overlap, fit_vocab
from gcache.links.link import ModelEnds
from gcache.links.sealed_file import is_there, read_sealed, write_sealed

logger = logging.getLogger(__name__)

_FITS = {"vocab": fit_vocab, "overlap": fit_overlap}


def write_link(
    path: Path, name: str, sender: str, receiver: str, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Write a link's file in one step.

    Args:
        sender, receiver: fingerprints of the two models.
        rest: what else there is to know; JSON.
    """
    header = {"link": name, "sender": sender, "receiver": receiver, **rest}
    write_sealed(path, "gcache", header, tensors)


def read_link(
    path: Path, name: str, sender: ModelEnds, receiver: ModelEnds
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a link's file.

    Raises:
        DataError: no such file, a broken one, one of another kind of link, or one made for other weights.
    """
    if not is_there(path):
        raise DataError(f"no link file {str(path)!r}; make one with `gcache fit-perceiver`, or use another --link")
    tensors, header = read_sealed(path, "gcache", "link file")
    found = [header.get(field) for field in ("link", "sender", "receiver")]
    if not all(isinstance(each, str) for each in found):
        raise DataError(f"link file {path} cannot be read (it does not say what it is for); make it anew")
    if found[0] != name:
        raise DataError(f"link file {path} is of the link {found[0]}, not {name}; pass --link {found[0]}")
    for end, model, fingerprint in (("sender", sender, found[1]), ("receiver", receiver, found[2])):
        if model.fingerprint != fingerprint:
            raise DataError(
                f"link file {path} was made for the {end} {fingerprint}, but {model.label!r} is {model.fingerprint}; "
                "make it anew for these two models"
            )
    return tensors, header


def linear_link(name: str, sender: ModelEnds, receiver: ModelEnds) -> LinearLink:
    """The link vocab or overlap between two models: the one kept for them, or made and kept now.

    Raises:
        ConfigError: the two do not allow it.
    """
    path = kept_at(name, sender, receiver)
    if path.is_file():
        try:
            tensors, header = read_link(path, name, sender, receiver)
            return _linear(name, tensors["matrix"].to(receiver.w_in.device), header, sender, receiver)
        except (DataError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s; computing it again", error)
    made = _FITS[name](sender, receiver)
    logger.info(
        "link %s from %s to %s, through %d tokens that both have", name, sender.label, receiver.label, made.tokens
    )
    try:
        rest = {"norm": made.norm, "tokens": made.tokens}
        write_link(path, name, sender.fingerprint, receiver.fingerprint, {"matrix": made.matrix}, rest)
    except OSError as error:
        logger.warning("the link cannot be kept at %s (%s); it is computed anew each time", path, error)
    return made


def _linear(
    name: str, matrix: Tensor, header: Mapping[str, Any], sender: ModelEnds, receiver: ModelEnds
) -> LinearLink:
    expected = (sender.w_out.shape[1], receiver.w_in.shape[1])
    norm = float(header["norm"])
    if tuple(matrix.shape) != expected or not matrix.is_floating_point() or not 0 < norm < math.inf:
        raise ValueError(
            f"the kept link {name} has a matrix {tuple(matrix.shape)} of {matrix.dtype} and the norm {norm}, not "
            f"{expected}"
        )
    return LinearLink(name, matrix, norm, int(header["tokens"]))


def kept_at(name: str, sender: ModelEnds, receiver: ModelEnds) -> Path:
    """Where the link is kept: by all that its matrix depends on."""
    digest = hashlib.sha256()
    for model, weights in ((sender, sender.w_out), (receiver, receiver.w_in)):
        vocabulary = sorted(model.tokenizer.get_vocab().items())
        size = float(weights[:64].float().norm())  # a module may scale its table, which no fingerprint tells
        digest.update(f"{model.fingerprint} {weights.dtype} {tuple(weights.shape)} {size:.3e} {vocabulary}\n".encode())
    return cache_home() / "links" / f"{name}-{digest.hexdigest()[:32]}.safetensors"
