"""Where two greedy texts of one prompt part, and how close the two tokens were there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq
from statistics import mean
from typing import Any

import torch

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Parting:
    """One prompt whose texts differ.

    Attributes:
        prompt: its number.
        place: the first token that differs, 0 for the first written.
        gap: between the fp32 logits of the two tokens there; positive where the reference's is
            the greater. None where one text is the beginning of the other.
        top_gap: between the two greatest fp32 logits there.
    """

    prompt: int
    place: int
    gap: float | None
    top_gap: float


@dataclass(frozen=True)
class Agreement:
    """How many of n prompts have the same tokens, and where the others part."""

    n: int
    identical: int
    partings: tuple[Parting, ...]


def compare(model: Any, prompts: Sequence[Tokens], reference: Sequence[Tokens], ours: Sequence[Tokens]) -> Agreement:
    """Compare two lists of texts.

    Args:
        model: in fp32; it judges where texts part.
    """
    rows = list(zip(prompts, reference, ours, strict=True))
    partings = [_parting(model, number, *row) for number, row in enumerate(rows) if row[1] != row[2]]
    return Agreement(len(rows), len(rows) - len(partings), tuple(partings))


@dataclass(frozen=True)
class Leading:
    """How many tokens two lists of texts have in common before they part.

    Attributes:
        common: of each pair, the leading tokens that are the same.
        most: of each pair, the tokens of the shorter one.
        identical: pairs that do not part.
        mean: of `common`.
    """

    common: tuple[int, ...]
    most: tuple[int, ...]
    identical: int
    mean: float


def leading(reference: Sequence[Tokens], ours: Sequence[Tokens]) -> Leading:
    """Compare two lists of texts without a model that judges."""
    pairs = list(zip(reference, ours, strict=True))
    most = tuple(min(map(len, pair)) for pair in pairs)
    common = tuple(_place(*pair) for pair in pairs)
    return Leading(common, most, sum(map(eq, common, most)), mean(common))


def _place(reference: Tokens, ours: Tokens) -> int:
    """The first token that differs; the length of the shorter one where none does."""
    shorter = min(len(reference), len(ours))
    return next((i for i in range(shorter) if reference[i] != ours[i]), shorter)


def _parting(model: Any, number: int, prompt: Tokens, reference: Tokens, ours: Tokens) -> Parting:
    shorter, place = min(len(reference), len(ours)), _place(reference, ours)
    ids = torch.tensor([prompt + reference[:place]], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=ids, logits_to_keep=1).logits[0, -1].float()
    best = logits.topk(2).values
    gap = float(logits[reference[place]] - logits[ours[place]]) if place < shorter else None
    return Parting(number, place, gap, float(best[0] - best[1]))
