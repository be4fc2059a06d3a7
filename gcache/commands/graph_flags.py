"""The flags of a graph that is put together, and its configuration."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gcache.commands import flags
from gcache.config import GraphSpec
from gcache.graph.run_config import GraphConfig

#: A command's own default of --max_new_tokens.
AS_THE_TASK = flags.Default(None, "what the task needs")
#: Groups of a `GraphSpec` and of a `GraphConfig` that say what a model is and how a graph runs.
MODEL, RUNNING = ("model", "models"), ("graph",)
#: Flags that a checkpoint makes meaningless, where a graph is put together without one.
OF_A_GRAPH = (
    *flags.names_of(GraphSpec, *MODEL, *RUNNING, "modes", "topology", "decision_method", "fuser"),
    *flags.names_of(GraphConfig, *RUNNING),
)  # fmt: skip


def add_graph_flags(
    parser: argparse.ArgumentParser,
    *more: str,
    several: bool = True,
    running: Mapping[str, flags.Default] | None = None,
    **defaults: Any,
) -> None:
    """Flags of the model, of how the graph runs, and of further groups or fields of a `GraphSpec`.

    Args:
        several: whether agents may think with other models.
        running: defaults of flags of a `GraphConfig`; defaults: of a `GraphSpec`; see `flags.add`.
    """
    flags.add(parser, GraphSpec, *(MODEL if several else MODEL[:1]), *RUNNING, *more, **defaults)
    choices = ["choices"] if "choices" in more else []
    flags.add(parser, GraphConfig, *RUNNING, *choices, max_new_tokens=AS_THE_TASK, **(running or {}))


def graph_spec(args: argparse.Namespace, domain: str, default_tokens: int, **more: Any) -> GraphSpec:
    """The graph that the flags describe.

    Args:
        default_tokens: the most tokens of an answer, where no flag says so.
        more: fields of the `GraphSpec` that are something else than their flags say.
    """
    tokens = default_tokens if args.max_new_tokens is None else args.max_new_tokens
    graph = flags.make(GraphConfig, args, max_new_tokens=tokens)
    if getattr(args, "generation_mode", "local") == "api" and graph.hands == "cache":
        graph = replace(graph, hands="text")  # without a local model there is nothing else to hand on
    if hasattr(args, "channels"):
        more = {"channels": tuple(name for name in args.channels if name != "none"), **more}
    return flags.make(GraphSpec, args, domain=domain, graph=graph, **more)
