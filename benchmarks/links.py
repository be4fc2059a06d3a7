"""What a hand-over costs, by link and by how much was thought: seconds and bytes, beside the receiver's own reading.

    python -m benchmarks.links --sender MODEL.gguf --receiver smollm2 --repeats 5 --json links.json

A hand-over begins when the sender has thought and ends when the receiver has a cache of it: the map and the reading
of what it gives, or, for text, the sender's writing and the reading of its words; for the cache itself, the copy into
the row of a batch. The reference is the receiver's reading of as many tokens, in the same run. What is paid once per
pair of models (fitting, loading) is apart.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.markdown import number, table
from gcache.agents.prompts import ChatLayout
from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.commands.console import OneLineParser, guarded, log_to_stderr
from gcache.errors import ConfigError
from gcache.files import write_json
from gcache.graph.agent_models import SPEAK
from gcache.links.linear import fit_overlap, fit_vocab
from gcache.links.link import Link, ModelEnds
from gcache.links.link_file import linear_link
from gcache.links.perceiver import Perceiver, PerceiverConfig, embedding_statistics
from gcache.llm.load.loading import load_model
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, ThinkRequest

WORDS = "The keeper of the lighthouse counts the lamps and writes the number of each into a book. "
QUESTION = "What is the number of the lamp?"


@dataclass(frozen=True)
class Cost:
    """One link at one length.

    Attributes:
        slots: of the sender; crossed: embeddings or tokens that the receiver read.
        nbytes: that crossed.
        seconds: of every repeat; reading: those of the reference.
    """

    link: str
    slots: int
    crossed: int
    nbytes: int
    seconds: list[float]
    reading: list[float]

    @property
    def ratio(self) -> float:
        return median(self.seconds) / median(self.reading)


@dataclass(frozen=True)
class OneTime:
    """What is paid once per pair of models."""

    what: str
    seconds: float
    nbytes: int


class Side:
    """A model, and how it is used here."""

    def __init__(self, name: str, dtype: str) -> None:
        loaded = load_model(name, dtype)
        self.llm = LocalLLM(loaded.model, loaded.tokenizer, loaded.label)
        self.ends = ModelEnds.of(loaded.model, loaded.tokenizer, loaded.label, loaded.fingerprint)
        self.layout = ChatLayout.of(loaded.tokenizer)
        asked = ThinkRequest(self.layout.question(QUESTION), owner=SHARED, kind=SlotKind.PREFIX)
        (self.shared,) = self.llm.think([asked])

    def tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.llm.tokenizer(text, add_special_tokens=False)["input_ids"])

    def words(self, count: int) -> tuple[int, ...]:
        """So many tokens of text."""
        some = self.tokens(WORDS)
        return (some * (count // len(some) + 1))[:count]

    def thought(self, slots: int) -> tuple[KVCache, Tensor]:
        """An agent's own slots, and their states."""
        states: list[Tensor] = []
        request = ThinkRequest(self.words(slots), FusedCache.plain(self.shared), watch_prompt=states.append)
        (own,) = self.llm.think([request])
        return own, states[0]

    def read(self, tokens: tuple[int, ...] = (), embeds: Tensor | None = None) -> KVCache:
        (own,) = self.llm.think([ThinkRequest(tokens, FusedCache.plain(self.shared), embeds=embeds)])
        return own


def measure(args: argparse.Namespace) -> tuple[list[Cost], list[OneTime]]:
    sender, receiver = Side(args.sender, args.dtype), Side(args.receiver, args.dtype)
    shape = PerceiverConfig(queries=args.queries)
    once: list[OneTime] = []

    def paid(what: str, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        began = time.perf_counter()
        made = make()
        once.append(OneTime(what, time.perf_counter() - began, size(made)))
        return made

    def of_matrix(link: Any) -> int:
        return int(link.matrix.nelement() * link.matrix.element_size())

    own = receiver.ends
    vocab = paid("fit vocab (receiver to itself)", lambda: fit_vocab(own, own), of_matrix)
    overlap = paid("fit overlap", lambda: fit_overlap(sender.ends, own), of_matrix)
    linear_link("overlap", sender.ends, own)
    paid("load overlap", lambda: linear_link("overlap", sender.ends, own), of_matrix)
    perceiver = Perceiver(shape, sender.ends.w_in.shape[1], embedding_statistics(own))  # its speed needs no training
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "perceiver.safetensors"
        perceiver.save(path, sender.ends.fingerprint, own.fingerprint)
        ready = paid("load perceiver", lambda: Perceiver.load(path, sender.ends, own), lambda _: path.stat().st_size)
    costs = []
    for slots in args.slots:
        mine, states = receiver.thought(slots)
        _, theirs = sender.thought(slots)
        links: tuple[tuple[str, Link, Tensor], ...] = (
            ("vocab", vocab, states),
            ("overlap", overlap, theirs),
            (f"perceiver, {args.queries} soft tokens", ready, theirs),
        )
        costs.append(_same(receiver, mine, args.repeats))
        for name, link, given in links:
            costs.append(_carried(name, link, given, receiver, args.repeats))
        costs.append(_text(sender, receiver, slots, args))
        print(render(costs[-len(links) - 2 :], []), file=sys.stderr)
    return costs, once


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _beside(
    name: str, slots: int, crossed: int, nbytes: int, call: Callable[[], Any], receiver: Side, repeats: int
) -> Cost:  # fmt: skip
    """A hand-over and the reference, in turns, after one of each that is not counted."""
    words = receiver.words(slots)
    seconds, reading = [], []
    for turn in range(repeats + 1):
        pair = _timed(call), _timed(lambda: receiver.read(words))
        if turn:
            seconds.append(pair[0])
            reading.append(pair[1])
    return Cost(name, slots, crossed, nbytes, seconds, reading)


def _same(receiver: Side, mine: KVCache, repeats: int) -> Cost:
    fused = FusedCache.join([FusedCache.plain(receiver.shared), FusedCache.plain(mine)])

    def copied() -> None:
        receiver.llm.rows().add([fused], [1])

    return _beside("same (the cache itself)", mine.slots, mine.slots, mine.nbytes, copied, receiver, repeats)


def _carried(name: str, link: Link, states: Tensor, receiver: Side, repeats: int) -> Cost:
    with torch.no_grad():
        crossed = len(link.carry(states))

    @torch.no_grad()
    def call() -> None:
        receiver.read(embeds=link.carry(states))

    # a perceiver may stand on the sender's side, and then its soft tokens cross; a linear map on either
    small = min(states.nelement(), crossed * receiver.ends.w_in.shape[1])
    return _beside(name, len(states), crossed, small * states.element_size(), call, receiver, repeats)


def _text(sender: Side, receiver: Side, slots: int, args: argparse.Namespace) -> Cost:
    own, _ = sender.thought(slots)
    past = FusedCache.join([FusedCache.plain(sender.shared), FusedCache.plain(own)])
    asked = GenerateRequest(sender.layout.decision(SPEAK, question=QUESTION), past, args.speak_tokens)
    said = sender.llm.generate([asked])[0]

    def call() -> None:
        (text,) = sender.llm.generate([asked])
        receiver.read(receiver.tokens(text.text) or receiver.words(1))

    words = receiver.tokens(said.text)
    name = f"text, {len(said.tokens)} tokens"
    return _beside(name, slots, len(words), len(said.text.encode()), call, receiver, args.repeats)


def render(costs: Sequence[Cost], once: Sequence[OneTime]) -> str:
    """The numbers as tables."""
    head = ["link", "slots", "read by the receiver", "bytes", "ms", "to reading as many tokens"]
    rows = [
        [c.link, str(c.slots), str(c.crossed), f"{c.nbytes:,}", number(1000 * median(c.seconds)), f"{number(c.ratio)}x"]
        for c in costs
    ]
    lines = [table(head, rows)]
    if once:
        paid = [[o.what, number(o.seconds), f"{o.nbytes:,}"] for o in once]
        lines.append(table(["once per pair", "s", "bytes"], paid))
    return "\n\n".join(lines)


def parser() -> argparse.ArgumentParser:
    made = OneLineParser(
        prog="python -m benchmarks.links", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--sender", required=True, help="a model: smollm2, a hub id, a folder or a .gguf file")
    made.add_argument("--receiver", default="smollm2", help="(default: %(default)s)")
    made.add_argument("--dtype", default="auto", help="of both (default: %(default)s)")
    made.add_argument("--slots", type=int, nargs="+", default=[32, 256, 1024], help="(default: 32 256 1024)")
    made.add_argument("--queries", type=int, default=16, help="of the perceiver (default: %(default)s)")
    made.add_argument("--speak_tokens", type=int, default=128, help="of a text, at most (default: %(default)s)")
    made.add_argument("--repeats", type=int, default=5, help="(default: %(default)s)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file")
    return made


def run(args: argparse.Namespace) -> int:
    for name in ("queries", "speak_tokens", "repeats"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} must be 1 or more, got {getattr(args, name)}")
    if min(args.slots) < 1:
        raise ConfigError(f"--slots must be 1 or more each, got {args.slots}")
    costs, once = measure(args)
    if args.json:
        settings = {name: value for name, value in vars(args).items() if name != "json"}
        settings |= {name: Path(settings[name]).name for name in ("sender", "receiver")}
        write_json(args.json, {
            "settings": settings, "torch": torch.__version__, "threads": torch.get_num_threads(),
            "costs": [asdict(c) for c in costs], "once": [asdict(o) for o in once],
        })  # fmt: skip
    print(render(costs, once))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parser().parse_args(argv)
    log_to_stderr()
    return guarded(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
