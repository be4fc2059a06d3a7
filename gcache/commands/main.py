"""The `gcache` command."""

from __future__ import annotations

import argparse
import dataclasses
import io
import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gcache import __version__
from gcache.environment import limit_threads
from gcache.errors import ConfigError, GcacheError
from gcache.runtime.sharing import watched

TRAIN_EXAMPLES = """examples:
  gcache train --task split_facts --report 200 --out runs/split_facts
  gcache train --task split_facts --hops 2 --llm_name MODEL.gguf --latent_steps 0 --report 200
  gcache train --task split_facts --channels cache latents text --latent_choices 0 2 --token_price 0.5
  gcache train --task gsm8k --data train.jsonl --iterations 10 --batch_size 4 --out runs/gsm8k
  gcache train --task split_facts --adversary 1 --task_option gossip=false n_agents=4 --latent_steps 0
A run whose --out holds a checkpoint of the same settings is resumed there.
"""
EVAL_EXAMPLES = """example:
  gcache eval --checkpoint runs/split_facts --limit 200 --seed 0 --json eval.json
  gcache eval --method latent_mas --task gsm8k --data test.jsonl --limit 50
"""
COMPARE_EXAMPLES = """examples:
  gcache compare --methods single,text_mas,latent_mas,gcache --task gsm8k --data test.jsonl --json gsm8k.json
  gcache compare --methods latent_mas,gcache --task medqa --data medqa.json --prompt hierarchical
Without --checkpoint nothing was learned, so a data file is used whole; with one, its held-out part.
A checkpoint's model keeps its dtype unless --dtype says otherwise; in float32 equal prompts
give equal texts, which bfloat16 may part by rounding.
"""
CONTROLS_EXAMPLES = """examples:
  gcache controls runs/split_facts --limit 200 --json controls.json
  gcache controls runs/gsm8k --task gsm8k --data test.jsonl --only "no transfer,masked,other question"
Where cutting the channel costs nothing, the channel carried nothing. Controls:
  no transfer, masked, zeroed, noise, other question         nothing the agents thought arrives
  random latents, identity W_a, random W_a                   latent steps carry nothing, or another map
  all edges, star, chain, layered, debate, random edges      other edges than the learned ones
  same words as text                                         the agents' words in one prompt, no cache
"""
CURVES_EXAMPLES = """example:
  gcache curves runs/seed0 runs/seed1 --out curves.png
Pale lines are single steps, strong ones the mean of five.
"""
RUN_EXAMPLES = """examples:
  gcache run "Ann has 3 boxes of 12 eggs and breaks 5 eggs. How many are whole?"
  gcache run --topology star --trace "What is 17 * 6?"
  gcache run --checkpoint runs/gsm8k "What is 17 * 6?"
"""

#: Flags that say what model there is, and how methods go.
OF_A_MODEL = ("llm_name", "dtype", "device", "device_map", "quantization")
OF_A_METHOD = (
    "prompt", "latent_steps", "latent_only", "latent_space_realign", "think", "max_new_tokens", "topology",
    "chat_template_kwargs", "prompt_date",
)  # fmt: skip


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line, not behind a page of all its flags."""

    def error(self, message: str) -> NoReturn:
        missing = message.partition(" are required: ")[2]
        several = any(action.option_strings and action.nargs in ("+", "*") for action in self._actions)
        if missing and not missing.startswith("-") and several:
            message += f" (a flag of several values takes every word after it: write {missing.split(',')[0]} before it)"
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help says more\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 for anything the user can mend."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # texts of models and servers hold whatever they hold
        sys.stdout.reconfigure(errors="backslashreplace")
    return guarded(lambda: _dispatch(argv))


def guarded(command: Callable[[], int]) -> int:
    """Run a command; a user's error becomes one line on stderr and exit code 2."""
    try:
        return command()
    except GcacheError as error:
        print(f"gcache: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gcache: stopped; a training run is resumed by the same command", file=sys.stderr)
        return 130


def log_to_stderr(level: int = logging.INFO) -> None:
    """Our own messages from `level` on, other libraries' only from warnings on."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname).1s %(name)s: %(message)s")
    logging.getLogger("gcache").setLevel(level)


def _dispatch(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    log_to_stderr(logging.DEBUG if args.verbose else logging.INFO)
    cores = limit_threads()  # before anything imports torch
    if cores is not None:
        logging.getLogger(__name__).debug("this process is given %d processors, and uses as many threads", cores)
    with watched():
        code: int = args.command(args)
    return code


def _parser() -> argparse.ArgumentParser:
    from gcache.commands.fit_perceiver import add_fit
    from gcache.commands.fit_router import add_fit_router
    from gcache.commands.flags import (
        add_api_flags,
        add_choice_flags,
        add_graph_flags,
        add_limit_flags,
        add_method_flags,
        add_mixture_flags,
        add_model_flags,
        add_train_flags,
    )
    from gcache.commands.inspect import add_inspect
    from gcache.commands.serve import add_parser as add_serve
    from gcache.gnn.topology import AGENT_PROBABILITY, DECISION_PROBABILITY
    from gcache.graph.result import IN_FLIGHT
    from gcache.training.config import COMPARED, TrainConfig

    parser = OneLineParser(prog="gcache", description="Agents that hand each other KV caches along a graph.")
    parser.add_argument("--version", action="version", version=f"gcache {__version__}")
    parser.add_argument("--verbose", action="store_true", help="log more")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str, examples: str) -> Any:
        sub = commands.add_parser(
            name, help=text, description=text, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        sub.set_defaults(command=run)
        return sub

    train = command("train", _train, "Train a graph's topology policy and fuser on a task.", TRAIN_EXAMPLES)
    _add_task_flags(train, required=True)
    train.add_argument("--out", type=Path, help="folder of the run (default: runs/TASK-seedSEED)")
    train.add_argument("--iterations", type=int, default=TrainConfig.iterations, help="steps (default: %(default)s)")
    train.add_argument("--batch_size", type=int, default=TrainConfig.batch_size, help="questions per step")
    train.add_argument("--limit", type=int, help="training questions to draw from (default: all)")
    train.add_argument(
        "--report", type=int, nargs="?", const=200, default=0, metavar="N",
        help="end with a table: accuracy on N test questions (200) beside fixed graphs and text in one prompt",
    )  # fmt: skip
    train.add_argument("--compare", nargs="*", default=list(COMPARED), help="fixed topologies in the report")
    train.add_argument("--topology", default="learned", help="learned, or a fixed one to train the fuser alone on")
    train.add_argument(
        "--fuser", default="concat", help="concat, relevance, weighted_sum or first (default: %(default)s)"
    )
    train.add_argument("--roles", nargs="+", default=[], help="which of the domain's roles (default: all)")
    train.add_argument("--decision_method", default="refer", help="refer, direct or vote (default: %(default)s)")
    train.add_argument("--encoder", default="minilm", help="of roles and questions: minilm or hash")
    for name, start, what in (
        ("decision", DECISION_PROBABILITY, "into the decision maker"), ("agent", AGENT_PROBABILITY, "among agents"),
    ):  # fmt: skip
        train.add_argument(
            f"--{name}_probability", type=float, default=start,
            help=f"of an edge {what}, before training (default: %(default)s)",
        )  # fmt: skip
    for add in (
        add_model_flags, add_mixture_flags, add_graph_flags, add_choice_flags, add_api_flags, add_limit_flags,
    ):  # fmt: skip
        add(train)
    add_train_flags(train, TrainConfig)
    train.add_argument(
        "--tensorboard", action="store_true", help="write numbers and topologies for TensorBoard to OUT/tensorboard"
    )

    evaluate = command("eval", _eval, "Accuracy of a checkpoint, or of a method, on test questions.", EVAL_EXAMPLES)
    _add_task_flags(evaluate, required=False)
    evaluate.add_argument("--checkpoint", help="--out folder of a training run, or a step-* folder")
    evaluate.add_argument("--method", help="instead: one of the methods of `gcache compare`, which see")
    evaluate.add_argument("--limit", type=int, default=200, help="questions (default: %(default)s)")
    evaluate.add_argument("--seed", type=int, default=0, help="of the choice of questions (default: %(default)s)")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the result, row by row, to this file")
    evaluate.add_argument(
        "--batch_size", type=int, default=IN_FLIGHT, help="questions in flight at once (default: %(default)s)"
    )
    add_api_flags(evaluate, modes=False)
    add_method_flags(evaluate)
    add_model_flags(evaluate)
    add_limit_flags(evaluate)

    compare = command("compare", _compare, "Several methods on the same questions.", COMPARE_EXAMPLES)
    compare.add_argument(
        "--methods", required=True, help="separated by commas: single, text_mas, latent_mas, gdesigner, gcache"
    )
    _add_task_flags(compare, required=True)
    compare.add_argument("--limit", type=int, default=200, help="questions (default: %(default)s)")
    compare.add_argument("--seed", type=int, default=0, help="of the choice of questions (default: %(default)s)")
    compare.add_argument("--json", type=Path, metavar="FILE", help="write everything, answer by answer, to this file")
    compare.add_argument("--checkpoint", help="a trained graph for gcache and gdesigner; all methods use its model")
    compare.add_argument(
        "--compare_quantizations", nargs="+", default=[], metavar="Q",
        help="every method in each of these: none, 8bit, 4bit (default: --quantization alone)",
    )  # fmt: skip
    add_method_flags(compare)
    add_model_flags(compare)
    add_limit_flags(compare)

    controls = command(
        "controls", _controls, "A trained graph with its channel cut, blocked or replaced.", CONTROLS_EXAMPLES
    )
    controls.add_argument("checkpoint", help="--out folder of a training run, or a step-* folder")
    _add_task_flags(controls, required=False)
    controls.add_argument("--only", default="", help="controls, separated by commas (default: all that apply)")
    controls.add_argument("--limit", type=int, default=200, help="questions (default: %(default)s)")
    controls.add_argument("--seed", type=int, default=0, help="of questions and draws (default: %(default)s)")
    controls.add_argument("--json", type=Path, metavar="FILE", help="write everything, answer by answer, to this file")
    controls.add_argument("--plot", type=Path, metavar="FILE", help="picture (default: beside --json, as .png)")
    add_api_flags(controls, modes=False)
    add_limit_flags(controls)

    curves = command("curves", _curves, "Learning curves of training runs, as a picture.", CURVES_EXAMPLES)
    curves.add_argument("runs", nargs="+", type=Path, help="--out folders of training runs, or metrics files")
    curves.add_argument("--out", type=Path, default=Path("curves.png"), help="picture (default: %(default)s)")
    curves.add_argument("--title", default="", help="above the picture")

    add_inspect(command, _add_task_flags)
    add_fit(command, _add_task_flags)
    add_fit_router(command)

    run = command("run", _run, "Answer one question.", RUN_EXAMPLES)
    run.add_argument("question")
    run.add_argument("--checkpoint", help="a trained graph; without it, an untrained one is put together")
    run.add_argument("--topology", default="chain", help="without a checkpoint (default: %(default)s)")
    run.add_argument("--fuser", default="concat", help="without a checkpoint (default: %(default)s)")
    run.add_argument("--temperature", type=float, default=0.0, help="of the answer; 0 is greedy (default: %(default)s)")
    run.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    run.add_argument("--trace", action="store_true", help="print who did what, when, and what went over the edges")
    for add in (add_model_flags, add_mixture_flags, add_graph_flags, add_api_flags, add_limit_flags):
        add(run)

    add_serve(command, lambda line: print(line, flush=True))
    return parser


def _add_task_flags(parser: argparse.ArgumentParser, required: bool) -> None:
    from gcache.tasks.registry import TASKS

    text = ", ".join(TASKS) + ("" if required else " (default: the one it was trained on)")
    parser.add_argument("--task", required=required, help=text)
    parser.add_argument("--data", help="data file of a task that reads one: JSONL, JSON or CSV, may be gzipped")
    parser.add_argument("--hops", type=int, help="facts in a row that an answer of split_facts takes: 1 or 2")
    parser.add_argument("--adversary", type=int, metavar="N", help="agents that push a wrong answer (dealt-out tasks)")
    parser.add_argument(
        "--accept_last_number", action="store_true",
        help="grade a number that merely stands last as if it were stated (tasks with numbers; counted as unstated)",
    )
    parser.add_argument(
        "--task_option", nargs="+", default=[], metavar="NAME=VALUE",
        help="for example n_agents=4 for split_facts, whole_file=true for any task with --data",
    )


def _train(args: argparse.Namespace) -> int:
    from gcache import session
    from gcache.commands import flags

    task_spec = session.TaskSpec(args.task, args.data, task_options(args))
    task = task_spec.make()
    spec = flags.graph_spec(
        args, task.domain, flags.graph_config(args, task.max_new_tokens, args.num_rounds), topology=args.topology,
        fuser=args.fuser, **flags.choices(args),
        roles=tuple(args.roles), decision_method=args.decision_method, encoder=args.encoder,
        decision_probability=args.decision_probability, agent_probability=args.agent_probability,
    )  # fmt: skip
    if args.report < 0:
        raise ConfigError(f"--report must be 0 or more, got {args.report}")
    config = flags.train_config(args, args.iterations, args.batch_size, args.limit)
    out = args.out or Path("runs") / f"{args.task}-seed{args.seed}"
    limits = flags.limits(args)
    api = flags.api_if_asked(args, spec)
    result = session.train(
        task_spec, spec, config, out, args.report, args.compare, limits=limits, api=api, tensorboard=args.tensorboard
    )
    print_outcome(args, spec, result, api)
    if result.table:
        print(f"report:     {out / 'report.md'}, report.json, topology.png")
    return 0


def _eval(args: argparse.Namespace) -> int:
    from gcache import session
    from gcache.commands import flags

    spec = task_if_named(args)
    if args.method:
        if args.task is None:
            raise ConfigError("--method needs --task")
        if args.on_error != "stop":
            raise ConfigError("--on_error must be stop with --method: methods are compared question by question")
        args.methods = args.method
        return _compare(args)
    if not args.checkpoint:
        raise ConfigError("nothing to evaluate; name a --checkpoint, or a --method")
    _require_defaults(args, (*OF_A_MODEL, *OF_A_METHOD))
    if args.batch_size < 1:
        raise ConfigError(f"--batch_size must be 1 or more, got {args.batch_size}")
    found = session.evaluate_checkpoint(
        args.checkpoint, spec, args.limit, args.seed, args.json, args.batch_size, limits=flags.limits(args),
        api=lambda made: flags.api(args, made.api_model, made.base_url), on_error=args.on_error,
    )  # fmt: skip
    tokens = ", ".join(f"{v:.1f} {kind}" for kind, v in found.tokens.items() if v or not kind.startswith("api"))
    print(
        f"accuracy    {found.accuracy:.3f}  (95 % interval {found.low:.3f} to {found.high:.3f}, n = {found.n})\n"
        f"unparsed    {found.unparsed}\n"
        f"unstated    {found.unstated}\n"
        f"cut         {found.cut}\n"
        + (f"failed      {found.failed}, not graded\n" if found.failed else "")
        + (f"stopped     {found.stopped}\n" if found.stopped else "")
        + f"edges kept  {found.edges:.2f} per question, {found.edges_kept:.0%} of the full graph's\n"
        f"tokens      per question: {tokens}\n"
        f"seconds     {found.seconds:.1f}"
    )
    return 0


def _compare(args: argparse.Namespace) -> int:
    from gcache import session
    from gcache.agents.chat_template import TemplateSettings
    from gcache.build import GraphSpec
    from gcache.commands import flags
    from gcache.evaluation.methods import MethodSettings
    from gcache.graph.result import GraphConfig

    task_spec = session.TaskSpec(args.task, args.data, task_options(args))
    task = task_spec.make()
    if args.checkpoint:
        _require_defaults(
            args, (*(name for name in OF_A_MODEL if name != "dtype"), "topology", "chat_template_kwargs", "prompt_date")
        )
    tokens = task.max_new_tokens if args.max_new_tokens is None else args.max_new_tokens
    template = TemplateSettings(args.chat_template_kwargs, args.prompt_date)
    settings = MethodSettings(
        task.domain, tokens, args.prompt, args.latent_steps, args.latent_only, args.think, template
    )
    transfer = "latent" if args.latent_only else "own"
    spec = GraphSpec(
        llm_name=args.llm_name, dtype=args.dtype, device=args.device, device_map=args.device_map,
        quantization=args.quantization, domain=task.domain, topology=args.topology, seed=args.seed,
        latent_space_realign=args.latent_space_realign,
        graph=GraphConfig(latent_steps=args.latent_steps, transfer=transfer, max_new_tokens=tokens,
                          chat_template_kwargs=template.kwargs, prompt_date=template.date),
    )  # fmt: skip
    names = [name.strip() for name in args.methods.split(",") if name.strip()]
    found = session.compare_methods(
        names, task_spec, spec, settings, args.limit, args.seed, args.checkpoint, args.json,
        limits=flags.limits(args), dtype=None if args.dtype == "auto" else args.dtype,
        quantizations=getattr(args, "compare_quantizations", ()),
    )  # fmt: skip
    print(f"\n{found.table}", end="")
    return 0


def _controls(args: argparse.Namespace) -> int:
    from gcache import session
    from gcache.commands import flags

    if args.on_error != "stop":
        raise ConfigError("--on_error must be stop: controls are compared question by question, so none may be missing")
    found = session.control_checkpoint(
        args.checkpoint, task_if_named(args), [name.strip() for name in args.only.split(",") if name.strip()],
        args.limit, args.seed, args.json, args.plot, limits=flags.limits(args),
        api=lambda made: flags.api(args, made.api_model, made.base_url),
    )  # fmt: skip
    print(f"\n{found.table}", end="")
    return 0


def _curves(args: argparse.Namespace) -> int:
    from gcache.inspect.curves import draw_curves, read_metrics

    names = [path.stem if path.is_file() else path.name for path in args.runs]
    if len(set(names)) < len(names):
        names = [str(path) for path in args.runs]
    draw_curves({name: read_metrics(path) for name, path in zip(names, args.runs, strict=True)}, args.out, args.title)
    print(args.out)
    return 0


def task_if_named(args: argparse.Namespace) -> Any:
    """The task of the flags; None for the one that a checkpoint was trained on."""
    from gcache import session

    options = task_options(args)
    if args.task is None and (args.data or options):
        raise ConfigError("--data, --hops, --adversary, --accept_last_number and --task_option need --task")
    return session.TaskSpec(args.task, args.data, options) if args.task else None


def task_options(args: argparse.Namespace) -> dict[str, Any]:
    from gcache.commands import flags

    named = {name: getattr(args, name) for name in ("hops", "adversary") if getattr(args, name) is not None}
    if args.accept_last_number:
        named["accept_last_number"] = True
    return {**flags.task_options(args.task_option), **named}


def _run(args: argparse.Namespace) -> int:
    from gcache import session
    from gcache.build import build
    from gcache.commands import flags

    if not args.question.strip():
        raise ConfigError("the question is empty; pass it as one quoted argument")
    if not 0 <= args.temperature < math.inf:
        raise ConfigError(f"--temperature must be 0 (greedy) or more, got {args.temperature}")
    if args.checkpoint:
        _require_only_its_own(args)
        graph = session.load_graph(
            args.checkpoint, flags.limits(args), lambda made: flags.api(args, made.api_model, made.base_url)
        )
    else:
        spec = flags.graph_spec(
            args, "maths", flags.graph_config(args, 256), topology=args.topology, fuser=args.fuser
        )  # fmt: skip
        api = flags.api_if_asked(args, spec)
        graph = build(spec, flags.limits(args), api).graph
    result = graph.run(args.question, temperature=args.temperature, seed=args.seed)
    print(result.answer)
    if args.trace:
        _print_trace(result)
    return 0


def _require_only_its_own(args: argparse.Namespace) -> None:
    """Refuse flags of the model and the graph beside a checkpoint, which has its own.

    Raises:
        ConfigError: naming them.
    """
    from gcache.llm.cache_budget import Limits

    own = {"question", "checkpoint", "trace", "verbose", "on_error", "temperature", "seed"}
    allowed = own | {field.name for field in dataclasses.fields(Limits)} | set(_api_flags())
    defaults = vars(_parser().parse_args(["run", "a question"]))
    _refuse_changed(args, defaults, [name for name in defaults if name not in allowed])


def _require_defaults(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse flags of `gcache compare`, by name, that a checkpoint makes meaningless."""
    defaults = vars(_parser().parse_args(["compare", "--methods", "single", "--task", "gsm8k"]))
    _refuse_changed(args, defaults, names)


def _refuse_changed(args: argparse.Namespace, defaults: dict[str, Any], names: Sequence[str]) -> None:
    given = [name for name in names if getattr(args, name) != defaults[name]]
    if given:
        raise ConfigError(
            f"{', '.join(f'--{name}' for name in given)}: a checkpoint has its own model and graph; leave these out, "
            "or leave out --checkpoint to put an untrained graph together"
        )


def _api_flags() -> list[str]:
    """Flags that say how an API is asked, not what the graph is."""
    from gcache.commands.flags import add_api_flags

    parser = argparse.ArgumentParser(add_help=False)
    add_api_flags(parser, modes=False)
    return list(vars(parser.parse_args([])))


def print_outcome(args: argparse.Namespace, spec: Any, result: Any, api: Any) -> None:
    """Where a training run ended, what it did not train, and what the API was asked in all."""
    from gcache.commands import flags

    if result.table:
        print(f"\n{result.table}")
    if result.stopped:
        print(f"{result.stopped}; the same command goes on from there")
    for name in result.not_trained:
        print(f"not trained: the {name} (in the mode {spec.generation_mode}, no gradient reaches it)")
    if api is not None:
        budget = api.budget
        price = flags.cost(args, budget.read, budget.written)
        print(
            f"API:        {budget.requests} requests, {budget.read} tokens read, {budget.written} written"
            + (f", cost {price}" if price else "")
        )
    print(f"checkpoint: {result.checkpoint}\nmetrics:    {result.out / 'metrics.jsonl'}")


def _print_trace(result: Any) -> None:
    from gcache.gnn.topology import DECISION

    print("\n  start    end  who              what     prefilled latent generated received")
    for s in result.trace:
        print(
            f"{s.started:7.2f} {s.ended:6.2f}  {s.role:16.16} {s.what:8} {s.prefilled:9} {s.latent:6} "
            f"{s.generated:9} {s.received:8}  {s.note}".rstrip()
        )
    names = [agent.role for agent in result.agents] + [DECISION]
    for (source, target), size in sorted(result.edge_bytes.items()):
        print(f"{names[source]} -> {names[target]}: {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    sys.exit(main())
