"""`gcache read`: read documents once, and keep their caches for whoever asks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gcache.commands import flags
from gcache.commands.plugin_flags import add_plugin_flag
from gcache.commands.task_flags import add_task_flags, task_spec
from gcache.config import GraphSpec
from gcache.errors import ConfigError, DataError
from gcache.graph.run_config import GraphConfig
from gcache.llm.cache_budget import Limits
from gcache.tasks.example import Note

EXAMPLES = """examples:
  gcache read --data documents.jsonl --llm_name MODEL.gguf --store caches
  gcache read --data folder_of_text_files --llm_name MODEL.gguf --store caches
  gcache read --task hotpotqa --data test.jsonl --limit 200 --llm_name MODEL.gguf --store caches
  gcache compare --methods gcache --topology star --question last --task hotpotqa --data test.jsonl --limit 200 \\
      --latent_steps 0 --llm_name MODEL.gguf --store caches
Documents are rows with text and title (JSONL, JSON, CSV), a folder of .txt and .md files, or those of a task's
questions. What is in the store is not read again, so a run that was stopped goes on. A cache serves the same model in
the same dtype, with as many latent steps, where questions are asked with --question last.
"""
#: Fields of a `GraphConfig` that a document's cache depends on.
READING = ("chat_template_kwargs", "prompt_date")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=partial(_read, parser))
    add_task_flags(parser, required=False, unset="none: --data holds the documents themselves")
    add_plugin_flag(parser)
    parser.add_argument("--limit", type=int, help="questions of the task whose documents are read (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of questions (default: %(default)s)")
    flags.add(parser, GraphSpec, "model", "latent_space_realign")
    flags.add(parser, GraphConfig, "latent_steps", *READING, latent_steps=flags.Default(0, "0"))
    flags.add(parser, Limits)


def _read(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from gcache.build import build
    from gcache.evaluation.read_documents import read_documents
    from gcache.graph.cache_graph import CacheGraph

    if args.store is None:
        raise ConfigError("name the folder that keeps the caches by --store")
    if args.data is None and args.task is None:
        raise ConfigError("there is nothing to read; name documents by --data, or a --task")
    notes = _notes(parser, args)
    config = flags.make(GraphConfig, args, question_order="last")
    built = build(
        flags.make(GraphSpec, args, domain="reading", topology="none", graph=config), flags.make(Limits, args)
    )
    assert isinstance(built.graph, CacheGraph) and built.llm is not None and built.llm.store is not None
    with tqdm(total=len(notes), desc="read", unit="document") as bar:
        done = read_documents(built.graph, notes, bar.update)
    store = built.llm.store.store
    lost = sum(not store.files.path(key).exists() for key in done.keys)
    print(f"{len(notes) - len(done.failed)} documents read, {len(done.keys) - lost} caches in {args.store}: {store}")
    if done.failed:
        note, error = done.failed[0]
        raise DataError(
            f"{len(done.failed)} of {len(notes)} documents could not be read; the first, {note.role!r}: {error}"
        )
    if lost:
        raise ConfigError(
            f"{lost} of {len(done.keys)} caches are not in {args.store}: they do not fit into --store_gb "
            f"{args.store_gb:g}, or cannot be written; raise it, or name another folder"
        )
    return 0


def _notes(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Sequence[Note]:
    """What is to be read, each document once."""
    if args.task is None:
        from gcache.tasks.document_files import documents_of

        flags.refuse_unused(
            parser, args, ["limit", "seed", "hops", "adversary", "accept_last_number", "task_option"],
            "this is of a task's questions; name the --task, or leave this out",
        )  # fmt: skip
        found = [document.note() for document in documents_of(Path(args.data))]
    else:
        asked = task_spec(args).whole().make().test(args.limit, args.seed)
        found = [note for example in asked for note in example.notes]
        if not found:
            raise ConfigError(f"the questions of the task {args.task!r} bring no documents")
    return list({note.text: note for note in found}.values())
