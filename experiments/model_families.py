"""Which families of causal language models this runs exactly: all that transformers knows, one tiny model each.

    python experiments/model_families.py --json docs/results/models/families.json --table docs/models.md

Every family's configuration is made small and its weights are drawn at random. A model that is accepted is then
compared with transformers alone, on other tokens and longer prompts than those that it was tried on when it was loaded:

    text        think, generate and log_prob, on a prompt and on a cache of its first half
    parallel    two agents at the same positions, and who reads both; transformers is told so by mask and positions
    sequential  the second agent moved behind the first
    weights     slots at shares of their weight and slots that are blocked, without and with gradient
    gradient    of a log-probability by an edge's log-weight, less its finite difference

Numbers are the largest differences of log-probabilities, in nats, in float32.
"""

from __future__ import annotations

import argparse
import inspect
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

sys.path.insert(0, str(Path(__file__).parent))
from tiny_families import families, full_attention, part_of, tiny_model

from gcache.cache.fused_cache import FusedCache
from gcache.commands.console import guarded
from gcache.errors import ConfigError, ModelError
from gcache.files import write_json, write_text
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest

#: Tokens of two agents, of who reads both, and of a text.
PARTS = (17, 9, 8)
WRITTEN = 6
#: Of finite differences; the best counts, since a long step may take a token to another expert.
STEPS = (0.03, 0.01, 0.003, 0.001)
COLUMNS = ("text", "parallel", "sequential", "weights", "gradient")
OUTCOMES = ("exact", "refused", "not made", "no RoPE")
BEGIN, END = "<!-- families:begin -->", "<!-- families:end -->"


@dataclass(frozen=True)
class Family:
    """What came of one.

    Attributes:
        name: of its configuration, and how that was changed. made: its class.
        outcome: "exact", "refused", "not made" or "no RoPE".
        line: why it was refused or not made; of an exact one, why its caches cannot be moved.
        errors: by column.
    """

    name: str
    made: str
    outcome: str
    line: str = ""
    errors: dict[str, float] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="configurations by name (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and tokens (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes to this file")
    parser.add_argument("--table", type=Path, metavar="FILE", help="put the table into this Markdown file")
    args = parser.parse_args(argv)
    return guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    began, found = time.perf_counter(), []
    for name, made in families().items():
        if not args.families or name in args.families:
            for family in of_family(name, made, args.seed):
                found.append(family)
                print(row(family), flush=True)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "seed": args.seed}
    print(f"{len(found)} rows in {time.perf_counter() - began:.0f} s")
    if args.json:
        write_json(args.json, {**versions, "families": [asdict(family) for family in found]})
    if args.table:
        put_table(args.table, markdown(versions, found))
    return 0


def of_family(name: str, made: str, seed: int) -> Iterator[Family]:
    """As it is configured by default; and with full attention in every layer, where that makes a difference."""
    if not rotates(name, made):
        yield Family(name, made, "no RoPE")
        return
    first = outcome(name, made, seed)
    yield first
    changes = full_attention(name)
    if first.outcome == "refused" and changes:
        again = outcome(name, made, seed, changes)
        if again.outcome != "not made" and again.line != first.line:
            yield again


def rotates(name: str, made: str) -> bool:
    """Whether a class's source speaks of rotary positions, or its configuration, or that of a part of it."""
    cls = getattr(transformers, made)
    try:
        text = CONFIG_MAPPING[name]().get_text_config()
    except Exception:  # it has no defaults; trying to make it says why
        return True
    if hasattr(text, "rope_parameters"):
        return True
    modules = {cls.__module__, *(config.__module__ for config in configurations(cls.config_class))}
    return any(word in inspect.getsource(sys.modules[name]) for name in modules for word in ("otary", "rope_"))


def configurations(config: Any) -> Iterator[Any]:
    """A class of configurations, and those of its parts."""
    yield config
    for spec in getattr(config, "sub_configs", {}).values():
        inner = part_of(spec)
        if inner is not None:
            yield from configurations(inner)


def outcome(name: str, made: str, seed: int, changes: dict[str, Any] | None = None) -> Family:
    label = name if not changes else f"{name}, full attention in all layers"
    try:
        model, own = (tiny_model(name, seed, **(changes or {})) for _ in range(2))
    except Exception as error:  # a configuration that needs more than small numbers
        return Family(label, made, "not made", f"{type(error).__name__}: {error}".replace("\n", " ")[:200])
    try:
        llm = LocalLLM(model, Numbers(), name)
    except ModelError as error:
        return Family(label, made, "refused", str(error))
    return Family(label, made, "exact", llm.rope.fixed, Comparison(llm, own, seed).errors())


class Numbers:
    """A tokenizer whose words are its ids; no text ends early."""

    eos_token_id = None

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))


class Comparison:
    """An accepted model beside transformers alone.

    Args:
        own: the same model, untouched.
    """

    def __init__(self, llm: LocalLLM, own: Any, seed: int) -> None:
        self.llm, self.own = llm, own
        generator = torch.Generator().manual_seed(seed + 1)
        width = len(own.get_input_embeddings().weight)
        self.parts = [tuple(torch.randint(width, (n,), generator=generator).tolist()) for n in PARTS]

    def errors(self) -> dict[str, float]:
        found = {"text": self._text(), "parallel": self._siblings(parallel=True), **self._weights()}
        if not self.llm.rope.fixed:
            found["sequential"] = self._siblings(parallel=False)
        return {name: found[name] for name in COLUMNS if name in found}

    def _text(self) -> float:
        """Read, write, and score what was written, on a cache and without."""
        first, second, third = self.parts
        self.llm.stop_tokens = frozenset()
        past = self._thought(first)
        errors = []
        for tokens, cache in ((first + second, None), (second + third, past)):
            (written,) = self.llm.generate([GenerateRequest(tokens, cache, WRITTEN)])
            whole = (first if cache is not None else ()) + tokens + written.tokens
            wanted = self._wanted(whole)[-WRITTEN - 1 : -1].gather(1, torch.tensor(written.tokens)[:, None])[:, 0]
            (scores,) = self.llm.log_prob([LogProbRequest(tokens, written.tokens, cache)])
            errors += [(torch.tensor(written.log_probs) - wanted).abs().max(), (scores - wanted).abs().max()]
        return float(torch.stack(errors).max())

    def _siblings(self, parallel: bool) -> float:
        """Two agents that do not see each other, and a third that reads both."""
        first, second, third = self.parts
        one, two = self._thought(first), self._thought(second)
        offset = 0 if parallel else len(first)
        moved = two if parallel else two.shift(offset, self.llm.rope)
        past = FusedCache.join([one, moved])
        start = int(past.next_positions[0])
        ends = torch.tensor([len(first), len(first) + len(second), sum(PARTS)])
        positions = torch.cat(
            (torch.arange(len(first)), torch.arange(len(second)) + offset, torch.arange(len(third)) + start)
        )
        allowed = torch.ones((int(ends[2]), int(ends[2]))).tril().bool()
        allowed[ends[0] : ends[1], : ends[0]] = False
        wanted = self._wanted(first + second + third, allowed, positions)[ends[1] :]
        return self._error(third, past, wanted)

    def _weights(self) -> dict[str, float]:
        """Slots twice at shares of their weight, beside blocked ones, are the slots once."""
        first, second, _ = self.parts
        past, other = self._thought(first), self._thought(second)
        wanted = self._wanted(first + second)[len(first) :]
        log_weight = torch.tensor(math.log(0.3), requires_grad=True)

        def shared(weight: Tensor) -> FusedCache:
            rest = torch.log1p(-torch.tensor(0.3))
            return FusedCache.join([past.weighted(weight), past.weighted(rest), other.weighted(torch.tensor(-1e4))])

        def score(weight: Tensor) -> Tensor:
            (scores,) = self.llm.log_prob([LogProbRequest(second[:1], second[1:], shared(weight))])
            return scores

        scores = score(log_weight)
        (slope,) = torch.autograd.grad(scores.mean(), log_weight)
        with torch.no_grad():
            error = self._error(second, shared(log_weight), wanted)
            by_step = torch.stack(
                [(score(log_weight + step).mean() - score(log_weight - step).mean()) / (2 * step) for step in STEPS]
            )
        known = wanted[:-1].gather(1, torch.tensor(second[1:])[:, None])[:, 0]
        return {
            "weights": max(error, float((scores.detach() - known).abs().max())),
            "gradient": float((slope - by_step).abs().min()),
        }

    def _thought(self, tokens: tuple[int, ...]) -> FusedCache:
        return FusedCache.plain(self.llm.think([ThinkRequest(tokens)])[0])

    def _error(self, tokens: tuple[int, ...], past: FusedCache, wanted: Tensor) -> float:
        """Of the log-probabilities (S, V) after each of the tokens, read on a cache."""
        seen: list[Tensor] = []
        self.llm.think([ThinkRequest(tokens, past, watch_prompt=seen.append)])
        with torch.no_grad():
            return float((self.llm.logits(seen[0]).log_softmax(-1) - wanted).abs().max())

    @torch.no_grad()
    def _wanted(self, tokens: tuple[int, ...], allowed: Tensor | None = None, positions: Any = None) -> Tensor:
        """(S, V) log-probabilities by transformers alone, of tokens that see the `allowed` (S, S) others."""
        more = {}
        if allowed is not None:
            mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
            more = {"attention_mask": mask[None, None], "position_ids": positions[None]}
        log_probs: Tensor = self.own(input_ids=torch.tensor([tokens]), **more).logits[0].float().log_softmax(-1)
        return log_probs


def row(family: Family) -> str:
    """A line of a table, or of a terminal."""
    if family.outcome != "exact":
        line = family.line.partition(" cannot be used: ")[2] or family.line
        return f"| {family.name} | {family.outcome} | {line.partition('; use a model')[0].replace('|', '/')} |"
    errors = " | ".join(f"{family.errors[name]:.0e}" if name in family.errors else "-" for name in COLUMNS)
    return f"| {family.name} | {errors} | {family.line} |"


def markdown(versions: dict[str, Any], found: Sequence[Family]) -> str:
    """All of them: what is exact, what is refused, what could not be tried, what has no rotary positions."""
    by_outcome = {outcome: [family for family in found if family.outcome == outcome] for outcome in OUTCOMES}
    first = {family.made: family.outcome for family in reversed(found)}  # as configured by default
    counts = ", ".join(f"{list(first.values()).count(outcome)} {outcome}" for outcome in OUTCOMES)
    more = len({family.made for family in by_outcome["exact"]}) - list(first.values()).count("exact")
    said = f"transformers {versions['transformers']}, torch {versions['torch']}, seed {versions['seed']}"
    head = " | ".join(("configuration", *COLUMNS, "caches stay where they are, for"))
    none = ", ".join(family.name for family in by_outcome["no RoPE"])
    return "\n".join(
        [
            f"{said}. Of {len(first)} classes as they are configured by default: {counts}. {more} of those that are "
            "refused are exact with full attention in all layers.",
            "",
            f"| {head} |",
            f"|---|{'---|' * (len(COLUMNS) + 1)}",
            *map(row, by_outcome["exact"]),
            "",
            "| configuration | outcome | line, without its beginning and its way out |",
            "|---|---|---|",
            *map(row, (*by_outcome["refused"], *by_outcome["not made"])),
            "",
            f"No rotary positions: {none}.",
        ]
    )


def put_table(path: Path, text: str) -> None:
    """Between the two marks of a Markdown file."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest:
        raise ConfigError(f"{path} has no line {BEGIN}; put it and {END} where the table is to stand")
    write_text(path, f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
