"""Fitting a perceiver: its soft tokens are worth what the receiver makes of them.

    L = - mean over questions of [ log p(a | question, soft tokens of every agent) / |a| ]

with a the right answer's tokens and p the frozen receiver. Agents think with the sender's model about the question
and their own notes, as in a run in which all of them hand to the decision maker; their states are computed once. The
answer is in none of these prompts: it meets the soft tokens in the receiver alone, and gradient reaches the perceiver
through the receiver's own cache of them (`LocalLLM.think` and `log_prob` with gradient, the passes of a run).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from gcache.agents.chat_template import EndOfTurn
from gcache.agents.prompts import ChatLayout
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import Incoming
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.errors import ConfigError, DataError, TrainingError
from gcache.files import write_text
from gcache.graph.agent_models import AgentModel
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.hand_over import handed_states
from gcache.links.link import ModelEnds
from gcache.links.perceiver import Perceiver
from gcache.llm.local import LocalLLM
from gcache.llm.requests import LogProbRequest, ThinkRequest
from gcache.runtime.streams import stream
from gcache.tasks.example import Example
from gcache.training.config import FitConfig

logger = logging.getLogger(__name__)

#: Questions whose receiver's cache is remembered: those of a classification are one and the same.
_KNOWN_QUESTIONS = 64


@dataclass(frozen=True)
class Seen:
    """What a perceiver learns from: a question, the states of each agent, and the answer's tokens."""

    question: str
    states: tuple[Tensor, ...]
    answer: tuple[int, ...]


class PerceiverFit:
    """Fits a perceiver for a graph whose agents think with one other model than its decision maker.

    Args:
        graph: of two models; whatever link it has is not used.
        sender, receiver: what the perceiver is for.

    Raises:
        ConfigError: a graph of one model, or of more than two.
    """

    def __init__(self, graph: CacheGraph, perceiver: Perceiver, config: FitConfig) -> None:
        if len(graph.models) != 2 or set(graph.agent_models.on) != {1}:
            raise ConfigError(
                "a perceiver is fitted from one model to another: name one model for all agents by --agent_models, "
                "and another by --llm_name"
            )
        self.graph, self.config = graph, config
        self.perceiver = perceiver.to(self.llm.device)
        self._questions: dict[str, KVCache] = {}

    @property
    def llm(self) -> LocalLLM:
        """The receiver's model."""
        return local(self.graph.models[0])

    # -- what there is to learn from ---------------------------------------------------------------

    @torch.no_grad()
    def see(self, examples: Sequence[Example], progress: bool = True) -> list[Seen]:
        """Let the agents of every question think, each by itself."""
        found: list[Seen] = []
        sender, chunk = local(self.graph.models[1]), 32
        with tqdm(total=len(examples), desc="states", unit="question", disable=not progress) as bar:
            for start in range(0, len(examples), chunk):
                some = examples[start : start + chunk]
                found += self._see(sender, some)
                bar.update(len(some))
        return found

    def _see(self, sender: LocalLLM, examples: Sequence[Example]) -> list[Seen]:
        layout, config = self.graph.models[1].layout, self.graph.config
        questions = list(dict.fromkeys(e.question for e in examples))
        asked = [ThinkRequest(layout.question(text), owner=SHARED, kind=SlotKind.PREFIX) for text in questions]
        read = dict(zip(questions, sender.think(asked), strict=True))
        agents = [self.graph.agents_of(example) for example in examples]
        prompts: list[list[Tensor]] = [[] for _ in range(sum(map(len, agents)))]
        latents: list[list[Tensor]] = [[] for _ in prompts]
        requests: list[ThinkRequest] = []
        for example, its in zip(examples, agents, strict=True):
            for agent in its:
                n = len(requests)
                tokens = self.graph.agent_tokens(agent, example.question, model=1)
                requests.append(
                    ThinkRequest(
                        tokens, FusedCache.plain(read[example.question]), config.latent_steps, watch=latents[n].append,
                        watch_prompt=prompts[n].append,
                    )
                )  # fmt: skip
        sender.think(requests)
        states = iter(
            handed_states(prompt[0], latent[0], config.transfer == "latent")
            for prompt, latent in zip(prompts, latents, strict=True)
        )
        return [
            Seen(e.question, tuple(next(states) for _ in its), self.answer_tokens(e.answer))
            for e, its in zip(examples, agents, strict=True)
        ]

    def answer_tokens(self, answer: str) -> tuple[int, ...]:
        """The answer as the receiver would write it behind the decision maker's prompt, end of turn included.

        Raises:
            DataError: an answer without words.
        """
        return answer_tokens(self.graph.layout, answer, self.graph.decision.answer_prefix)

    # -- learning ----------------------------------------------------------------------------------

    def fit(self, seen: Sequence[Seen], metrics: Path | None = None, progress: bool = True) -> list[dict[str, Any]]:
        """Fit; returns the lines that are also written to `metrics`, if it is named.

        Raises:
            ConfigError: fewer questions than are held out and a batch takes.
            TrainingError: a gradient is missing, or not finite.
        """
        config = self.config
        if len(seen) < config.held_out + config.batch_size:
            raise ConfigError(
                f"{len(seen)} questions are too few to hold out {config.held_out} and learn from {config.batch_size} "
                "at a time; pass more, or lower held_out"
            )
        watched, learned = seen[: config.held_out], seen[config.held_out :]
        if not float(self.perceiver.seen):  # one that goes on has learned to read states as it standardises them
            for each in learned:
                for states in each.states:
                    self.perceiver.observe(states)
        self.perceiver.train().requires_grad_(True)
        optimizer = torch.optim.AdamW(self.perceiver.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        order = stream("order of a fit", config.seed)
        history: list[dict[str, Any]] = []
        waiting: list[int] = []
        with tqdm(total=config.steps, desc="fit", unit="step", disable=not progress) as bar:
            for step in range(config.steps):
                began = time.perf_counter()
                while len(waiting) < config.batch_size:
                    waiting += order.permutation(len(learned)).tolist()
                chosen, waiting = waiting[: config.batch_size], waiting[config.batch_size :]
                for group in optimizer.param_groups:
                    group["lr"] = config.lr * config.rate(step)
                optimizer.zero_grad(set_to_none=True)
                loss = self.loss([learned[i] for i in chosen])
                loss.backward()
                norm = self._checked_norm()
                optimizer.step()
                line = {"step": step, "loss": float(loss.detach()), "gradient_norm": norm}
                last = step + 1 == config.steps
                if watched and (last or (step + 1) % max(1, config.steps // 10) == 0):
                    line["held_out_loss"] = self.held_out(watched)
                line["seconds"] = time.perf_counter() - began
                history.append(line)
                if metrics:
                    write_text(metrics, "".join(json.dumps(each) + "\n" for each in history))
                bar.set_postfix(loss=f"{line['loss']:.3f}")
                bar.update()
        self.perceiver.eval().requires_grad_(False)
        return history

    def loss(self, batch: Sequence[Seen]) -> Tensor:
        """0-dim, with gradient to the perceiver."""
        scores = self.log_probs(batch, [each.answer for each in batch])
        return -torch.stack([each.mean() for each in scores]).mean()

    @torch.no_grad()
    def held_out(self, seen: Sequence[Seen]) -> float:
        """The loss over questions that were not learned from."""
        size = self.config.batch_size
        parts = [seen[start : start + size] for start in range(0, len(seen), size)]
        return sum(float(self.loss(part)) * len(part) for part in parts) / len(seen)

    def log_probs(self, batch: Sequence[Seen], answers: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """(n,) of each answer's tokens, given the soft tokens of the question's agents."""
        soft = self.perceiver([states for each in batch for states in each.states])  # (agents in all, K, E)
        requests: list[ThinkRequest] = []
        owners: list[int] = []
        for number, each in enumerate(batch):
            past = FusedCache.plain(self._shared(each.question))
            for agent in range(len(each.states)):
                embeds = soft[len(requests)]
                requests.append(ThinkRequest((), past, 0, agent, SlotKind.LATENT, embeds=embeds))
                owners.append(number)
        gradient = torch.is_grad_enabled()
        carried = self.llm.think(requests, gradient)
        one = torch.ones((), device=self.llm.device)
        asked = []
        for number, each in enumerate(batch):
            own = [cache for cache, owner in zip(carried, owners, strict=True) if owner == number]
            arrived = [Incoming(cache, one, prepared=True) for cache in own]
            fused = self.graph.fuser(self._shared(each.question), arrived)
            asked.append(LogProbRequest(self.graph.decision_tokens(each.question), answers[number], fused))
        return self.llm.log_prob(asked)

    def _shared(self, question: str) -> KVCache:
        """The receiver's cache of a question, without gradient."""
        if question not in self._questions:
            if len(self._questions) >= _KNOWN_QUESTIONS:
                self._questions.pop(next(iter(self._questions)))
            with torch.no_grad():
                tokens = self.graph.layout.question(question)
                (self._questions[question],) = self.llm.think(
                    [ThinkRequest(tokens, owner=SHARED, kind=SlotKind.PREFIX)]
                )
        return self._questions[question]

    def _checked_norm(self) -> float:
        """Gradient norm before clipping; clips."""
        for name, parameter in self.perceiver.named_parameters():
            if parameter.grad is None:
                raise TrainingError(f"the perceiver's {name} gets no gradient")
            if not bool(torch.isfinite(parameter.grad).all()):
                raise TrainingError(f"the gradient of the perceiver's {name} is not finite; lower --lr")
        return float(nn.utils.clip_grad_norm_(self.perceiver.parameters(), self.config.clip))


def answer_tokens(layout: ChatLayout, answer: str, prefix: str) -> tuple[int, ...]:
    """An answer as a model would write it, end of turn included.

    Args:
        prefix: words put into the model's mouth; behind them the answer begins with a space.

    Raises:
        DataError: an answer without words.
    """
    if not answer.strip():
        raise DataError("a question of this task has no answer in words, so there is nothing to learn from")
    tokenizer = layout.tokenizer
    ends = sorted(EndOfTurn.of(tokenizer).tokens) or [tokenizer.eos_token_id]
    end = () if ends[0] is None else (int(ends[0]),)
    return layout.answer((" " if prefix else "") + answer.strip(), prefix) + end


def ends_of(graph: CacheGraph) -> tuple[ModelEnds, ModelEnds]:
    """Sender and receiver of a graph of two models.

    Raises:
        ConfigError: it has one, or more than two.
    """
    marks = graph.agent_models.fingerprints or ("",) * len(graph.models)
    found = [
        ModelEnds.of(local(t).model, t.layout.tokenizer, local(t).label, mark)
        for t, mark in zip(graph.models, marks, strict=True)
    ]
    if len(found) != 2:
        raise ConfigError(
            f"a perceiver is fitted from one model to another, but the graph has {len(found)}; name one model for all "
            "agents by --agent_models, and another by --llm_name"
        )
    return found[1], found[0]


def local(agent_model: AgentModel) -> LocalLLM:
    """The model behind a agent_model's queue."""
    llm = agent_model.llm.llm
    if not isinstance(llm, LocalLLM):
        raise ConfigError(f"a perceiver is fitted to a local model, got {type(llm).__name__}")
    return llm
