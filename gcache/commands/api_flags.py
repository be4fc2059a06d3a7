"""The flags of the API that writes text: where it is, how hard it may be asked, and what that costs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from gcache.commands import flags
from gcache.commands.options import PAIR, options
from gcache.config import GraphSpec
from gcache.errors import ConfigError
from gcache.llm.api.client import ApiLLM, ApiSettings, Budget
from gcache.llm.api.fields import split_options
from gcache.runtime.settings import flag_of, settings_of
from gcache.training.config import TrainConfig

#: Flags that no field gives: what they say is read, counted or kept secret.
BY_HAND = ("api_key", "api_option", "api_budget", "price_in", "price_out")
#: Flags that say how an API is asked, not what the graph is.
API_FLAGS = (*flags.names_of(GraphSpec, "text"), *flags.names_of(ApiSettings, "text"), *BY_HAND)


def add_api_flags(parser: argparse.ArgumentParser, modes: bool = True, **defaults: str) -> None:
    """Flags of the API that writes text.

    Args:
        modes: and of who writes.
        defaults: see `flags.add`.
    """
    flags.add(parser, GraphSpec, "text", *(["modes"] if modes else []), **defaults)
    flags.add(parser, ApiSettings)
    flags.add(parser, TrainConfig, "on_error")
    group = flags.group(parser, "text")
    group.add_argument(
        "--api_key", help="better set as API_KEY in the environment or .env: a command line is seen by other users"
    )
    group.add_argument(
        "--api_option", nargs="+", action="extend", default=[], metavar=PAIR,
        help="further fields of each request, for example enable_thinking=false; NAME= leaves a field out, for example "
        "temperature=; 'NAME->OTHER' sends it under another name, for example 'max_tokens->max_completion_tokens' "
        "(what servers usually refuse of max_tokens, temperature and seed is mended without it, and the log says so)",
    )  # fmt: skip
    group.add_argument(
        "--api_budget", metavar="BUDGET", help="stop when it is spent: 500requests or 2e6tokens (default: no limit)"
    )
    group.add_argument("--price_in", type=float, help="of a million tokens read, in any currency, to report costs")
    group.add_argument("--price_out", type=float, help="of a million tokens written")


def api(args: argparse.Namespace, model: str | None = None, base_url: str | None = None) -> ApiLLM:
    """The API that the flags and the surroundings describe.

    Args:
        model, base_url: where neither says otherwise.
    """
    given, left_out, renamed = split_options(args.api_option)
    limits = {field.name: getattr(args, flag_of(field)) for field, _ in settings_of(ApiSettings)}
    settings = ApiSettings.found(
        args.api_model or model, args.base_url or base_url, args.api_key, **limits, extra=options(given),
        left_out=left_out, renamed=renamed,
    )  # fmt: skip
    for name in ("price_in", "price_out"):
        price = getattr(args, name)
        if price is not None and not 0 <= price < float("inf"):
            raise ConfigError(f"--{name} must be 0 or more, got {price}")
    llm = ApiLLM(settings, Budget.parse(args.api_budget) if args.api_budget else None)
    llm.check()
    return llm


def api_if_asked(parser: argparse.ArgumentParser, args: argparse.Namespace, spec: GraphSpec) -> ApiLLM | None:
    """The API of the flags, where the graph's mode asks one.

    Raises:
        ConfigError: flags of an API, where the local model writes.
    """
    if spec.generation_mode != "local":
        return api(args)
    flags.refuse_unused(
        parser, args, (*API_FLAGS, "hint", "embeds_endpoint"), "the local model writes, and no API is asked; leave "
        "these out, or name a --generation_mode that asks one: hybrid, api_hint, api_embeds or api",
    )  # fmt: skip
    return None


def api_of_checkpoint(
    parser: argparse.ArgumentParser, args: argparse.Namespace, checkpoint: str | Path
) -> Callable[[GraphSpec], ApiLLM]:
    """How the API of a checkpoint is made, where its mode asks one; see `gcache.training.checkpoint.load`.

    Raises:
        CheckpointError: flags of an API, and no checkpoint.
        ConfigError: flags of an API, where the local model writes.
    """
    from gcache.training import step_folders
    from gcache.training.checkpoint_record import read_record

    asked = flags.given(parser, args, API_FLAGS)
    if asked and read_record(step_folders.find(Path(checkpoint))).spec.generation_mode == "local":
        flags.refuse_unused(
            parser, args, asked, f"the local model writes in the checkpoint {checkpoint}, and no API is asked; "
            "leave these out",
        )  # fmt: skip
    return lambda made: api(args, made.api_model, made.base_url)


def cost(args: argparse.Namespace, read: float, written: float) -> str:
    """What so many tokens cost, in words; "" where no price is given."""
    if args.price_in is None and args.price_out is None:
        return ""
    return f"{(read * (args.price_in or 0) + written * (args.price_out or 0)) / 1e6:.4f}"
