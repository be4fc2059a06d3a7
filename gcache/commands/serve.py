"""The command `gcache serve`: its flags, and from flags to a running service."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gcache.commands import flags
from gcache.environment import serve_key
from gcache.errors import ConfigError
from gcache.runtime.plugin_files import label
from gcache.serve.settings import BODY, EMBEDS_BODY, ServeSettings

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
    for add in (flags.add_model_flags, flags.add_graph_flags, flags.add_api_flags, flags.add_limit_flags):
        add(parser)
    parser.add_argument("checkpoint", nargs="?", help="a trained graph; without it, an untrained one is put together")
    flags.add_plugin_flag(parser)
    parser.add_argument("--topology", default="chain", help="without a checkpoint (default: %(default)s)")
    parser.add_argument("--fuser", default="concat", help="without a checkpoint (default: %(default)s)")
    own, group = ServeSettings(), parser.add_argument_group("service")
    group.add_argument("--name", help="of the model, for clients (default: the checkpoint's folder, or the topology)")
    group.add_argument("--host", default=own.host, help="where to listen (default: %(default)s, this machine alone)")
    group.add_argument("--port", type=int, default=own.port, help="0 for any free one (default: %(default)s)")
    # the key of an API that writes for the graph is taken from the environment alone: one flag must not mean two keys
    parser.conflict_handler = group.conflict_handler = "resolve"
    group.add_argument(
        "--api_key", dest="serve_key",
        help="that clients must send; better set as GCACHE_SERVE_KEY in the environment, since a command line is seen "
        "by other users (the key of an API that writes for the graph is API_KEY there)",
    )  # fmt: skip
    parser.set_defaults(api_key=None)
    group.add_argument(
        "--cors", nargs="+", default=[], metavar="ORIGIN", help="web pages elsewhere that may ask (default: none)"
    )
    for flag, kind, text in (
        ("max_running", int, "questions that are worked on at once"),
        ("max_waiting", int, "questions that may wait; past it clients get 429"),
        ("deadline", float, "seconds of a request, waiting and reading included"),
        ("max_tokens", int, "tokens of an answer that a request may ask for"),
        ("drain", float, "seconds that requests have to end in on SIGTERM"),
    ):
        group.add_argument(
            f"--{flag}", type=kind, default=getattr(own, flag), metavar="N", help=f"{text} (default: %(default)s)"
        )
    group.add_argument(
        "--max_body", type=int, metavar="N",
        help=f"bytes of a request (default: {BODY}, with --allow_prompt_embeds {EMBEDS_BODY})",
    )  # fmt: skip
    group.add_argument(
        "--allow_prompt_embeds", action="store_true", help="take prompts of /v1/completions as embeddings"
    )


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Serve until told to stop; returns the exit code.

    Raises:
        ConfigError: flags that are not allowed, or packages that are missing.
    """
    settings = _settings(args)
    name, load = _served(parser, args)
    try:
        from gcache.serve.server import serve
    except ImportError as error:
        raise ConfigError(NOT_INSTALLED.format(error.name)) from error
    serve(name, settings, load, lambda url: print(f"gcache serves on {url}", flush=True))
    return 0


def _settings(args: argparse.Namespace) -> ServeSettings:
    values = {f.name: getattr(args, f.name) for f in dataclasses.fields(ServeSettings) if f.name not in ("key", "cors")}
    return ServeSettings(**values, key=args.serve_key or serve_key(), cors=tuple(args.cors))


def _served(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[str, Callable[[], ServedModel]]:
    """What is served, by name, and how it is loaded; flags are checked before that.

    Raises:
        ConfigError: flags of a model or a graph beside a checkpoint, or values that are not allowed.
    """
    limits = flags.limits(args)
    if args.checkpoint:
        _require_only_its_own(parser, args)
        folder = Path(args.checkpoint)
        resolved = folder.resolve()

        def trained() -> ServedModel:
            from gcache.serve.model import ServedModel
            from gcache.training.checkpoint import load

            built, _ = load(
                folder, limits=limits, api=lambda made: flags.api(args, made.api_model, made.base_url)
            )
            return ServedModel.of(built, name)

        name = args.name or resolved.name
        return name, trained
    spec = flags.graph_spec(args, "maths", flags.graph_config(args, 256), topology=args.topology, fuser=args.fuser)
    api = flags.api_if_asked(args, spec)

    def untrained() -> ServedModel:
        from gcache.build import build
        from gcache.serve.model import ServedModel

        return ServedModel.of(build(spec, limits, api), name)

    name = args.name or f"{label(args.topology)}-{Path(args.llm_name).stem}"
    return name, untrained


def _require_only_its_own(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse flags of the model and the graph beside a checkpoint, which has its own.

    Raises:
        ConfigError: naming them.
    """
    of_graph = argparse.ArgumentParser(add_help=False)
    for add in (flags.add_model_flags, flags.add_graph_flags, flags.add_api_flags):
        add(of_graph)
    names = {"topology", "fuser", *vars(of_graph.parse_args([]))} - set(flags.api_flags())
    flags.refuse_changed(parser, args, sorted(names), "the checkpoint")
