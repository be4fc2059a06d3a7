"""Caches of what was read once, kept for whoever reads the same again: documents, above all.

A cache is named by all that it was made from: the model's weights and dtype, every token before its own, these tokens
and the latent steps behind them. Where the question stands last (`--question last`), a document's cache is the same for
every question, so it is read once for all questions, rollouts, seeds and conditions.

What is kept is read alone, not among others, so that its bits do not depend on what was asked at the same time. A
damaged file is removed and made again.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import torch

from gcache.cache.kv_cache import KVCache
from gcache.errors import DataError, WriteError
from gcache.llm.cache_folder import BrokenCacheFile, CacheFolder, name_of
from gcache.llm.requests import ThinkRequest

logger = logging.getLogger(__name__)

#: Bytes of caches that are held in memory, besides those in files.
MEMORY_BYTES = 2**30


class CacheStore:
    """Caches by what they were made from.

    Args:
        folder: of the files; made where it is missing. Several processes may share it.
        most_bytes: of the files together; those that were not asked for the longest are removed.
        memory_bytes: of those that are held in memory too, which no ledger counts.

    Attributes:
        found: how often a cache was here; made: how often it had to be made; found_tokens, made_tokens: of these, the
            tokens.
        read_bytes: that were read from files.

    Raises:
        DataError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, most_bytes: float, memory_bytes: float = MEMORY_BYTES) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder} cannot be made ({error.strerror}); name another folder for --store"
            ) from error
        self.files = CacheFolder(folder, most_bytes, "name another folder for --store")
        self.memory_bytes = memory_bytes
        self.found, self.made, self.found_tokens, self.made_tokens, self.read_bytes = 0, 0, 0, 0, 0
        self._lock = threading.Lock()
        self._held: OrderedDict[str, KVCache] = OrderedDict()  # by when they were last asked for
        self._held_bytes = 0
        self._told = False  # that files cannot be written

    def holds(self, key: str) -> bool:
        """Whether a cache is held in memory here, so that whoever else has it takes no more."""
        with self._lock:
            return key in self._held

    def get(self, key: str, owner: int, device: torch.device | str) -> KVCache | None:
        """The cache under a key, its slots marked with `owner`."""
        with self._lock:
            cache = self._held.get(key)
            if cache is not None:
                self._held.move_to_end(key)
        if cache is None:
            try:
                known = self.files.read(key)
            except BrokenCacheFile as error:
                logger.warning("%s is damaged (%s); it is removed and made again", self.files.path(key), error)
                with suppress(WriteError):  # it will be written over, or not used again
                    self.files.drop(key)
                known = None
            if known is None:
                return None
            cache = known[0].to(torch.device(device))
            cache = self._hold(key, cache, read=cache.nbytes)
        with self._lock:
            self.found += 1
            self.found_tokens += cache.slots
        return marked(cache, owner)

    def put(self, key: str, cache: KVCache) -> None:
        """Keep a cache that was not here. Where it cannot be written, that is said once, and it is used anyway."""
        try:
            self.files.write(key, cache, {})
        except WriteError as error:
            if not self._told:
                logger.warning("%s; caches are used and not kept", error)
                self._told = True
        self._hold(key, cache)
        with self._lock:
            self.made += 1
            self.made_tokens += cache.slots

    def _hold(self, key: str, cache: KVCache, read: int = 0) -> KVCache:
        """Hold a cache in memory of its own: one of a file is the file's, which somebody may change or cut. Returns
        what is held, or the cache itself where there is no room for it."""
        with self._lock:
            self.read_bytes += read
            if key in self._held or cache.nbytes > self.memory_bytes:
                return self._held.get(key, cache)
            held = replace(cache, **{each.name: getattr(cache, each.name).clone() for each in fields(cache)})
            self._held[key] = held
            self._held_bytes += cache.nbytes
            while self._held_bytes > self.memory_bytes:
                self._held_bytes -= self._held.popitem(last=False)[1].nbytes
            return held

    def __str__(self) -> str:
        """What it was good for so far, in a line."""
        return (
            f"{self.found} caches found ({self.found_tokens:,} tokens, {self.read_bytes / 2**20:,.0f} MiB from files), "
            f"{self.made} made ({self.made_tokens:,} tokens)"
        )


class ModelStore:
    """A store for one model: no two have a cache in common.

    Args:
        model: names the weights and the dtype; latents: names what latent steps feed back.
        keys: of what is kept; None for everything. Nothing else is written then, such as what clients send.
    """

    def __init__(
        self, store: CacheStore, model: str, latents: str = "", keys: frozenset[str] | None = None
    ) -> None:
        self.store, self._model, self._latents, self._keys = store, model, latents, keys

    def of_keys(self, keys: Collection[str]) -> ModelStore:
        """The same for these alone."""
        return ModelStore(self.store, self._model, self._latents, frozenset(keys))

    def key(self, request: ThinkRequest) -> str | None:
        """What a request's cache is known by; None where not all is known that it depends on, or somebody watches."""
        known = request.past is None or request.past_tokens is not None
        plain = not (request.embeds is not None or request.text or request.alignment or request.layers)
        if not known or not plain or request.watch or request.watch_prompt:
            return None
        key = name_of(
            self._model, "cache", int(request.kind), request.past_tokens or (), request.tokens,
            [request.latent_steps, self._latents] if request.latent_steps else 0,
        )  # fmt: skip
        return key if self._keys is None or key in self._keys else None


def tell_of_store(store: ModelStore | None) -> None:
    """Say what a store was good for, where there is one."""
    if store is not None:
        logger.info("%s: %s", store.store.files.folder, store.store)


def marked(cache: KVCache, owner: int) -> KVCache:
    """The same slots as those of another node."""
    return replace(cache, owners=torch.full_like(cache.owners, owner))
