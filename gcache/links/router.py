"""Which link a question goes over: a classifier of questions, for graphs whose link depends on what is asked.

What a text is about survives a few soft tokens; a calculation or a name does not. So questions that ask for one of
some labels go over the perceiver, and those that take reasoning over the other link. Logistic regression on the
question's sentence embedding, fitted on questions of tasks that are known to be one or the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gcache.errors import ConfigError, DataError
from gcache.gnn.features import Encoder, make_encoder
from gcache.links.sealed_file import is_there, read_sealed, write_sealed
from gcache.runtime.numbers import is_number

#: What a question may ask for.
ROUTES = ("classification", "reasoning")
_RIDGE = 1e-3


@dataclass(frozen=True)
class Router:
    """The classifier.

    Attributes:
        encoder: its name, by which it is made again; encode: the encoder itself.
        weights: (E,), bias: of the log-odds of classification.
    """

    encoder: str
    encode: Encoder
    weights: Tensor
    bias: float

    def route(self, question: str) -> str:
        """One of `ROUTES`."""
        odds = float(self.encode.encode([question])[0] @ self.weights) + self.bias
        return ROUTES[0] if odds > 0 else ROUTES[1]

    def save(self, path: Path) -> None:
        """Write its file in one step."""
        write_sealed(path, "gcache_router", {"encoder": self.encoder, "bias": self.bias}, {"weights": self.weights})

    @classmethod
    def load(cls, path: Path) -> Router:
        """Read its file.

        Raises:
            DataError: it is missing or broken.
        """
        if not is_there(path):
            raise DataError(f"no router file {str(path)!r}; make one with `gcache fit-router`, or use --route none")
        tensors, header = read_sealed(path, "gcache_router", "router file")
        try:
            encoder, weights, bias = make_encoder(header["encoder"]), tensors["weights"], header["bias"]
        except (KeyError, TypeError, ConfigError) as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DataError(f"router file {path} cannot be read ({why}); make it anew") from error
        if tuple(weights.shape) != (encoder.dim,) or weights.dtype != torch.float32:
            got = f"{tuple(weights.shape)} of {weights.dtype}"
            raise DataError(f"router file {path} has weights {got}, not ({encoder.dim},) of float32; make it anew")
        if not is_number(bias):
            raise DataError(f"router file {path} has the bias {bias!r}, not a finite number; make it anew")
        return cls(header["encoder"], encoder, weights, float(bias))


def fit_router(questions: Mapping[str, Sequence[str]], encoder: str = "minilm") -> Router:
    """Fit on questions of each route, which weigh the same however many there are.

    Raises:
        ConfigError: a route without questions.
    """
    for name in ROUTES:
        if not questions.get(name):
            raise ConfigError(f"no question is of the route {name!r}; name a task for each of {', '.join(ROUTES)}")
    made = make_encoder(encoder)
    x = torch.cat([made.encode(list(questions[name])) for name in ROUTES])  # (N, E)
    y = torch.cat([torch.full((len(questions[name]),), float(name == ROUTES[0])) for name in ROUTES])
    share = torch.where(y > 0, len(y) / (2 * y.sum()), len(y) / (2 * (1 - y).sum()))
    weights = torch.zeros(x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        odds = x @ weights[:-1] + weights[-1]
        value = torch.nn.functional.binary_cross_entropy_with_logits(odds, y, share)
        value = value + _RIDGE * weights[:-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    found = weights.detach()
    return Router(encoder, made, found[:-1].clone(), float(found[-1]))


def confusion(router: Router, questions: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """What they are -> what the router says -> how many questions; the same question counts once."""
    table = {actual: dict.fromkeys(ROUTES, 0) for actual in questions}
    for actual, asked in questions.items():
        for question in dict.fromkeys(asked):
            table[actual][router.route(question)] += 1
    return table
