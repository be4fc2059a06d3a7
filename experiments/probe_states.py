"""A linear probe on the states that a link would carry: how much of a label is there to be carried.

    python experiments/probe_states.py --agent_models MODEL.gguf --data train.csv --test_data test.csv \\
        --task banking77 --task_option classes=20 --json probe.json

Logistic regression on the mean of an agent's states, standardised, fitted on training questions with a ridge chosen on
a fifth of them, and asked the first --limit questions of the test file. The decision maker's model plays no part.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gcache.build import build
from gcache.commands import flags
from gcache.commands.console import guarded, log_to_stderr
from gcache.commands.graph_flags import add_graph_flags, graph_spec
from gcache.commands.options import options
from gcache.config import TaskSpec
from gcache.evaluation.intervals import wilson
from gcache.files import write_json
from gcache.graph.cache_graph import CacheGraph
from gcache.links.perceiver import Perceiver, PerceiverConfig, embedding_statistics
from gcache.llm.cache_budget import Limits
from gcache.tasks.example import Example
from gcache.training.fit_perceiver import FitConfig, PerceiverFit, ends_of

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="banking77", help="a classification (default: %(default)s)")
    parser.add_argument("--data", required=True, help="file of training questions")
    parser.add_argument("--test_data", required=True, help="file of test questions, used whole")
    parser.add_argument("--task_option", nargs="+", default=[], metavar="NAME=VALUE", help="of the task")
    parser.add_argument("--limit", type=int, default=200, help="test questions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of their choice (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answers to this file")
    add_graph_flags(parser)
    flags.add(parser, Limits)
    parser.set_defaults(generation_mode="local", link="text")
    args = parser.parse_args(argv)
    log_to_stderr()
    return guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    named = options(args.task_option)
    task = TaskSpec(args.task, args.data, named).make()
    test = TaskSpec(args.task, args.test_data, {**named, "whole_file": True}).make().test(args.limit, args.seed)
    spec = graph_spec(args, task.domain, task.max_new_tokens, topology="star")
    graph = build(spec, flags.make(Limits, args)).graph
    assert isinstance(graph, CacheGraph)
    sender, receiver = ends_of(graph)
    unused = Perceiver(PerceiverConfig(), sender.w_in.shape[1], embedding_statistics(receiver))
    fit = PerceiverFit(graph, unused, FitConfig())
    train = list(task.train())
    labels = sorted({example.answer for example in train})
    x, y = _pooled(fit, train), _numbers(train, labels)
    held = len(x) // 5
    scores = {ridge: _right(x[held:], y[held:], x[:held], y[:held], ridge) for ridge in RIDGES}
    ridge = max(scores, key=lambda r: float(scores[r].float().mean()))
    right = _right(x, y, _pooled(fit, test), _numbers(test, labels), ridge)
    count = int(right.sum())
    low, high = wilson(count, len(test))
    if args.json:
        rows = [{"id": e.id, "right": bool(r)} for e, r in zip(test, right.tolist(), strict=True)]
        of_sender = {"sender": sender.label, "fingerprint": sender.fingerprint}
        write_json(args.json, {**of_sender, "ridge": ridge, "train": len(train), "rows": rows})
    share = count / len(test)
    print(f"linear probe on {sender.label}: {share:.3f} ({low:.3f} to {high:.3f}), n = {len(test)}, ridge {ridge}")
    return 0


def _pooled(fit: PerceiverFit, examples: Sequence[Example]) -> Tensor:
    """(N, E) means over each question's states."""
    return torch.stack([torch.cat(seen.states).float().mean(dim=0) for seen in fit.see(examples)])


def _numbers(examples: Sequence[Example], labels: Sequence[str]) -> Tensor:
    return torch.tensor([labels.index(example.answer) for example in examples])


def _right(x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, ridge: float) -> Tensor:
    """(N,) whether each test question is answered rightly by a regression on the others."""
    mean, deviation = x.mean(dim=0), x.std(dim=0) + 1e-6
    x, test_x = (x - mean) / deviation, (test_x - mean) / deviation
    weights = torch.zeros(x.shape[1] + 1, int(y.max()) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = x @ weights[:-1] + weights[-1]
        value = torch.nn.functional.cross_entropy(logits, y) + ridge * weights[:-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return (test_x @ weights[:-1] + weights[-1]).argmax(dim=1) == test_y


if __name__ == "__main__":
    sys.exit(main())
