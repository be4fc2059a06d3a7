"""What must hold of every fuser there is: weights 1 and 0, moving, order, gradients (4, 5 and 12)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from benchmarks.gpu_check.checks import Check, worst
from benchmarks.gpu_check.small import AGENTS, ASKED, DECISION, Small, apart, awake, reach, tokens
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import CacheFuser, Incoming
from gcache.cache.fusers.registry import FUSERS, make_fuser
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.cache.position_names import POSITIONS
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.llm.forward.gradient_pass import GradientPass
from gcache.llm.local import LocalLLM
from gcache.llm.requests import LogProbRequest, ThinkRequest
from gcache.training.replay import Replay, log_probs

QUESTION, LAST, WRITTEN = tokens(4, "question"), tokens(3, "last"), tokens(3, "written")
#: Of three agents; the last one's are as many as the first one's.
WORDS = tuple(tokens(count, "words", number) for number, count in enumerate((5, 3, 5)))
WEIGHTS = (0.9, 0.5, 0.2)
#: Two layers deep, so a weight is felt two hops on at most: every edge here is within that.
CHAIN = Topology(3, (Edge(0, 1, 0.5), Edge(1, 2, 0.8), Edge(2, 3, 0.6), Edge(1, 3, 0.9)))
#: What a gradient may be off its finite difference: a share, and the noise of fusers, which compute in float32.
SHARE, NOISE, STEP = 0.02, 5e-4, 0.02


def fusers(small: Small) -> Iterator[Check]:
    """All of it, one fuser after another."""
    for name in sorted(FUSERS):
        yield from one_cache(small, name)
        yield from several_caches(small, name)
        yield from gradients(small, name)


def _made(name: str, llm: LocalLLM, positions: str = "parallel") -> CacheFuser:
    return make_fuser(name, llm.cache_shape, positions, llm.rope).to(llm.device)


def _read(llm: LocalLLM) -> tuple[KVCache, list[KVCache]]:
    """The question, and what each agent thinks of it alone."""
    (shared,) = llm.think([ThinkRequest(QUESTION, owner=SHARED, kind=SlotKind.PREFIX)])
    past = FusedCache.plain(shared)
    return shared, llm.think([ThinkRequest(words, past, 1, owner) for owner, words in enumerate(WORDS)])


def _on(caches: Sequence[KVCache], weights: Sequence[float]) -> list[Incoming]:
    """On edges whose weights are where a topology's are, on the CPU."""
    pairs = zip(caches, weights, strict=True)
    return [Incoming(cache, torch.tensor(weight, device="cpu")) for cache, weight in pairs]


@torch.no_grad()
def one_cache(small: Small, name: str) -> Iterator[Check]:
    """Of one cache: untrained at weight 1 it is plain continuation, and at weight 0 it is not there."""
    llm, on = small.single, f"{small.family}, {name}"
    (shared,) = llm.think([ThinkRequest(QUESTION, owner=SHARED, kind=SlotKind.PREFIX)])
    (own,) = llm.think([ThinkRequest(WORDS[0], FusedCache.plain(shared))])
    (plain,) = llm.log_prob([LogProbRequest(QUESTION + WORDS[0] + LAST, WRITTEN)])
    off, changed = [], []
    for positions in POSITIONS:
        fused = _made(name, llm, positions)(shared, _on([own], [1.0]))
        off.append(apart(llm.log_prob([LogProbRequest(LAST, WRITTEN, fused)])[0], plain))
        changed += [apart(fused.values, KVCache.join([shared, own]).values)]
        if positions == "parallel":
            changed += [apart(fused.keys, KVCache.join([shared, own]).keys)]
    yield Check(4, "one cache of weight 1, untrained, and plain continuation", on, worst(off), 1e-4)
    yield Check(12, "what an untrained fuser changes in it, to the bit", on, worst(changed), 0)

    llm = small.double
    shared, caches = _read(llm)
    for positions in POSITIONS:
        fuser = awake(_made(name, llm, positions))
        without = fuser(shared, _on(caches[1:], (1.0, 0.4)))
        gaps = [_gap(llm, fuser(shared, _on([*caches[1:], caches[0]], (1.0, 0.4, w))), without) for w in (1e-12, 0.0)]
        yield Check(4, f"an edge that fades, {positions} positions", on, worst(gaps), 2e-6)
    heard = _gap(llm, fuser(shared, _on([caches[0]], [0.5])), FusedCache.plain(shared))
    yield Check(4, "what an edge of weight 0.5 is heard by", on, heard, 1e-3, at_least=True)


def _gap(llm: LocalLLM, with_edge: FusedCache, without: FusedCache) -> float:
    """Between the states of the receiver's words, who continues after the last occupied slot however it weighs."""
    place = with_edge.next_positions[:1]
    return apart(_heard(llm, with_edge, place), _heard(llm, without, place))


def _heard(llm: LocalLLM, fused: FusedCache, place: Tensor) -> Tensor:
    batch = GradientPass(llm.base, fused)
    batch.next_positions = place
    return batch.feed(*llm.embed([LAST]))


@torch.no_grad()
def several_caches(small: Small, name: str) -> Iterator[Check]:
    """Of several caches, with a fuser away from its start: moving all of them, and their order."""
    llm, on = small.double, f"{small.family}, {name}"
    shared, caches = _read(llm)
    off = []
    for positions in POSITIONS:
        fuser = awake(_made(name, llm, positions))
        here = fuser(shared, _on(caches, WEIGHTS)).shift(30, llm.rope)
        there = fuser(shared.shift(30, llm.rope), _on([cache.shift(30, llm.rope) for cache in caches], WEIGHTS))
        off += [apart(getattr(here, part), getattr(there, part)) for part in ("keys", "values", "bias", "positions")]
    yield Check(3, "fusing what was moved by 30, and moving what was fused", on, worst(off), 1e-4)
    fuser = awake(_made(name, llm))
    orders = itertools.permutations(_on(caches, WEIGHTS))
    asked = [LogProbRequest(LAST, WRITTEN, fuser(shared, order)) for order in orders]
    scores = [llm.log_prob([request])[0] for request in asked]
    off = [apart(score, scores[0]) for score in scores]
    yield Check(3, "log-probabilities on three caches in all orders", on, worst(off), 1e-5)


def gradients(small: Small, name: str) -> Iterator[Check]:
    """d log pi / d w and d log pi / d (fuser parameters), all the way back, are finite differences."""
    llm, on = small.double, f"{small.family}, {name}"
    fuser = awake(_made(name, llm))
    config = GraphConfig(latent_steps=1, max_new_tokens=4)
    graph = CacheGraph(llm, llm.tokenizer, AGENTS, DECISION, FixedProvider("chain"), fuser, config)
    result = graph.run(ASKED[0], topology=CHAIN, temperature=1.0, seed=5)
    weights = {e.key: torch.tensor(e.weight, requires_grad=True, device="cpu") for e in CHAIN.edges}

    def value() -> Tensor:
        return log_probs(graph, llm, [Replay(result, weights)], "full")[0]

    found = value()
    yield Check(5, "log pi when written and when replayed", on, abs(float(found.detach()) - result.text_log_prob), 1e-4)
    found.backward()
    places: list[tuple[str, Tensor, int]] = [(f"w{key}", w, 0) for key, w in weights.items()]
    for key, parameter in fuser.named_parameters():
        where = 0 if parameter.grad is None else int(parameter.grad.abs().argmax())
        places.append((key, parameter, where))
    exact = [0.0 if t.grad is None else float(t.grad.reshape(-1)[i]) for _, t, i in places]
    slopes = [_slope(value, t, i, _step(key)) for key, t, i in places]
    off = worst(abs(a - b) / (SHARE * abs(b) + NOISE) for a, b in zip(exact, slopes, strict=True))
    what = f"gradients beside finite differences, to what is allowed ({SHARE:.0%} and {NOISE})"
    yield Check(5, what, on, off, 1.0)
    of_weights, learned = slopes[: len(weights)], exact[len(weights) :]
    yield Check(5, "how far log pi depends on a weight", on, max(map(abs, of_weights)), 1e-2, at_least=True)
    if learned:
        smallest = min(map(abs, learned))
        yield Check(5, "the least that it depends on a parameter of the fuser", on, smallest, 1e-9, at_least=True)


def _step(name: str) -> float:
    """A gain moves the value so little that only a longer step stands out of float32's noise."""
    return STEP * reach(name) * (5 if name in ("match", "prior") else 1)


@torch.no_grad()
def _slope(value: Callable[[], Tensor], tensor: Tensor, index: int, step: float) -> float:
    """The central difference of a value along one entry of a tensor."""
    flat = tensor.detach().view(-1)
    before = float(flat[index])
    ends = []
    for sign in (1, -1):
        flat[index] = before + sign * step
        ends.append(float(value()))
    flat[index] = before
    return (ends[0] - ends[1]) / (2 * step)
