"""Command-line flags that several commands share, and how they become configurations."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gcache.errors import ConfigError
from gcache.gnn.topology import CHANNELS
from gcache.graph.run_config import GraphConfig
from gcache.links.link import AUTO
from gcache.llm.api.client import ApiLLM, ApiSettings, Budget
from gcache.llm.api.fields import split_options
from gcache.llm.cache_budget import Limits
from gcache.runtime.plugin_files import allow_plugins, is_reference
from gcache.training.config import TrainConfig

if TYPE_CHECKING:
    from gcache.config import GraphSpec

TRUE, FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


def boolean(text: str) -> bool:
    """A real boolean: "false" is False."""
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is not a boolean; pass true or false")


def add_boolean(parser: argparse._ArgumentGroup | argparse.ArgumentParser, name: str, default: bool, text: str) -> None:
    """A flag that may stand alone (true) or be followed by true or false."""
    parser.add_argument(name, type=boolean, nargs="?", const=True, default=default, metavar="BOOL", help=text)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--llm_name", default="smollm2", help="smollm2 (embedded), a Hugging Face id, a local folder or a .gguf file"
    )
    group.add_argument("--dtype", default="auto", help="auto, bfloat16, float16 or float32 (default: %(default)s)")
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, auto, ... (default: %(default)s)")
    group.add_argument("--device_map", help="passed on to transformers, for models over several devices")
    group.add_argument("--quantization", default="none", help="none, 8bit or 4bit (bitsandbytes; default: %(default)s)")


#: Flags that name an entry of a registry, or several.
NAMING = ("task", "fuser", "link", "topology", "anchor", "compare", "method", "methods")


def add_plugin_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugins", nargs="+", default=[], metavar="FILE",
        help="Python files whose classes the checkpoint may run; a file that it names is never run unless it is named "
        "here, or in --task, --fuser and the like",
    )  # fmt: skip


def allow_named(args: argparse.Namespace) -> None:
    """Let checkpoints run the files that the command line names."""
    allow_plugins(*getattr(args, "plugins", ()))
    for flag in NAMING:
        value = getattr(args, flag, None) or ()
        for words in [value] if isinstance(value, str) else value:
            allow_plugins(*(name.strip() for name in words.split(",") if is_reference(name.strip())))


def add_mixture_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of agents on other models than the decision maker's."""
    group = parser.add_argument_group("agents on other models (the decision maker's is --llm_name)")
    group.add_argument(
        "--agent_models", nargs="+", default=[], metavar="NAME",
        help="what the agents think with: one name per agent, or one for all; each is loaded once (default: "
        "--llm_name)",
    )  # fmt: skip
    group.add_argument(
        "--agent_quantization", nargs="+", default=[], metavar="Q",
        help="of these models, one each or one for all (default: --quantization)",
    )  # fmt: skip
    group.add_argument(
        "--link", default=AUTO,
        help="what goes from one model to another: vocab (one tokenizer: hidden states through a linear map), overlap "
        "(two tokenizers with 100 tokens in common: likewise), perceiver (learned soft tokens, see --link_file), text; "
        "auto: the cache itself for equal weights, else the first of vocab, overlap and text that the two models "
        "allow; FILE.py:CLASS: one of your own",
    )  # fmt: skip
    group.add_argument(
        "--link_file", nargs="+", default=[], metavar="FILE", help="of fitted perceivers, one for each pair of models"
    )
    group.add_argument(
        "--route", default="none",
        help="auto: questions that ask for one of some labels go over the perceiver, others over --link, as the router "
        "in --route_file says; none: all go over --link (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--route_file", metavar="FILE", help="of a router; `gcache fit-router` makes one")


def mixture(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of a `GraphSpec`, of the flags of `add_mixture_flags`, where a command has them."""
    if not hasattr(args, "agent_models"):
        return {}
    return {
        "agent_models": tuple(args.agent_models),
        "agent_quantizations": tuple(args.agent_quantization),
        "link": args.link,
        "link_files": tuple(args.link_file),
        "route": args.route,
        "route_file": args.route_file,
    }


def add_limit_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits (but for rounding, answers do not depend on them)")
    group.add_argument(
        "--max_batch_size", type=int, default=Limits.max_batch_size,
        help="the most sequences in one pass of the model (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--max_batch_tokens", type=int, default=Limits.max_batch_tokens,
        help="the most slots in one pass, padding included (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--max_cache_gb", type=float,
        help="the most GB of KV caches: past it, caches of finished runs are let go first, then batches get smaller "
        "(default: no limit)",
    )  # fmt: skip
    add_boolean(
        group, "--pack_weights", Limits.pack_weights,
        "in bf16 on a CPU: a second copy of the weights in the layout it multiplies fastest (default: %(default)s)",
    )  # fmt: skip
    add_boolean(
        group, "--prompt_lookup", Limits.prompt_lookup,
        "guess tokens of a text from what was said before and check them in one pass (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--max_gradient_tokens", type=int, default=Limits.max_gradient_tokens,
        help="the most tokens that training scores in one pass; fewer take less memory (default: %(default)s)",
    )  # fmt: skip


def limits(args: argparse.Namespace) -> Limits:
    return Limits(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Limits)})


def add_graph_flags(parser: argparse.ArgumentParser, latent_steps: int = 2) -> None:
    group = parser.add_argument_group("graph")
    group.add_argument("--latent_steps", type=int, default=latent_steps, help="per agent (default: %(default)s)")
    group.add_argument("--transfer", default="own", help="own, latent or context: what an agent hands on")
    group.add_argument(
        "--hands", default="cache",
        help="what goes over an edge: cache; text, which the agents say, for their successors' prompts; or both",
    )
    group.add_argument("--speak_tokens", type=int, default=GraphConfig.speak_tokens, help="of an agent's text")
    group.add_argument("--positions", default="parallel", help="parallel or sequential: where handed-on slots go")
    group.add_argument("--decision_turn", default="new", help="new or same: the decision maker's chat turn")
    group.add_argument("--max_new_tokens", type=int, help="of an answer (default: what the task needs)")
    add_template_flags(group)


def add_template_flags(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--chat_template_kwargs", default="", metavar="JSON",
        help="variables of the local model's chat template, as servers have them: '{\"enable_thinking\": false}' keeps "
        "a model from thinking aloud",
    )  # fmt: skip
    parser.add_argument(
        "--prompt_date", default="", metavar="DATE",
        help="what a chat template that asks for the date is told, such as 2026-01-31; a run and its checkpoint keep "
        "it (default: the day on which it begins)",
    )  # fmt: skip


def add_choice_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of what is learned beside the edges within a round."""
    group = parser.add_argument_group("choices of the policy, beside the edges within a round")
    group.add_argument("--num_rounds", type=int, default=1, help="rounds of thinking (default: %(default)s)")
    add_boolean(group, "--optimized_temporal", False, "learn edges from the round before, too (default: %(default)s)")
    group.add_argument(
        "--channels", nargs="+", default=[], metavar="CHANNEL",
        help=f"what goes over each edge, chosen per question: {', '.join(CHANNELS)}; no edge (none) is always a choice "
        "(default: what --hands says, over every edge)",
    )  # fmt: skip
    group.add_argument(
        "--latent_choices", type=int, nargs="+", default=[], metavar="STEPS",
        help="numbers of latent steps that each agent chooses from (default: --latent_steps for all)",
    )  # fmt: skip
    group.add_argument(
        "--consult_probability", type=float, metavar="C",
        help="make hearing nobody one choice: before training the decision maker consults its agents with this "
        "probability, and each of them then with --decision_probability; for tasks that it may do better alone "
        "(default: no such choice)",
    )  # fmt: skip


def choices(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of a `GraphSpec`, of the flags of `add_choice_flags`."""
    return {
        "temporal": args.optimized_temporal,
        "channels": tuple(name for name in args.channels if name != "none"),
        "latent_choices": tuple(args.latent_choices),
        "consult_probability": args.consult_probability,
    }


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of methods that are compared."""
    group = parser.add_argument_group("methods")
    group.add_argument(
        "--prompt", default="sequential",
        help="of text_mas and latent_mas. sequential: planner, critic, refiner, judger; hierarchical: experts and a "
        "summariser (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--latent_steps", type=int, default=10,
        help="per agent; 0: caches are handed over without any (default: %(default)s)",
    )  # fmt: skip
    add_boolean(group, "--latent_only", False, "agents hand on their latents alone (default: %(default)s)")
    add_boolean(
        group, "--latent_space_realign", True,
        "latent steps feed back the hidden state through W_a; false: the hidden state itself, at the norm of an "
        "embedding (default: %(default)s)",
    )  # fmt: skip
    add_boolean(group, "--think", False, "answers begin with <think>, for reasoning models (default: %(default)s)")
    add_template_flags(group)
    group.add_argument("--max_new_tokens", type=int, help="of every text (default: what the task needs)")
    group.add_argument(
        "--topology", default="full", help="of gcache and gdesigner without a checkpoint (default: %(default)s)"
    )


def add_api_flags(parser: argparse.ArgumentParser, modes: bool = True) -> None:
    """Flags of the API that writes text; `modes`: and of who writes."""
    group = parser.add_argument_group("text (address, key and model: flags, then the environment, then .env)")
    if modes:
        group.add_argument(
            "--generation_mode", default="local",
            help="local: the local model writes on the fused cache; hybrid: it drafts and the API refines; api_hint: "
            "the API writes, told of the caches by --hint; api_embeds: a server of the same model that takes prompt "
            "embeddings writes, given the latent thoughts; api: the API alone, agents handing on text "
            "(default: %(default)s)",
        )  # fmt: skip
        group.add_argument(
            "--hint", default="meta",
            help="meta: one line of numbers; lens: the words nearest to each latent step; draft: a short local reading "
            "of the cache; text: what the agents said, with --hands both (default: %(default)s)",
        )  # fmt: skip
        group.add_argument(
            "--embeds_endpoint", default="completions",
            help="of api_embeds: completions (the whole prompt as embeddings) or chat (a content part; default: "
            "%(default)s)",
        )  # fmt: skip
    group.add_argument("--api_model", help="the model's name at the server (else API_MODEL)")
    group.add_argument("--base_url", help="of an OpenAI-compatible API, up to and with /v1 (else BASE_URL)")
    group.add_argument(
        "--api_key", help="better set as API_KEY in the environment or .env: a command line is seen by other users"
    )
    group.add_argument("--requests_per_second", type=float, help="the most requests a second (default: no limit)")
    group.add_argument(
        "--api_concurrency", type=int, default=ApiSettings.concurrency, help="requests at once (default: %(default)s)"
    )
    group.add_argument(
        "--api_timeout", type=float, default=ApiSettings.timeout, help="seconds of a request (default: %(default)s)"
    )
    group.add_argument(
        "--api_retries", type=int, default=ApiSettings.retries,
        help="after 429, 5xx, a time-out, a lost connection or a text that broke off (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--api_option", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
        help="further fields of each request, for example enable_thinking=false; NAME= leaves a field out, for example "
        "temperature=; 'NAME->OTHER' sends it under another name, for example 'max_tokens->max_completion_tokens' "
        "(what servers usually refuse of max_tokens, temperature and seed is mended without it, and the log says so)",
    )  # fmt: skip
    group.add_argument(
        "--api_budget", metavar="BUDGET", help="stop when it is spent: 500requests or 2e6tokens (default: no limit)"
    )
    group.add_argument("--price_in", type=float, help="of a million tokens read, in any currency, to report costs")
    group.add_argument("--price_out", type=float, help="of a million tokens written")
    group.add_argument(
        "--on_error", default="stop",
        help="when a question fails for good (its API or grader, or it is too long): stop, or skip it; it is never "
        "graded; an answer that is filtered, refused or broken off is such a failure (default: %(default)s)",
    )  # fmt: skip


def api(args: argparse.Namespace, model: str | None = None, base_url: str | None = None) -> ApiLLM:
    """The API that the flags and the surroundings describe.

    Args:
        model, base_url: where neither says otherwise.
    """
    given, left_out, renamed = split_options(args.api_option)
    settings = ApiSettings.found(
        args.api_model or model, args.base_url or base_url, args.api_key,
        requests_per_second=args.requests_per_second, concurrency=args.api_concurrency, timeout=args.api_timeout,
        retries=args.api_retries, extra=options(given), left_out=left_out, renamed=renamed,
    )  # fmt: skip
    for name in ("price_in", "price_out"):
        price = getattr(args, name)
        if price is not None and not 0 <= price < float("inf"):
            raise ConfigError(f"--{name} must be 0 or more, got {price}")
    llm = ApiLLM(settings, Budget.parse(args.api_budget) if args.api_budget else None)
    llm.check()
    return llm


def api_if_asked(args: argparse.Namespace, spec: GraphSpec) -> ApiLLM | None:
    """The API of the flags, where the graph's mode asks one."""
    return None if spec.generation_mode == "local" else api(args)


def cost(args: argparse.Namespace, read: float, written: float) -> str:
    """What so many tokens cost, in words; "" where no price is given."""
    if args.price_in is None and args.price_out is None:
        return ""
    return f"{(read * (args.price_in or 0) + written * (args.price_out or 0)) / 1e6:.4f}"


def add_train_flags(parser: argparse.ArgumentParser, config: TrainConfig | type[TrainConfig]) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--rollouts", type=int, default=config.rollouts, help="per question (default: %(default)s)")
    group.add_argument("--lr", type=float, default=config.lr, help="of the policy (default: %(default)s)")
    group.add_argument("--fuser_lr", type=float, default=config.fuser_lr, help="(default: %(default)s)")
    group.add_argument("--weight_decay", type=float, default=config.weight_decay, help="(default: %(default)s)")
    group.add_argument("--edge_price", type=float, default=config.edge_price, help="lambda (default: %(default)s)")
    group.add_argument("--entropy_bonus", type=float, default=config.entropy_bonus, help="beta (default: %(default)s)")
    group.add_argument(
        "--token_price", type=float, default=config.token_price,
        help="off the utility per 1,000 tokens of texts and latent steps (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--mib_price", type=float, default=config.mib_price,
        help="off the utility per MiB of caches handed over (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--pruning_rate", type=float, default=config.pruning_rate,
        help="share of the edges between roles, the least likely ones, that is cut half way (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--anchor", help="a fixed topology that the edges are pulled to, as a prior (default: none)")
    group.add_argument(
        "--anchor_strength", type=float, default=config.anchor_strength,
        help="of the squared distance to it (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--temperature", type=float, default=config.temperature, help="of sampled answers (default: %(default)s)"
    )
    group.add_argument("--temperature_end", type=float, help="what it comes to at the last step (default: the same)")
    group.add_argument("--entropy_bonus_end", type=float, help="likewise of --entropy_bonus (default: the same)")
    group.add_argument("--baseline", default=config.baseline, help="leave_one_out, ema or none (default: %(default)s)")
    group.add_argument(
        "--fuser_gradient", default=config.gradient,
        help="full: every hop and latent step, exact; decision: the last hop, exact where no agent that is heard has "
        "received a cache; auto: decision where it is exact, else full if all agents share one model and a run fits "
        "into --max_gradient_tokens, else decision; the log says which (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--checkpoint_every", type=int, metavar="STEPS", default=config.checkpoint_every,
        help="steps between checkpoints (default: one after every step, but at most one in 30 seconds); a run that is "
        "stopped keeps its last whole step",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=config.seed, help="of everything drawn (default: %(default)s)")


def options(pairs: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` words as options; numbers, true and false become what they say.

    Raises:
        ConfigError: a word without "=".
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"an option is NAME=VALUE, got {pair!r}")
        options[name] = _value(value)
    return options


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def graph_config(args: argparse.Namespace, default_tokens: int, rounds: int = 1) -> GraphConfig:
    return GraphConfig(
        latent_steps=args.latent_steps,
        transfer=args.transfer,
        rounds=rounds,
        max_new_tokens=default_tokens if args.max_new_tokens is None else args.max_new_tokens,
        decision_turn=args.decision_turn,
        # without a local model there is nothing else to hand on
        hands="text" if args.generation_mode == "api" and args.hands == "cache" else args.hands,
        speak_tokens=args.speak_tokens,
        chat_template_kwargs=args.chat_template_kwargs,
        prompt_date=args.prompt_date,
    )


#: Fields of a `GraphSpec` that flags of `add_api_flags` give, where a command has them.
_OF_API = ("hint", "embeds_endpoint", "api_model", "base_url")


def graph_spec(args: argparse.Namespace, domain: str, graph: GraphConfig, **more: Any) -> GraphSpec:
    from gcache.config import GraphSpec

    return GraphSpec(
        llm_name=args.llm_name,
        dtype=args.dtype,
        device=args.device,
        device_map=args.device_map,
        quantization=args.quantization,
        domain=domain,
        positions=args.positions,
        graph=graph,
        generation_mode=args.generation_mode,
        seed=getattr(args, "seed", 0),
        **{name: getattr(args, name) for name in _OF_API if hasattr(args, name)},
        **mixture(args),
        **more,
    )


def train_config(args: argparse.Namespace, iterations: int, batch_size: int, limit: int | None) -> TrainConfig:
    return TrainConfig(
        iterations=iterations,
        batch_size=batch_size,
        rollouts=args.rollouts,
        lr=args.lr,
        fuser_lr=args.fuser_lr,
        weight_decay=args.weight_decay,
        edge_price=args.edge_price,
        entropy_bonus=args.entropy_bonus,
        token_price=args.token_price,
        mib_price=args.mib_price,
        anchor=args.anchor,
        anchor_strength=args.anchor_strength,
        temperature=args.temperature,
        temperature_end=args.temperature_end,
        entropy_bonus_end=args.entropy_bonus_end,
        baseline=args.baseline,
        gradient=args.fuser_gradient,
        pruning_rate=args.pruning_rate,
        train_limit=limit,
        checkpoint_every=args.checkpoint_every,
        on_error=args.on_error,
        seed=args.seed,
    )


def refuse_changed(
    parser: argparse.ArgumentParser, args: argparse.Namespace, names: Sequence[str], checkpoint: str = "--checkpoint"
) -> None:
    """Refuse flags of a command that a checkpoint makes meaningless.

    Args:
        checkpoint: how it was named.

    Raises:
        ConfigError: some of these flags are not at their defaults.
    """
    refuse_unused(
        parser, args, names, "a checkpoint has its own model and graph; leave these out, or leave out "
        f"{checkpoint} to put an untrained graph together",
    )  # fmt: skip


def refuse_unused(
    parser: argparse.ArgumentParser, args: argparse.Namespace, names: Sequence[str], why: str
) -> None:
    """Refuse flags that would change nothing, which whoever gives them does not expect.

    Raises:
        ConfigError: some of these flags are not at their defaults.
    """
    given = [name for name in names if getattr(args, name) != parser.get_default(name)]
    if given:
        raise ConfigError(f"{', '.join(f'--{name}' for name in given)}: {why}")


def api_flags() -> list[str]:
    """Flags that say how an API is asked, not what the graph is."""
    parser = argparse.ArgumentParser(add_help=False)
    add_api_flags(parser, modes=False)
    return list(vars(parser.parse_args([])))
