"""The other models of a graph: each loaded once, however many agents think with it, and linked to those it hands to."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gcache.cache.fusers.registry import make_fuser
from gcache.graph.agent_models import Mixture, Thinker
from gcache.links.link import Link, ModelEnds
from gcache.links.negotiate import make_link, negotiated
from gcache.links.router import Router
from gcache.llm.load.fingerprint import quantized
from gcache.llm.load.loading import LoadedModel, load_model
from gcache.llm.local import LocalLLM

if TYPE_CHECKING:
    from gcache.build import GraphSpec

logger = logging.getLogger(__name__)


def load_mixture(spec: GraphSpec, main: LocalLLM, loaded: LoadedModel) -> Mixture:
    """The models of `spec.agent_models`.

    Where none differs from the decision maker's, the mixture is that of one model.

    Args:
        main: the decision maker's model; its limits and its count of cache bytes are for all.
        loaded: what it was made of.

    Raises:
        ModelError: a model cannot be had.
        ConfigError: two models do not allow the link that is asked for.
        DataError: a link's file is missing, broken, or made for other weights.
    """
    models = [(main, _marked(loaded, spec.quantization))]
    known = {(spec.llm_name, spec.quantization): 0}
    on: list[int] = []
    for name, quantization in zip(spec.agent_models, spec.agent_quantization(), strict=True):
        if (name, quantization) not in known:
            known[name, quantization] = _number(spec, name, quantization, models)
        on.append(known[name, quantization])
    ends = [ModelEnds.of(llm.model, made.tokenizer, made.label, made.fingerprint) for llm, made in models]
    pairs = [(a, b) for a in sorted(set(on)) for b in sorted({0, *on}) if a != b]
    links = {(a, b): _link(spec, spec.link, ends[a], ends[b]) for a, b in pairs}
    # only the decision maker's fuser is reached by the text's log-probability; the others join what arrives as it is
    others = [
        Thinker(
            llm, made.tokenizer, make_fuser("concat", llm.cache_shape, spec.positions, llm.rope).to(llm.device),
            spec.graph.template,
        )
        for llm, made in models[1:]
    ]
    mixture = Mixture(tuple(others), tuple(on), links, tuple(made.fingerprint for _, made in models))
    if spec.route == "none" or not others:
        return mixture
    assert spec.route_file is not None
    learned = {(a, b): _link(spec, "perceiver", ends[a], ends[b]) for a, b in pairs}
    routed = {"classification": replace(mixture, links=learned), "reasoning": mixture}
    return replace(mixture, router=Router.load(Path(spec.route_file)), routed=routed)


def _marked(loaded: LoadedModel, quantization: str) -> LoadedModel:
    """The same, told apart from the same model in another quantization."""
    return replace(loaded, fingerprint=quantized(loaded.fingerprint, quantization))


def _number(spec: GraphSpec, name: str, quantization: str, models: list[tuple[LocalLLM, LoadedModel]]) -> int:
    """Of a model that may be there already under another name; it is loaded to find that out."""
    made = _marked(load_model(name, spec.dtype, spec.device, spec.device_map, quantization), quantization)
    for number, (_, other) in enumerate(models):
        if other.fingerprint == made.fingerprint:
            return number
    main = models[0][0]
    llm = LocalLLM(
        made.model, made.tokenizer, made.label, main.limits, realign=spec.latent_space_realign, ledger=main.ledger
    )
    models.append((llm, made))
    return len(models) - 1


def _link(spec: GraphSpec, wanted: str, sender: ModelEnds, receiver: ModelEnds) -> Link | None:
    name = negotiated(sender, receiver, wanted)
    link = make_link(name, sender, receiver, spec.link_files)
    logger.info("agents on %s reach those on %s by the link %s", sender.label, receiver.label, name)
    return link
