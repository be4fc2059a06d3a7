"""Whom a policy of many agents comes to hear, with a made-up reward in place of a language model: seconds, not hours.

    python experiments/choose_documents.py --data train.jsonl --cues overlap named cited citing --heard 2.5 --lr 6e-3

The reward of hearing some documents is 1 with a probability that says what a small model's answers are worth on
HotpotQA: 0.12 with none of the needed ones, 0.17 with one, 0.40 with all, less 0.02 for every other one, and at least
0.05. A policy is trained on the first `--train` questions as `gcache train --hard_edges true` does it, and asked for
its likeliest documents on the others. It says whether settings are stable and which cues help; it is no result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from gcache.agents.decision import decision_maker
from gcache.agents.roles import agents_for
from gcache.commands.console import guarded
from gcache.errors import DataError
from gcache.evaluation.documents import make_choices, needed, set_f1
from gcache.evaluation.intervals import mean_interval
from gcache.evaluation.tables import markdown
from gcache.gnn.cue_names import CUES
from gcache.gnn.features import make_encoder
from gcache.gnn.policy import QuestionFeatures, TopologyPolicy
from gcache.gnn.providers import PolicyProvider
from gcache.runtime.streams import derive, stream, uniforms
from gcache.tasks.example import Example
from gcache.tasks.registry import make_task
from gcache.training.objective import advantages


@dataclass(frozen=True)
class Settings:
    """How a policy is trained here."""

    cues: tuple[str, ...]
    heard: float | None
    lr: float
    steps: int
    questions: int
    rollouts: int
    edge_price: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training questions in HotpotQA's official form")
    parser.add_argument("--limit", type=int, default=300, help="questions (default: 300)")
    parser.add_argument("--train", type=int, default=128, help="of these, to train on (default: 128)")
    parser.add_argument("--cues", nargs="*", default=[], choices=CUES, help="(default: none)")
    parser.add_argument("--heard", type=float, help="(default: as many as is learned)")
    parser.add_argument("--lr", type=float, default=5e-3, help="falls to 0 (default: 5e-3)")
    parser.add_argument("--steps", type=int, default=40, help="(default: 40)")
    parser.add_argument("--questions", type=int, default=8, help="a step (default: 8)")
    parser.add_argument("--rollouts", type=int, default=8, help="a question (default: 8)")
    parser.add_argument("--edge_price", type=float, default=0.0, help="of an expected edge (default: 0)")
    parser.add_argument("--seeds", type=int, default=4, help="(default: 4)")
    args = parser.parse_args(argv)
    return guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Train and print a table."""
    examples = make_task("hotpotqa", data=args.data, whole_file=True).train(args.limit)
    learned, kept = examples[: args.train], examples[args.train :]
    if not kept:
        raise DataError(f"{len(examples)} questions and --train {args.train} leave none to try on; lower --train")
    settings = Settings(
        tuple(args.cues), args.heard, args.lr, args.steps, args.questions, args.rollouts, args.edge_price
    )
    lines = [
        _line(choice.name, [choice.pick(example) for example in kept], kept)
        for choice in make_choices(["bm25:2"])
    ]
    encoder, decision = make_encoder("minilm"), decision_maker("reading", "refer")
    for seed in range(args.seeds):
        torch.manual_seed(derive("policy", seed))
        policy = TopologyPolicy(
            encoder.dim, agent_probability=0.0, cues=settings.cues, heard=settings.heard, hard_edges=True
        )
        provider = PolicyProvider(policy, encoder)

        def seen(example: Example, provider: PolicyProvider = provider) -> QuestionFeatures:
            return provider.features(agents_for(example, ()), decision, example.question)

        train(policy, [(seen(example), needed(example)) for example in learned], settings, seed)
        with torch.no_grad():
            heard = [{edge.source for edge in policy.most_likely(seen(e))[0].edges} for e in kept]
        lines.append(_line(f"policy, seed {seed}", heard, kept))
    print(markdown(["documents", "n", "F1 of documents", "heard"], lines), end="")
    return 0


def train(
    policy: TopologyPolicy, asked: Sequence[tuple[QuestionFeatures, Collection[int]]], settings: Settings, seed: int
) -> None:
    """REINFORCE with the mean of a question's other rollouts as baseline."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=settings.lr, weight_decay=0.1)
    for step in tqdm(range(settings.steps), desc=f"seed {seed}", unit="step"):
        optimizer.param_groups[0]["lr"] = settings.lr * (1 - step / settings.steps)
        loss = torch.zeros(())
        for number in range(settings.questions):
            index = step * settings.questions + number
            sweep, place = divmod(index, len(asked))
            features, wanted = asked[int(stream("pass", seed, sweep).permutation(len(asked))[place])]
            distribution, source = policy(features), stream("draws", seed, index)
            drawn = [distribution.sample(source) for _ in range(settings.rollouts)]
            chances = torch.tensor([[_worth({e.source for e in topology.edges}, wanted) for topology, _ in drawn]])
            rewards = (uniforms((1, len(drawn)), source) < chances).float()
            gains = advantages(rewards, "leave_one_out")[0]
            loss = loss - (gains * torch.stack([log_prob for _, log_prob in drawn])).mean() / settings.questions
            loss = loss + settings.edge_price * distribution.expected_edges / settings.questions
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()


def _worth(heard: Collection[int], wanted: Collection[int]) -> float:
    """How likely an answer is right."""
    found = len(set(heard) & set(wanted))
    some = 0.40 if found == len(wanted) else 0.17 if found else 0.12
    return max(some - 0.02 * len(set(heard) - set(wanted)), 0.05)


def _line(name: str, heard: Sequence[Collection[int]], examples: Sequence[Example]) -> list[str]:
    scores = [set_f1(own, needed(example)) for own, example in zip(heard, examples, strict=True)]
    mean, low, high = mean_interval(scores)
    return [name, str(len(scores)), f"{mean:.3f} ({low:.3f} to {high:.3f})", f"{sum(map(len, heard)) / len(heard):.2f}"]


if __name__ == "__main__":
    sys.exit(main())
