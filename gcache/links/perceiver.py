"""A learned link: a few soft tokens that read what the sender thought.

    x    = (h - mean) / deviation                           of the sender's last hidden states, per dimension
    q_0  = K learned queries
    q    = q + Attention(q, x W_x + P); q + Attention(q, q); q + FFN(q)              L times, normed before each
    e    = mean_B + deviation_B * (q W_e)                   per dimension of the receiver's input embeddings
    e    = e |w_B| / |e|                                    |w_B| the mean norm of their rows

After Jaegle et al. 2021, "Perceiver", and the resampler of Alayrac et al. 2022, "Flamingo". The sender's mean and
deviation are gathered while it is fitted (`observe`) and stand still afterwards. Whatever was thought, K embeddings
cross, so what a text is about gets through better than its exact words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcache.errors import ConfigError, DataError
from gcache.links.link import ModelEnds
from gcache.links.link_file import read_link, write_link
from gcache.links.perceiver_config import PerceiverConfig


class Perceiver(nn.Module):
    """Hidden states as learned soft tokens, fitted for two models. `carry` is for use, `forward` for fitting.

    Args:
        sender: width of the sender's hidden states.
        receiver: mean, deviation (E_B,) and mean norm of the receiver's input embeddings; see `embedding_statistics`.
    """

    name = "perceiver"
    to_mean: Tensor
    to_deviation: Tensor
    to_norm: Tensor
    seen: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, config: PerceiverConfig, sender: int, receiver: tuple[Tensor, Tensor, float]) -> None:
        super().__init__()
        self.config = config
        mean, deviation, norm = receiver
        for key, value in (("to_mean", mean), ("to_deviation", deviation), ("to_norm", torch.tensor(norm))):
            self.register_buffer(key, value.float())
        # sums over all states that were observed, in float64: they are many
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))
        for key in ("total", "squares"):
            self.register_buffer(key, torch.zeros(sender, dtype=torch.float64))
        self.queries = nn.Parameter(torch.randn(config.queries, config.width) / config.width**0.5)
        self.enter = nn.Linear(sender, config.width)
        self.blocks = nn.ModuleList(_Block(config.width, config.heads) for _ in range(config.blocks))
        self.leave = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, len(mean)))

    @torch.no_grad()
    def observe(self, states: Tensor) -> None:
        """Count (S, E) states into the sender's mean and deviation."""
        wide = states.double()
        self.seen += len(wide)
        self.total += wide.sum(dim=0)
        self.squares += wide.square().sum(dim=0)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """(B, K, E_B) embeddings of B senders' states, (S_b, E) each, of any lengths.

        Raises:
            ConfigError: no states, or of another width.
        """
        width = self.total.shape[0]
        for each in states:
            if each.dim() != 2 or each.shape[1] != width or not len(each):
                got = tuple(each.shape)
                raise ConfigError(f"the link perceiver carries (S, {width}) states of its sender, got {got}")
        lengths = torch.tensor([len(each) for each in states], device=self.queries.device)
        padded = nn.utils.rnn.pad_sequence([each.to(self.queries) for each in states], batch_first=True)  # (B, S, E)
        read = self.enter(self._standardised(padded))
        read = read + _places(read.shape[1], read.shape[2], read.device)
        real = torch.arange(read.shape[1], device=read.device) < lengths[:, None]  # (B, S)
        queries = self.queries.expand(len(states), -1, -1)
        for block in self.blocks:
            queries = block(queries, read, real)
        out = self.to_mean + self.to_deviation * self.leave(queries)
        scaled: Tensor = out * (self.to_norm / out.norm(dim=-1, keepdim=True).clamp_min(1e-12))
        return scaled

    def carry(self, states: Tensor) -> Tensor:
        """(S, E) states to (K, E_B) embeddings."""
        return self([states])[0].to(states.dtype)  # type: ignore[no-any-return]

    def _standardised(self, states: Tensor) -> Tensor:
        if not float(self.seen):
            return states
        mean = self.total / self.seen
        deviation = (self.squares / self.seen - mean.square()).clamp_min(0).sqrt()
        return (states - mean.to(states)) / (deviation.to(states) + 1e-6)

    def save(self, path: Path, sender: str, receiver: str) -> None:
        """Write its file, for the models of these fingerprints."""
        write_link(path, self.name, sender, receiver, self.state_dict(), {"config": asdict(self.config)})

    @classmethod
    def load(cls, path: Path, sender: ModelEnds, receiver: ModelEnds) -> Perceiver:
        """Read its file.

        Raises:
            DataError: it is missing, broken, or made for other weights.
        """
        tensors, header = read_link(path, cls.name, sender, receiver)
        try:
            config = PerceiverConfig(**header["config"])
            width = receiver.w_in.shape[1]
            made = cls(config, sender.w_in.shape[1], (torch.zeros(width), torch.ones(width), 1.0))  # all in the file
            types = {key: value.dtype for key, value in made.state_dict().items()}
            if {key: value.dtype for key, value in tensors.items()} != types:
                raise TypeError("its tensors are others, or of other types, than a perceiver's")
            made.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError, ConfigError) as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DataError(f"link file {path} cannot be read ({why}); make it anew") from error
        return made.to(receiver.w_in.device).eval().requires_grad_(False)


class _Block(nn.Module):
    """Queries read the states, each other, and think."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.among = nn.MultiheadAttention(width, heads, batch_first=True)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, queries: Tensor, read: Tensor, real: Tensor) -> Tensor:
        """(B, K, W) queries, (B, S, W) of which `real` (B, S) is no padding."""
        keys = self.norms[1](read)
        asked = self.norms[0](queries)
        queries = queries + self.cross(asked, keys, keys, key_padding_mask=~real, need_weights=False)[0]
        own = self.norms[2](queries)
        queries = queries + self.among(own, own, own, need_weights=False)[0]
        thought: Tensor = queries + self.think(self.norms[3](queries))
        return thought


def embedding_statistics(receiver: ModelEnds) -> tuple[Tensor, Tensor, float]:
    """Mean and deviation (E,) per dimension of a model's input embeddings, and the mean norm of their rows."""
    rows = receiver.w_in.float()
    return rows.mean(dim=0), rows.std(dim=0), float(rows.norm(dim=1).mean())


def _places(count: int, width: int, device: Any) -> Tensor:
    """(S, W) sines and cosines of where a state stands (Vaswani et al. 2017)."""
    rates = 10000 ** (-torch.arange(0, width, 2, device=device) / width)
    angles = torch.arange(count, device=device)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)
