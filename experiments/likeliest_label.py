"""A classification by the likeliest label, so that models that do not answer in labels can be compared too.

    python experiments/likeliest_label.py --agent_models MODEL.gguf --data test.csv \\
        --task_option classes=20 whole_file=true --link_file bank.safetensors --json likeliest.json

The label whose tokens, end of turn included, are likeliest on the mean behind the decision maker's prompt, given

    receiver, nothing     the labels alone
    receiver, text        the agent's note in its own prompt
    receiver, perceiver   soft tokens of what the sender thought of the note
    sender, text          the note in the sender's own prompt

Differences are paired over questions with the first row.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from gcache.agents.prompts import with_said
from gcache.build import build
from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.commands import flags
from gcache.commands.console import guarded, log_to_stderr
from gcache.commands.graph_flags import add_graph_flags, graph_spec
from gcache.commands.options import options
from gcache.config import TaskSpec
from gcache.errors import ConfigError
from gcache.evaluation.intervals import paired_difference, wilson
from gcache.files import write_json
from gcache.graph.agent_models import AgentModel
from gcache.graph.cache_graph import CacheGraph
from gcache.links.perceiver import Perceiver
from gcache.llm.cache_budget import Limits
from gcache.llm.requests import LogProbRequest, ThinkRequest
from gcache.tasks.example import Example
from gcache.training.fit_perceiver import FitConfig, PerceiverFit, answer_tokens, ends_of, local

#: From a question to what was said of every label: the mean log-probability of its tokens.
Score = Callable[[Example, Sequence[str]], list[float]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="banking77", help="a classification (default: %(default)s)")
    parser.add_argument("--data", required=True, help="file of test questions")
    parser.add_argument("--task_option", nargs="+", default=[], metavar="NAME=VALUE", help="of the task")
    parser.add_argument("--limit", type=int, default=200, help="test questions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of their choice (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answers to this file")
    add_graph_flags(parser)
    flags.add(parser, Limits)
    args = parser.parse_args(argv)
    log_to_stderr()
    return guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    if len(args.link_file) != 1:
        raise ConfigError("name the fitted perceiver by --link_file")
    task = TaskSpec(args.task, args.data, options(args.task_option)).make()
    examples = list(task.test(args.limit, args.seed))
    args.link, file = "text", Path(args.link_file.pop())
    spec = graph_spec(args, task.domain, task.max_new_tokens, topology="star")
    graph = build(spec, flags.make(Limits, args)).graph
    assert isinstance(graph, CacheGraph)
    sender, receiver = ends_of(graph)
    fit = PerceiverFit(graph, Perceiver.load(file, sender, receiver), FitConfig())
    labels = examples[0].meta["labels"].split("; ")
    ways: list[tuple[str, Score]] = [
        ("receiver, nothing", lambda e, ls: in_words(graph, graph.models[0], e, ls, told=False)),
        ("receiver, text", lambda e, ls: in_words(graph, graph.models[0], e, ls)),
        ("receiver, perceiver", lambda e, ls: carried(fit, e, ls)),
        ("sender, text", lambda e, ls: in_words(graph, graph.models[1], e, ls)),
    ]
    rows, first = [], []
    print("| given | accuracy | difference to the first | seconds a question |\n|---|---|---|---|")
    for name, score in ways:
        began = time.perf_counter()
        answers = [likeliest(score, example, labels) for example in tqdm(examples, desc=name, unit="question")]
        seconds = (time.perf_counter() - began) / len(examples)
        right = [float(answer == example.answer) for answer, example in zip(answers, examples, strict=True)]
        first = first or right
        low, high = wilson(int(sum(right)), len(right))
        difference = paired_difference(first, right)
        given = [[e.id, e.answer, answer] for e, answer in zip(examples, answers, strict=True)]
        rows.append({"name": name, "seconds": seconds, "answers": given})
        print(
            f"| {name} | {sum(right) / len(right):.3f} ({low:.3f} to {high:.3f}) "
            f"| {difference[0]:+.3f} ({difference[1]:+.3f} to {difference[2]:+.3f}) | {seconds:.2f} |"
        )
    if args.json:
        models = {"sender": sender.label, "receiver": receiver.label}
        write_json(args.json, {**models, "limit": args.limit, "seed": args.seed, "labels": labels, "rows": rows})
    return 0


def likeliest(score: Score, example: Example, labels: Sequence[str]) -> str:
    """The label with the highest score."""
    scores = score(example, labels)
    return labels[max(range(len(labels)), key=lambda i: scores[i])]


@torch.no_grad()
def in_words(
    graph: CacheGraph, agent_model: AgentModel, example: Example, labels: Sequence[str], told: bool = True
) -> list[float]:
    """Labels behind the question and, where told, the agents' notes in words; the prompt is read once for all."""
    llm, layout = local(agent_model), agent_model.layout
    shared = question(agent_model, example.question)
    said = [(note.role, note.text) for note in example.notes] if told else []
    words = with_said(graph.decision.instructions, said)
    prompt = layout.decision(
        words, graph.decision.answer_prefix, graph.config.decision_turn, question=example.question
    )
    (read,) = llm.think([ThinkRequest(prompt[:-1], FusedCache.plain(shared))])
    parts: list[KVCache] = [FusedCache.plain(shared), FusedCache.plain(read)]
    past, prefix = FusedCache.join(parts), graph.decision.answer_prefix
    answers = [answer_tokens(layout, label, prefix) for label in labels]
    requests = [LogProbRequest(prompt[-1:], answer, past) for answer in answers]
    return [float(scores.mean()) for scores in llm.log_prob(requests)]


@functools.lru_cache(maxsize=4)
def question(agent_model: AgentModel, text: str) -> KVCache:
    """Its cache, which all questions of a classification share."""
    asked = ThinkRequest(agent_model.layout.question(text), owner=SHARED, kind=SlotKind.PREFIX)
    return local(agent_model).think([asked])[0]


@torch.no_grad()
def carried(fit: PerceiverFit, example: Example, labels: Sequence[str]) -> list[float]:
    """Labels behind the question and the soft tokens."""
    (seen,) = fit.see([example], progress=False)
    answers = [fit.answer_tokens(label) for label in labels]
    return [float(scores.mean()) for scores in fit.log_probs([seen] * len(labels), answers)]


if __name__ == "__main__":
    sys.exit(main())
