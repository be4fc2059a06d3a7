"""The command `gcache serve`: its flags, and from flags to a running service."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gcache.commands import flags
from gcache.commands.api_flags import add_api_flags, api_if_asked, api_of_checkpoint
from gcache.commands.graph_flags import OF_A_GRAPH, add_graph_flags, graph_spec
from gcache.commands.plugin_flags import add_plugin_flag
from gcache.environment import serve_key
from gcache.errors import ConfigError
from gcache.llm.cache_budget import Limits
from gcache.runtime.plugin_files import label
from gcache.serve.settings import ServeSettings

if TYPE_CHECKING:
    from gcache.serve.model import ServedModel

EXAMPLES = """examples:
  gcache serve runs/split_facts --port 8000
  gcache serve --topology chain --llm_name smollm2
  curl http://127.0.0.1:8000/v1/chat/completions -H "Content-Type: application/json" \\
       -d '{"messages": [{"role": "user", "content": "What is 17 * 6?"}]}'
A page to ask on is at the root. Only this machine is listened to unless --host says otherwise; set
GCACHE_SERVE_KEY to ask for a key.
"""
NOT_INSTALLED = "gcache serve needs packages that are not installed ({}); pip install 'gcache-mas[serve]'"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=partial(run, parser))
    add_graph_flags(parser, "topology", "decision_method", "fuser", several=False, topology="chain")
    add_api_flags(parser)
    flags.add(parser, Limits)
    parser.add_argument("checkpoint", nargs="?", help="a trained graph; without it, an untrained one is put together")
    add_plugin_flag(parser)
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
    if args.checkpoint:
        flags.refuse_changed(parser, args, OF_A_GRAPH, "the checkpoint")
        folder = Path(args.checkpoint)
        asks = api_of_checkpoint(parser, args, folder)
        resolved = folder.resolve()

        def trained() -> ServedModel:
            from gcache.serve.model import ServedModel
            from gcache.training.checkpoint import load

            built, _ = load(folder, limits=limits, api=asks)
            return ServedModel.of(built, name)

        name = args.name or resolved.name
        return name, trained
    spec = graph_spec(args, "maths", 256)
    api = api_if_asked(parser, args, spec)

    def untrained() -> ServedModel:
        from gcache.build import build
        from gcache.serve.model import ServedModel

        return ServedModel.of(build(spec, limits, api), name)

    name = args.name or f"{label(args.topology)}-{Path(args.llm_name).stem}"
    return name, untrained
