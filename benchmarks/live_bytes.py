"""A gauge of the most cache bytes alive at once, the same for every system around a model.

It looks at what is there, not at what a system says of itself: at the boundaries of the decoder's
first and last layer it goes through all live tensors, and of those that look like a cache

    of the model's dtype,  (..., H_kv, T, D) with four or more dimensions,  no parameter

it counts each storage once and whole. So padding, room kept in reserve, copies and caches that a
run merely forgot to let go all count. Not counted is what lives only inside a layer, or only
between two passes, nor the slots that grow in passes that are skipped (`every`). Queries are told
from keys by their number of heads; where the model has as many key-value heads as query heads,
queries that a system keeps would count as well.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from gcache.llm.decode.prompt_lookup import MOST_GUESSES
from gcache.llm.forward.native.decoder import NativeDecoder
from gcache.llm.forward.plain_decoder import PlainDecoder


@dataclass(frozen=True)
class Peak:
    """The most that was seen.

    Attributes:
        nbytes: of all cache storages together.
        storages: how many they were.
        where: the forward pass and the place in it.
    """

    nbytes: int = 0
    storages: int = 0
    where: str = "nowhere"


@dataclass(frozen=True)
class CacheLook:
    """What a tensor of keys or values looks like in one model."""

    heads: int
    dim: int
    dtype: torch.dtype

    def matches(self, thing: object) -> bool:
        # the type is asked, not isinstance: proxies of other libraries answer that with side effects
        if not issubclass(type(thing), Tensor) or issubclass(type(thing), nn.Parameter):
            return False
        assert isinstance(thing, Tensor)
        shape = thing.shape
        return thing.dtype == self.dtype and len(shape) >= 4 and (shape[-3], shape[-1]) == (self.heads, self.dim)

    def storages(self, things: Iterable[object]) -> dict[int, int]:
        """Address -> bytes of the storages behind all caches among `things`."""
        found: dict[int, int] = {}
        for thing in things:
            if self.matches(thing):
                assert isinstance(thing, Tensor)
                storage = thing.untyped_storage()
                if storage.nbytes():  # what is empty has no address of its own
                    found[storage.data_ptr()] = storage.nbytes()
        return found


#: Tokens of a row that a step of decoding feeds, guesses included.
STEP = 1 + MOST_GUESSES


class LiveBytes:
    """Watches a model while it is entered; `peak` is the most seen so far.

    Args:
        model: a transformers causal model.
        heads, dim: its key-value heads and their size.
        every: of the passes that feed a few tokens per row, up to `STEP`, look into each `every`-th;
            passes that read more are all looked into.

    Raises:
        RuntimeError: on leaving, if the model's layers were never called: then nothing was gauged.
    """

    def __init__(self, model: Any, heads: int, dim: int, every: int = 1) -> None:
        self.layers: nn.ModuleList = model.model.layers
        self.look = CacheLook(heads, dim, model.get_input_embeddings().weight.dtype)
        self.every = every
        self.peak = Peak()
        self.passes = 0
        self._steps = 0
        self._pass = ""
        self._looking = False
        self._before: list[weakref.ref[Tensor]] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> LiveBytes:
        gc.collect()
        self._before = [weakref.ref(t) for t in gc.get_objects() if self.look.matches(t)]
        gc.freeze()  # what is there already need not be gone through at every look
        first, last = self.layers[0], self.layers[-1]
        self._hooks = [
            first.register_forward_pre_hook(self._begin, with_kwargs=True),
            first.register_forward_hook(lambda *_: self._take("after the first layer")),
            last.register_forward_pre_hook(lambda *_: self._take("before the last layer")),
            last.register_forward_hook(lambda *_: self._take("after the last layer")),
        ]
        self._plain, self._native = PlainDecoder.__call__, NativeDecoder.over_pages
        PlainDecoder.__call__ = self._around(self._plain)  # type: ignore[method-assign]
        NativeDecoder.over_pages = self._around(self._native)  # type: ignore[method-assign]
        return self

    def _around(self, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The same looks at passes that go around the model's layer modules."""

        def watched(decoder: PlainDecoder, embeds: Tensor, *rest: Any) -> Tensor:
            self._begin_pass(*embeds.shape[:2])
            states = call(decoder, embeds, *rest)
            self._take("after the last layer")
            return states

        return watched

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        PlainDecoder.__call__ = self._plain  # type: ignore[method-assign]
        NativeDecoder.over_pages = self._native  # type: ignore[method-assign]
        gc.unfreeze()
        if kind is None and self.passes == 0:
            raise RuntimeError("the model's layers were never called, so no cache was gauged")

    def _begin(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states: Tensor = args[0] if args else kwargs["hidden_states"]  # (B, S, E)
        self._begin_pass(*states.shape[:2])

    def _begin_pass(self, rows: int, width: int) -> None:
        self.passes += 1
        self._pass = f"pass {self.passes}, {rows} rows of {width}"
        self._steps += width <= STEP
        self._looking = width > STEP or self._steps % self.every == 0
        self._take("before the first layer")

    def _take(self, place: str) -> None:
        if not self._looking:
            return
        alive = [ref() for ref in self._before]
        # chained, not copied into a list: that list would be among the objects, hold itself, and stay
        found = self.look.storages(chain(gc.get_objects(), alive))
        total = sum(found.values())
        if total > self.peak.nbytes:
            self.peak = Peak(total, len(found), f"{self._pass}, {place}")
