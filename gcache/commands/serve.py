"""The command `gcache serve`: its flags, and from flags to a running service."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gcache.commands import flags
from gcache.commands.api_flags import add_api_flags, api_if_asked, api_of_checkpoint
from gcache.commands.graph_flags import OF_A_GRAPH, add_graph_flags, graph_spec
from gcache.commands.plugin_flags import add_plugin_flag
from gcache.environment import cache_home, serve_key
from gcache.errors import ConfigError
from gcache.graph.run_config import GraphConfig
from gcache.llm.cache_budget import Limits
from gcache.runtime.plugin_files import label
from gcache.serve.settings import ServeSettings

if TYPE_CHECKING:
    from gcache.serve.library import Library
    from gcache.serve.model import ServedModel

EXAMPLES = """examples:
  gcache serve runs/split_facts --port 8000
  gcache serve --topology star --llm_name smollm2
  gcache serve --documents notes/ --llm_name Qwen/Qwen2.5-1.5B-Instruct
  curl http://127.0.0.1:8000/v1/chat/completions -H "Content-Type: application/json" \\
       -d '{"messages": [{"role": "user", "content": "What is 17 * 6?"}]}'
With --documents each text file is an agent's, read once and kept; a question is given the nearest of them, and the page
says which were heard. A page to ask on is at the root. Only this machine is listened to unless --host says otherwise;
set GCACHE_SERVE_KEY to ask for a key.
"""
#: Documents that a question is given, unless a flag says otherwise.
NEAREST = 4
#: What some flags are that are not given, and what they are where questions are asked over documents.
USUALLY = {
    "topology": "chain", "question": GraphConfig().question_order, "latent_steps": GraphConfig().latent_steps,
}  # fmt: skip
OVER_DOCUMENTS = {"topology": "star", "question": "last", "latent_steps": 0}
#: Tokens of an answer from documents.
READING_TOKENS = 64
NOT_INSTALLED = "gcache serve needs packages that are not installed ({}); pip install 'gcache-mas[serve]'"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=partial(run, parser))
    own = {
        name: flags.Default(None, f"{value}, or {OVER_DOCUMENTS[name]} with --documents")
        for name, value in USUALLY.items()
    }
    topology = own.pop("topology")
    add_graph_flags(parser, "topology", "decision_method", "fuser", several=False, running=own, topology=topology)
    add_api_flags(parser)
    flags.add(parser, Limits)
    parser.add_argument("checkpoint", nargs="?", help="a trained graph; without it, an untrained one is put together")
    add_plugin_flag(parser)
    documents = flags.group(parser, "documents")
    documents.add_argument(
        "--documents", type=Path, metavar="DIR",
        help="ask questions over the .txt and .md files of this folder (or over rows with title and text of a file); "
        "each is an agent's",
    )  # fmt: skip
    documents.add_argument(
        "--nearest", type=int, default=NEAREST, metavar="K",
        help="documents that a question is given: those nearest to it by MiniLM; 0: all, for a trained graph to choose "
        "from (default: %(default)s)",
    )  # fmt: skip
    group = flags.group(parser, "service")
    group.add_argument("--name", help="of the model, for clients (default: the checkpoint's folder, or the topology)")
    flags.add(parser, ServeSettings)
    # the key of an API that writes for the graph is taken from the environment alone: one flag must not mean two keys
    parser.conflict_handler = group.conflict_handler = "resolve"
    group.add_argument(
        "--api_key", dest="serve_key",
        help="that clients must send; better set as GCACHE_SERVE_KEY in the environment, since a command line is seen "
        "by other users (the key of an API that writes for the graph is API_KEY there)",
    )  # fmt: skip
    parser.set_defaults(api_key=None)


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Serve until told to stop; returns the exit code.

    Raises:
        ConfigError: flags that are not allowed, or packages that are missing.
    """
    settings = flags.make(ServeSettings, args, key=args.serve_key or serve_key())
    name, load = _served(parser, args)
    try:
        from gcache.serve.server import serve
    except ImportError as error:
        raise ConfigError(NOT_INSTALLED.format(error.name)) from error
    serve(name, settings, load, lambda url: print(f"gcache serves on {url}", flush=True))
    return 0


def _served(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[str, Callable[[], ServedModel]]:
    """What is served, by name, and how it is loaded; flags are checked before that.

    Raises:
        ConfigError: flags of a model or a graph beside a checkpoint, or values that are not allowed.
    """
    limits = flags.make(Limits, args)
    library = _library(parser, args)
    if library is not None and limits.store is None:
        limits = replace(limits, store=str(cache_home() / "documents"))
    if args.checkpoint:
        flags.refuse_changed(parser, args, OF_A_GRAPH, "the checkpoint")
        folder = Path(args.checkpoint)
        asks = api_of_checkpoint(parser, args, folder)
        resolved = folder.resolve()

        def trained() -> ServedModel:
            from gcache.serve.model import ServedModel
            from gcache.training.checkpoint import load

            built, _ = load(folder, limits=limits, api=asks)
            return ServedModel.of(built, name, None if library is None else library())

        name = args.name or resolved.name
        return name, trained
    for name, value in (USUALLY if library is None else OVER_DOCUMENTS).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    spec = graph_spec(args, "maths", 256) if library is None else graph_spec(args, "reading", READING_TOKENS)
    api = api_if_asked(parser, args, spec)

    def untrained() -> ServedModel:
        from gcache.build import build
        from gcache.serve.model import ServedModel

        return ServedModel.of(build(spec, limits, api), name, None if library is None else library())

    name = args.name or f"{label(args.topology)}-{Path(args.llm_name).stem}"
    return name, untrained


def _library(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Callable[[], Library] | None:
    """What makes the documents that are asked over; their files are read now. None where there are none."""
    if args.documents is None:
        flags.refuse_unused(parser, args, ["nearest"], "this is of documents; name them by --documents")
        return None
    if args.hands in ("text", "reasoning") or args.generation_mode == "api":
        raise ConfigError(
            "--documents are handed on as caches, which are read without the question; leave out --hands text or "
            "reasoning and --generation_mode api, or --documents"
        )
    if args.nearest < 0:
        raise ConfigError(f"--nearest must be 0 (all) or more, got {args.nearest}")
    from gcache.tasks.document_files import documents_of

    notes = [document.note() for document in documents_of(args.documents)]

    def made() -> Library:
        from gcache.gnn.features import make_encoder
        from gcache.serve.library import Library

        return Library(notes, args.nearest, make_encoder("minilm"))

    return made
