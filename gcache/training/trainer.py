"""The loop: rollouts, gradient, step, and what is written down of them.

Every draw is a function of (seed, step, question, rollout), so a run that was stopped anywhere
and is resumed from its checkpoint goes on as if it had not been. A checkpoint changes nothing of what is
learned, so when one is written may depend on the clock.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from gcache.build import Built
from gcache.config import GraphSpec
from gcache.errors import (
    BudgetSpent,
    CheckpointError,
    ConfigError,
    GcacheError,
    TrainingError,
)
from gcache.files import append_line, sync_file, write_text, writing
from gcache.gnn.cue_names import MESSAGES
from gcache.gnn.providers import PolicyProvider
from gcache.gnn.summary import learned_edges
from gcache.graph.result import RunResult
from gcache.tasks.example import Example, Task
from gcache.training import checkpoint as checkpoints
from gcache.training.config import AUTO, TrainConfig
from gcache.training.early_stop import why_done
from gcache.training.fuser_gradient import TakenGradient, require_several_heard, take_gradient
from gcache.training.metrics import Idleness, of_likeliest, of_rollouts, of_tokens, running_mean, signal_to_noise
from gcache.training.metrics_file import METRICS, step_lines
from gcache.training.objective import LossWeights, Objective, advantages
from gcache.training.progress import lines_above_the_bar, step_line
from gcache.training.pruning import Pruner
from gcache.training.rollouts import Graded, Rollouts
from gcache.training.same_run import gradient_of, require_same_settings
from gcache.training.stopping import terminable
from gcache.training.tensorboard import Board

logger = logging.getLogger(__name__)

#: Training questions, the first ones, of which every step's metrics say how likely each edge was.
WATCHED = 16
#: Seconds between two checkpoints at least, where nothing else is said: writing one waits for the disk.
SECONDS_BETWEEN = 30.0
#: Training questions that are looked at before training begins.
SHOWN = 16


def learning(built: Built) -> nn.ModuleDict:
    """The parts that get a gradient, under the names checkpoints use."""
    return nn.ModuleDict({name: part.module for name, part in built.parts.items() if part.learns})


def why_not(spec: GraphSpec) -> str:
    """Why a part gets no gradient, where one does not."""
    if spec.hard_edges:
        return "with hard_edges the policy alone learns, from topologies"
    return f"in the mode {spec.generation_mode} the API alone writes the text, and no gradient of it comes back"


class Reinforce:
    """Trains a graph's policy and fuser on a task.

    Args:
        built: the graph and its parts.
        task: gives the questions and grades the answers.
        config: see `TrainConfig`.
        out: folder for metrics and checkpoints.
        task_record: how to make the task again; stored with checkpoints.

    Raises:
        ConfigError: nothing in the graph can be trained, or its fuser never gets a gradient.
    """

    def __init__(
        self, built: Built, task: Task, config: TrainConfig, out: Path, task_record: Mapping[str, Any] | None = None
    ) -> None:
        self.built, self.task, self.config, self.out = built, task, config, out
        #: Is shown every step's metrics, where there is one.
        self.board: Board | None = None
        self.task_record = dict(task_record or {"name": task.name})
        self._require_sense(config)
        self.parts = learning(built)
        self.not_trained = sorted(built.parts.keys() - self.parts.keys())
        for name in self.not_trained:
            logger.warning("the %s is not trained: %s", name, why_not(built.spec))
        if not list(self.parts.parameters()):
            raise ConfigError(
                "nothing to train: the topology is fixed and the fuser learns nothing; use --topology learned, "
                "or --fuser concat with the generation mode local or hybrid"
            )
        self.optimizer = self._optimizer()
        self.rollouts = Rollouts(built.graph, task, config)
        questions = task.train(config.limit, config.seed) if config.fuser_gradient == AUTO else ()
        #: The gradient of log pi, settled once for the whole run.
        limits = built.llm.limits if built.llm else None
        self.gradient = take_gradient(config.fuser_gradient, built.graph, questions, limits)
        require_several_heard(built.graph, self.gradient)
        self.objective = Objective(built.graph, built.llm, self._prices(0), self.gradient.name)
        self.unreached = {name for name, _ in self.parts.named_parameters()}
        self.done = 0
        #: Running mean of utilities, the baseline "ema".
        self.running = 0.0
        self.pruner = Pruner(config.pruning_rate, config.iterations)
        #: Why training was broken off before its last step, "" where it was not.
        self.stopped = ""
        #: The metrics of all steps so far, also of those before the run was resumed.
        self.lines: list[dict[str, Any]] = []
        self.idleness = Idleness()
        #: After the last whole step: what is kept of a run that ends within the next one.
        self._state: checkpoints.State | None = None
        #: The step of the latest checkpoint, and when it was written; at first, when training began.
        self._saved, self._saved_at = 0, time.monotonic()

    def _require_sense(self, config: TrainConfig) -> None:
        """Refuse settings of the graph that do not go with training, or with these settings of it."""
        spec, graph = self.built.spec, self.built.graph
        if graph.config.rereads and graph.learns:
            raise ConfigError(
                "texts on caches that were read again are not learned from; learn a topology with --hard_edges true, "
                f"or use --{graph.config.rereads} 0"
            )
        if spec.heard is not None and config.pruning_rate:
            raise ConfigError(
                "pruning_rate cuts edges, after which fewer are heard in the mean than heard says; leave out either"
            )
        asked = [name for name in spec.cues if name in MESSAGES]
        shown = [a for e in self.task.train(SHOWN, config.seed) for a in graph.agents_of(e)] if spec.cues else []
        if "content" in spec.cues and not any(agent.private for agent in shown):
            logger.warning("no agent of the first questions alone knows anything, so the cue content says nothing")
        if asked and not any(agent.cites for agent in shown):
            logger.warning(
                "no agent of the first questions names another, so the cues %s say nothing; they are for documents",
                " and ".join(asked),
            )

    def _optimizer(self) -> torch.optim.AdamW:
        groups = []
        for name, module in self._named_parts().items():
            part = self.built.parts[name]
            rate, decay = (self._setting(value) for value in (part.lr, part.weight_decay))
            groups.append({"params": list(module.parameters()), "lr": rate, "base": rate, "weight_decay": decay})
        return torch.optim.AdamW(groups)

    def _setting(self, value: str | float) -> float:
        """A number, or what the configuration has under a name."""
        return float(getattr(self.config, value) if isinstance(value, str) else value)

    def _named_parts(self) -> dict[str, nn.Module]:
        """Those with parameters, as the optimizer's groups."""
        return {name: part for name, part in self.parts.items() if list(part.parameters())}

    # -- the loop ---------------------------------------------------------------------------

    def train(self, resume: bool = True, progress: bool = True) -> list[dict[str, Any]]:
        """Train to the last iteration; with `resume`, from the checkpoint in `out` if there is one.

        Returns the metrics of the steps run now; they are also lines of `out/metrics.jsonl`.

        Raises:
            CheckpointError: the checkpoint in `out` is broken or of another shape, or there is one and
                `resume` is False; or one cannot be written.
            TrainingError: a trainable parameter gets no gradient, or a gradient is not finite.
        """
        questions = list(self.task.train(self.config.limit, self.config.seed))
        self._resume_or_begin(resume)
        logger.info("fuser gradient: %s (%s)", self.gradient.name, self.gradient.why)
        self._saved_at = time.monotonic()
        history: list[dict[str, Any]] = []
        total = self.config.iterations
        with (
            terminable(), self._kept_at_the_end(), lines_above_the_bar(progress),
            tqdm(total=total, initial=self.done, desc="train", unit="step", disable=not progress) as bar,
        ):  # fmt: skip
            for step in range(self.done, total):
                if self.early:
                    break
                edges = learned_edges(self.built.graph, questions[:WATCHED])  # before the step changes them
                try:
                    metrics = self.step(step, self.rollouts.draw(questions, step))
                except BudgetSpent as error:
                    self.stopped = f"stopped after {step} of {total} steps: {error}"
                    logger.warning("%s; what was learned is kept, and the same command goes on from it", self.stopped)
                    self.save()
                    break
                metrics["learned_edges"] = [edge.ends_and_chances() for edge in edges]
                self._write(metrics)
                if self.board:
                    self.board.show(metrics, edges)
                history.append(metrics)
                self.lines.append(metrics)
                logger.info("%s", step_line(metrics, edges, total))
                self.done = step + 1
                self._state = self._take()
                if self._is_due():
                    self.save()
                bar.set_postfix(utility=f"{metrics['utility']:.2f}", edges=f"{metrics['edges']:.1f}")
                bar.update()
        if history and self.early:
            logger.info("%s", self.early)
        return history

    @property
    def early(self) -> str:
        """Why training has ended before its last step (`gcache.training.early_stop`); "" where it has not."""
        return why_done(self.lines, self.config.stop_when_right, self.config.iterations)

    @contextmanager
    def _kept_at_the_end(self) -> Iterator[None]:
        """Whatever ends the run, its whole steps are kept: of the one in progress, only a part may be done."""
        try:
            yield
        except CheckpointError:  # it is the keeping that failed
            raise
        except BaseException:
            if self._state is not None and self._state.step > self._saved:
                try:
                    self.save()
                except GcacheError as error:
                    logger.error("the steps after step %d are lost: %s", self._saved, error)
            raise

    def _is_due(self) -> bool:
        """Whether a checkpoint is to be written now."""
        every = self.config.checkpoint_every
        if self.done == self.config.iterations or self.early:
            return True
        return time.monotonic() - self._saved_at >= SECONDS_BETWEEN if every is None else self.done % every == 0

    def step(self, step: int, questions: Sequence[Example]) -> dict[str, Any]:
        """One optimizer step; returns its metrics."""
        started = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * (1 - step / self.config.iterations)
        graded = self.rollouts.run(step, questions)
        groups, net = graded.groups, graded.net
        ran = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        advantage = advantages(net, self.config.baseline, self.running)
        measured = self.objective.backward(groups, advantage, self._prices(step), graded.values)
        self.running = running_mean(self.running, float(net.mean()), step)
        norms = self._checked_norms()
        if self.unreached and measured["replayed"]:
            raise TrainingError(f"trainable parameters that get no gradient: {', '.join(sorted(self.unreached))}")
        self.optimizer.step()
        noise = signal_to_noise(self.optimizer, self._named_parts())
        measured = {**measured, **noise, "net_utility": float(net.mean())}
        measured["told_apart"] = self.idleness.mixed_groups(net)
        self._prune(step, groups)
        return self._metrics(step, graded, measured, norms, started, ran)

    def _prune(self, step: int, groups: Sequence[Sequence[RunResult]]) -> None:
        provider = self.built.graph.topology_provider
        cut = self.pruner.after(step, groups)
        if cut is not None and isinstance(provider, PolicyProvider):
            provider.pruned |= cut
            logger.info("pruned %d of %d edges between roles that were seen", len(cut), len(self.pruner.seen))

    def _prices(self, step: int) -> LossWeights:
        config = self.config
        entropy = config.scheduled("entropy_bonus", step)
        return LossWeights(config.edge_price, entropy, config.anchor_strength, config.anchor)

    def _checked_norms(self) -> dict[str, float]:
        """Gradient norm of each part before clipping; clips."""
        norms: dict[str, float] = {}
        for name, part in self.parts.items():
            for key, parameter in part.named_parameters():
                if parameter.grad is None:
                    continue
                self.unreached.discard(f"{name}.{key}")
                if not bool(torch.isfinite(parameter.grad).all()):
                    raise TrainingError(f"the gradient of {name}.{key} is not finite; lower --lr")
            norms[name] = float(nn.utils.clip_grad_norm_(list(part.parameters()), self.config.clip))
        return norms

    # -- what is written down ---------------------------------------------------------------

    def _metrics(
        self,
        step: int,
        graded: Graded,
        measured: Mapping[str, float],
        norms: Mapping[str, float],
        started: float,
        ran: float,
    ) -> dict[str, Any]:
        now = time.perf_counter()
        return {
            **of_rollouts(step, graded),
            **measured,
            **{f"gradient_norm_{name}": value for name, value in norms.items()},
            "lr": self.optimizer.param_groups[0]["lr"],
            "not_trained": self.not_trained,
            "fuser_gradient": self.gradient.name,
            **of_tokens(graded),
            **of_likeliest(graded),
            "seconds_rollouts": ran - started - graded.seconds,
            "seconds_gradient": now - ran,
            "seconds": now - started,
        }

    def _write(self, metrics: Mapping[str, Any]) -> None:
        append_line(self.out / METRICS, json.dumps(metrics))

    def _take(self) -> checkpoints.State:
        training = {**asdict(self.config), "fuser_gradient": self.gradient.name}
        return checkpoints.take(
            self.done, self.built, self.optimizer, self.task_record, training, self.running,
            self.pruner.to_json(),
        )  # fmt: skip

    def save(self) -> Path:
        """Write a checkpoint of the whole steps done so far."""
        state = self._state or self._take()
        metrics = self.out / METRICS
        if metrics.exists():  # a checkpoint without its lines could not be resumed
            with writing(metrics):
                sync_file(metrics)
        folder = checkpoints.write(self.out, state)
        self._saved, self._saved_at = state.step, time.monotonic()
        return folder

    def check(self, resume: bool = True) -> None:
        """Raise what would keep `train` from beginning; nothing is written or loaded.

        Raises:
            CheckpointError: see `train`.
        """
        self._found(resume)

    def _found(self, resume: bool) -> tuple[checkpoints.Checkpoint | None, list[str]]:
        """The checkpoint in `out`, if there is one, and the lines of its steps."""
        found = None
        if checkpoints.has_checkpoint(self.out):
            if not resume:
                raise CheckpointError(f"{self.out} holds a checkpoint; resume it, or pass another --out")
            found = checkpoints.read(self.out)
            require_same_settings(self.out, found, self.built.spec, self.config, self.task_record)
        lines = step_lines(self.out / METRICS, 0 if found is None else found.step)
        if found is not None and found.moments is None:
            self._require_trained(found, lines)
        return found, lines

    def _require_trained(self, found: checkpoints.Checkpoint, lines: Sequence[str]) -> None:
        """Of an older version, whose checkpoints do not say what has moments: all have, once something was learned
        from answers."""
        here = {name.rpartition(".")[0] for name in found.optimizer}
        without = sorted({name for name, _ in self.parts.named_parameters()} - here)
        if without and any(json.loads(line).get("replayed") for line in lines):
            raise CheckpointError(
                f"{found.folder / checkpoints.OPTIMIZER} lacks the moments of {without[0]} and {len(without) - 1} more "
                "parameters, which were trained; this run can be looked at and asked, not resumed: pass another --out"
            )

    def _resume_or_begin(self, resume: bool) -> None:
        found, lines = self._found(resume)
        self.lines = [json.loads(line) for line in lines]
        if found is not None:
            checkpoints.restore(found, self.built, self.optimizer)
            self.done, self.running, self._saved = found.step, found.running, found.step
            # what has moments got a gradient before; in the next step nobody may happen to be heard
            self.unreached = {name for name, p in self.parts.named_parameters() if p not in self.optimizer.state}
            self.pruner.restore(found.watched)
            if self.config.fuser_gradient == AUTO:  # whatever the limits of this run would say
                self.gradient = TakenGradient(gradient_of(found), "as before the run was stopped")
                self.objective = replace(self.objective, gradient=self.gradient.name)
            if self.early:
                logger.info("%s is complete: %s", self.out, self.early)
            elif self.done == self.config.iterations:
                logger.info("%s is complete: all %d steps are done, and nothing is left to train", self.out, self.done)
            else:
                logger.info("resuming %s after step %d", self.out, self.done)
        # lines of steps after the checkpoint will be written again
        write_text(self.out / METRICS, "".join(f"{line}\n" for line in lines))
