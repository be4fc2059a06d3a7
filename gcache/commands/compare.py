"""`gcache compare`: several methods on the same questions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gcache.commands import flags
from gcache.commands.graph_flags import AS_THE_TASK
from gcache.commands.plugin_flags import add_plugin_flag
from gcache.commands.task_flags import add_task_flags, task_spec
from gcache.config import GraphSpec, TaskSpec
from gcache.errors import ConfigError, unknown
from gcache.evaluation.methods import METHODS, OF_ONE_PROMPT, MethodSettings
from gcache.files import write_json
from gcache.graph.run_config import GraphConfig
from gcache.llm.cache_budget import Limits

if TYPE_CHECKING:
    from gcache.build import Built
    from gcache.evaluation.compare import Compared
    from gcache.evaluation.method import Method
    from gcache.evaluation.quantized import SingleEntryCache
    from gcache.llm.local import LocalLLM

EXAMPLES = """examples:
  gcache compare --methods single,text_mas,latent_mas,gcache --task gsm8k --data test.jsonl --json gsm8k.json
  gcache compare --methods latent_mas,gcache --task medqa --data medqa.json --prompt hierarchical
  gcache compare --methods single,self_consistency,best_of_n --task gsm8k --data test.jsonl --texts texts.jsonl
  gcache compare --methods gcache --hands reasoning --topology star --decision_method vote --latent_steps 0 \
      --task gsm8k --data test.jsonl --texts texts.jsonl
Without --checkpoint nothing was learned, so a data file is used whole; with one, its held-out part.
A checkpoint's model keeps its dtype unless --dtype says otherwise; in float32 equal prompts
give equal texts, which bfloat16 may part by rounding.
"""
#: Flags that say what model there is, and how methods go.
OF_A_MODEL = tuple(flags.names_of(GraphSpec, "model"))
REPAIRS = ("positions", "slot_temperature", "slot_scale")
OF_GRAPH = ("topology", "decision_method", "fuser", "latent_space_realign", *REPAIRS)
HANDED = ("hands", "reason_tokens", "agent_temperature", "reread", "reread_share")
ORDER, QUESTION = ("question_order",), ("question",)  # a field, and its flag
TEMPLATE = ("chat_template_kwargs", "prompt_date")
#: Flags of methods, and the methods that heed them.
HEEDED: Sequence[tuple[tuple[str, ...], tuple[str, ...]]] = (
    (("decision_method", "fuser", *REPAIRS, *HANDED), ("gcache",)),
    (QUESTION, ("gcache", *OF_ONE_PROMPT)),
    (("topology",), ("gcache", "gdesigner")),
    (("samples", "sample_temperature"), ("self_consistency", "best_of_n")),
    (("prompt",), ("text_mas", "latent_mas")),
)
OF_A_METHOD = (*flags.names_of(MethodSettings, "methods"), *OF_GRAPH, *HANDED, *QUESTION, *TEMPLATE)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=partial(run, parser))
    parser.add_argument(
        "--methods", required=True, help=f"separated by commas: {', '.join(METHODS)}"
    )
    add_task_flags(parser, required=True)
    parser.add_argument(
        "--documents", nargs="+", default=[], metavar="CHOICE",
        help="every method with each of these of a question's documents alone: all, none, supporting (those that the "
        "data says are needed), cosine:K and bm25:K (the K nearest to the question); for tasks that deal documents "
        "out (default: all)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=200, help="questions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of questions (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, answer by answer, to this file")
    add_plugin_flag(parser)
    parser.add_argument("--checkpoint", help="a trained graph for gcache and gdesigner; all methods use its model")
    parser.add_argument(
        "--compare_quantizations", nargs="+", default=[], metavar="Q",
        help="every method in each of these: none, 8bit, 4bit (default: --quantization alone)",
    )  # fmt: skip
    add_method_flags(parser)
    flags.add(parser, Limits)


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the model, and of methods on it."""
    flags.add(parser, MethodSettings, max_new_tokens=AS_THE_TASK)
    flags.add(parser, GraphSpec, *OF_GRAPH, topology=flags.Default("full", "full; of gcache and gdesigner alone"))
    flags.add(parser, GraphConfig, *HANDED, *ORDER, *TEMPLATE)
    flags.add(parser, GraphSpec, "model")


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Compare, and print the table."""
    from gcache.agents.chat_template import TemplateSettings

    asked = task_spec(args)
    task = asked.make()
    if args.checkpoint:
        flags.refuse_changed(
            parser, args,
            [*(name for name in OF_A_MODEL if name != "dtype"), *OF_GRAPH, *HANDED, *QUESTION, *TEMPLATE],
        )  # fmt: skip
    tokens = args.max_new_tokens
    if tokens is None:
        tokens = _limit_of(args.checkpoint) if args.checkpoint else task.max_new_tokens
    template = TemplateSettings(args.chat_template_kwargs, args.prompt_date)
    settings = flags.make(
        MethodSettings, args, domain=task.domain, max_new_tokens=tokens, template=template,
        question_order=args.question,
    )  # fmt: skip
    running = flags.make(
        GraphConfig, args, transfer="latent" if args.latent_only else "own", max_new_tokens=tokens
    )
    spec = flags.make(GraphSpec, args, domain=task.domain, graph=running)
    names = [name.strip() for name in args.methods.split(",") if name.strip()]
    _refuse_unheeded(parser, args, names)
    found = compare_methods(
        names, asked, spec, settings, args.limit, args.seed, args.checkpoint, args.json,
        limits=flags.make(Limits, args), dtype=None if args.dtype == "auto" else args.dtype,
        quantizations=getattr(args, "compare_quantizations", ()), documents=getattr(args, "documents", ()),
    )  # fmt: skip
    print(f"\n{found.table}", end="")
    return 0


def _refuse_unheeded(parser: argparse.ArgumentParser, args: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse flags that none of the methods heeds. A method from outside may heed any."""
    if not set(names) <= METHODS.built_in.keys():
        return
    for own, methods in HEEDED:
        if not set(methods) & set(names):
            flags.refuse_unused(
                parser, args, own,
                f"only {' and '.join(methods)} would heed this; name {' or '.join(methods)}, or leave this out",
            )  # fmt: skip


def _limit_of(checkpoint: str) -> int:
    """The most tokens of a trained graph's texts."""
    from gcache.training import step_folders
    from gcache.training.checkpoint_record import read_record

    return read_record(step_folders.find(Path(checkpoint))).spec.graph.max_new_tokens


@dataclass(frozen=True)
class Comparison:
    """What `compare_methods` found."""

    rows: list[Compared]
    table: str


def compare_methods(
    names: Sequence[str],
    task_spec: TaskSpec,
    spec: GraphSpec,
    settings: MethodSettings,
    limit: int = 200,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    json_file: Path | None = None,
    progress: bool = True,
    limits: Limits | None = None,
    dtype: str | None = None,
    quantizations: Sequence[str] = (),
    documents: Sequence[str] = (),
) -> Comparison:
    """Several methods on the same test questions and the same model.

    Args:
        names: see `gcache.evaluation.methods`.
        task_spec: without a checkpoint nothing was learned, so a data file is used whole, as
            if it were a test set; with one, its held-out part, unless `whole_file` says otherwise.
        spec: the model, and the graph of gcache and gdesigner where there is no checkpoint.
        settings: of the methods; its `graph` and `template` are filled in here.
        checkpoint: a trained graph for gcache and gdesigner, whose model all methods use.
        json_file: gets everything, answer by answer, anew after each method.
        dtype: of a checkpoint's model, where it is not to be its own: in float32 what is computed in another
            order comes to the same text.
        quantizations: of the model; every method is compared in each, and paired with the first method in the first.
        documents: choices of documents (`gcache.evaluation.documents`); every method is compared on each.

    Raises:
        GcacheError: anything a user can mend, before a model is loaded where that is possible.
    """
    from gcache.build import build
    from gcache.evaluation.compare import compare, markdown
    from gcache.evaluation.documents import check_choices, make_choices, on_choices
    from gcache.evaluation.method import DeferredMethod
    from gcache.evaluation.methods import METHODS
    from gcache.evaluation.quantized import SingleEntryCache
    from gcache.llm.cache_store import tell_of_store
    from gcache.llm.kept_texts import KeptTexts
    from gcache.llm.load.device import pick_dtype, quantization_config
    from gcache.training.checkpoint import load, require_domain

    for name in names:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    if checkpoint is None:
        task_spec = task_spec.whole()
    task = task_spec.make()
    examples = list(task.test(limit, seed))
    choices = make_choices(documents)
    check_choices(documents, examples)
    if list(documents) == ["none"] and all(map(_hold_notes, names)):
        raise ConfigError("without documents nobody is there to be heard; name another choice, or --methods single")
    if quantizations and checkpoint is not None:
        raise ConfigError("a checkpoint has a model of its own quantization; compare quantizations without one")
    for quantization in quantizations:  # before hours of work
        quantization_config(quantization, pick_dtype(spec.dtype, spec.device))
    if len(set(quantizations)) != len(quantizations):
        raise ConfigError(f"quantizations to compare must each be named once, got {', '.join(quantizations)}")
    if not spec.graph.prompt_date:  # one day for all models
        spec = replace(spec, graph=replace(spec.graph, prompt_date=date.today().isoformat()))
    models = SingleEntryCache(lambda q: build(replace(spec, quantization=q), limits), lambda b: _weights(b.llm))
    if checkpoint is not None:
        built, _ = load(checkpoint, limits=limits, dtype=dtype)
        require_domain(checkpoint, built.spec, task)
        own = built.spec.graph.max_new_tokens
        if settings.max_new_tokens != own and {"gcache", "gdesigner"} & set(names):
            raise ConfigError(
                f"checkpoint {checkpoint} has --max_new_tokens {own}, got {settings.max_new_tokens}; methods are "
                f"compared at one limit, so leave it out, or name {own}"
            )
    else:
        built = models.get(quantizations[0]) if quantizations else build(spec, limits)
    llm = built.llm
    if llm is None:
        raise ConfigError(f"checkpoint {checkpoint} has no local model to compare methods on; name one that has")
    used = str(llm.dtype).removeprefix("torch.")
    described = {"model": llm.label, "model_fingerprint": built.fingerprint, "dtype": used}
    graph, batch = built.spec.to_json(), llm.limits.max_batch_size
    settings = replace(settings, question_order=built.spec.graph.question_order)  # a checkpoint has its own
    methods: list[Method]
    store = llm.store
    texts: KeptTexts | None = None
    if quantizations:
        del built, llm  # held by `models` alone, which lets it go before the next is loaded
        methods = [
            DeferredMethod(f"{name}, {q}", partial(_at_quantization, name, models, q, settings), _hold_notes(name))
            for q in quantizations for name in names
        ]  # fmt: skip
    else:
        methods = [_method(name, built, settings) for name in names]
        if llm.kept_texts is None:  # for as long as this takes: methods that draw the same share it
            llm.kept_texts = KeptTexts(built.fingerprint)
        texts = llm.kept_texts

    if choices:
        methods = on_choices(methods, choices)

    def kept_seconds() -> float:
        return 0.0 if texts is None else texts.reused_seconds

    def keep(rows: Sequence[Compared]) -> None:
        if json_file is None:
            return
        kept = {name: value for name, value in vars(settings).items() if name not in ("graph", "template")}
        write_json(
            json_file,
            {
                "task": task_spec.to_json(), "limit": limit, "seed": seed, **described,
                "graph": graph, "checkpoint": None if checkpoint is None else str(checkpoint),
                "documents": list(documents), "settings": kept, "max_batch_size": batch,
                "questions": [e.meta for e in examples], "weights_bytes": models.nbytes,
                "rows": [row.to_json() for row in rows],
            },
        )  # fmt: skip

    rows = compare(methods, task, examples, progress, keep, kept_seconds)
    tell_of_store(store)
    weights = "".join(f"\nweights, {name}: {size / 2**20:,.0f} MiB" for name, size in models.nbytes.items())
    return Comparison(rows, markdown(rows) + (f"{weights}\n" if weights else ""))


def _hold_notes(name: str) -> bool:
    """Whether the notes of a question are a method's agents."""
    return name in METHODS.built_in and name not in OF_ONE_PROMPT


def _at_quantization(
    name: str, models: SingleEntryCache[Built], quantization: str, settings: MethodSettings
) -> Method:
    return _method(name, models.get(quantization), settings)


def _method(name: str, built: Built, settings: MethodSettings) -> Method:
    """A method on a graph's model."""
    from gcache.evaluation.methods import make_method

    assert built.llm is not None
    of_graph = replace(settings, graph=built.graph, template=built.spec.graph.template)
    return make_method(name, built.llm, built.llm.tokenizer, of_graph)


def _weights(llm: LocalLLM | None) -> int:
    """Bytes of a model's weights and buffers, quantized ones as they are."""
    if llm is None:
        return 0
    tensors = {t.data_ptr(): t for t in (*llm.model.parameters(), *llm.model.buffers())}  # tied ones once
    return sum(t.nelement() * t.element_size() for t in tensors.values())
