"""What a run of training took to compute, phase by phase: tokens by kind, and seconds.

    questions                      read once for the report's rows before training
    a row of the report            per row, before and after training
    rollouts                       what the steps learned from
    likeliest topology asked       to know when training may end (`gcache.training.early_stop`)
    gradient                       texts scored once more, with gradient

The numbers are sums over what is written down anyway: the traces of rollouts in metrics.jsonl, and the report's rows.
Thoughts that rollouts of a question share count once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from gcache.evaluation import tables
from gcache.evaluation.evaluate import Evaluation

ROLLOUTS, LIKELIEST, GRADIENT = "rollouts", "likeliest topology asked", "gradient"
#: What the sum of all phases is called.
TOTAL = "in all"


@dataclass(frozen=True)
class PhaseCost:
    """What a phase computed.

    Attributes:
        prefilled, latent, generated: tokens of the local model, without gradient.
        with_gradient: tokens of prompts and texts that went through a pass with gradient, at most.
        api_read, api_written: tokens by an API's own count.
        seconds: of the phase, also where an earlier start of the run measured it.
    """

    phase: str
    prefilled: int = 0
    latent: int = 0
    generated: int = 0
    with_gradient: int = 0
    api_read: int = 0
    api_written: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Of the local model, of all kinds."""
        return self.prefilled + self.latent + self.generated + self.with_gradient

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def of_row(row: Evaluation) -> PhaseCost:
    """Of a row of the report. Questions that failed for good are not counted."""
    return PhaseCost(row.name, **{kind: round(mean * row.n) for kind, mean in row.tokens.items()}, seconds=row.seconds)


def of_steps(lines: Sequence[Mapping[str, Any]]) -> list[PhaseCost]:
    """Of training: the lines of metrics.jsonl. A version that did not count something left it out, which is 0 here."""
    kinds = [field.name for field in fields(PhaseCost) if field.name not in ("phase", "with_gradient", "seconds")]

    def summed(name: str) -> Any:
        return sum(line.get(name, 0) for line in lines)

    return [
        PhaseCost(ROLLOUTS, **{k: summed(f"tokens_{k}") for k in kinds}, seconds=summed("seconds_rollouts")),
        PhaseCost(
            LIKELIEST, **{k: summed(f"likeliest_tokens_{k}") for k in kinds}, seconds=summed("seconds_likeliest")
        ),
        PhaseCost(GRADIENT, with_gradient=summed("tokens_replayed"), seconds=summed("seconds_gradient")),
    ]  # fmt: skip


def of_run(
    before: Iterable[Evaluation], lines: Sequence[Mapping[str, Any]], after: Iterable[Evaluation],
    reading: PhaseCost | None = None,
) -> list[PhaseCost]:
    """Of a run, in its order. A phase that computed nothing is left out.

    Args:
        before, after: rows of the report, by when they were measured.
        lines: of metrics.jsonl.
        reading: of what the rows before training share.
    """
    found = [*([reading] if reading else []), *map(of_row, before), *of_steps(lines), *map(of_row, after)]
    return [cost for cost in found if cost.tokens or cost.api_read or cost.api_written or cost.seconds]


def total(costs: Iterable[PhaseCost]) -> PhaseCost:
    """The sum of all phases."""
    several = list(costs)
    names = [field.name for field in fields(PhaseCost) if field.name != "phase"]
    return PhaseCost(TOTAL, **{name: sum(getattr(cost, name) for cost in several) for name in names})


def markdown(costs: Sequence[PhaseCost]) -> str:
    """As a Markdown table, the sum last. A column in which nothing stands is left out."""
    rows = [*costs, total(costs)]
    columns = {"prefilled": "prefilled", "latent": "latent", "generated": "written", "with_gradient": "with gradient"}
    columns |= {"api_read": "read by the API", "api_written": "written by the API"}
    shown = {name: head for name, head in columns.items() if getattr(rows[-1], name)}
    every = rows[-1].tokens

    def cells(cost: PhaseCost) -> list[str]:
        share = [f"{cost.tokens / every:.0%}"] if every else []
        return [cost.phase, *(f"{getattr(cost, name):,}" for name in shown), *share, f"{cost.seconds:.0f}"]

    head = ["tokens of", *shown.values(), *(["of all tokens"] if every else []), "seconds"]
    return tables.markdown(head, [cells(cost) for cost in rows])
