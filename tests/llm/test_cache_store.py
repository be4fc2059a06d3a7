"""Caches that are kept: read once, and what comes back is what was put there, or nothing."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.errors import DataError, WriteError
from gcache.llm import cache_folder
from gcache.llm.cache_folder import ABANDONED, BrokenCacheFile, CacheFolder
from gcache.llm.cache_store import CacheStore, ModelStore
from gcache.llm.local import LocalLLM
from gcache.llm.requests import ThinkRequest
from gcache.llm.scheduler import BatchingLLM

OPENING, WORDS = (1, 22), (50, 40, 9)
FIELDS = [field.name for field in fields(KVCache)]


class Counting:
    """Counts what a model reads, and in how large batches."""

    def __init__(self, llm: LocalLLM, store: ModelStore) -> None:
        self.llm, self.store = llm, store
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.llm, name)

    decoding = None

    def think(self, requests: Any) -> Any:
        self.batches.append(len(requests))
        return self.llm.think(requests)


def store_in(folder: Path, most: float = 1e9, memory: float = 0) -> ModelStore:
    """One that holds nothing in memory, unless it is told to."""
    return ModelStore(CacheStore(folder, most, memory), "m")


def read(llm: Counting, *requests: ThinkRequest) -> list[KVCache]:
    front = BatchingLLM(llm)

    async def together() -> list[KVCache]:
        return list(await asyncio.gather(*(front.think(request) for request in requests)))

    return asyncio.run(together())


def document(llm: LocalLLM, words: tuple[int, ...] = WORDS, **more: Any) -> ThinkRequest:
    (opening,) = llm.think([ThinkRequest(OPENING, owner=SHARED, kind=SlotKind.PREFIX)])
    made = ThinkRequest(words, FusedCache.plain(opening), owner=2, past_tokens=OPENING)
    return replace(made, **more)


def cache(seed: int = 0, slots: int = 4) -> KVCache:
    """One that no model made."""
    drawn = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(2, 1, 2, slots, 4, generator=drawn) for _ in range(2))
    numbers = torch.arange(slots)[None]
    return KVCache(keys, values, numbers, numbers >= 0, torch.ones_like(numbers), numbers * 0, numbers)


def same(one: KVCache, other: KVCache, but: tuple[str, ...] = ()) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS if name not in but)


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("memory", [0, 1e9])
def test_a_document_is_read_once_and_comes_back_to_the_bit(
    tiny_llm: LocalLLM, tmp_path: Path, memory: float, steps: int
) -> None:
    asked = document(tiny_llm, latent_steps=steps)
    llm = Counting(tiny_llm, store_in(tmp_path, memory=memory))
    (made,) = read(llm, asked)
    (expected,) = tiny_llm.think([asked])
    assert same(made, expected)
    for again in (llm, Counting(tiny_llm, store_in(tmp_path, memory=memory))):
        (found,) = read(again, replace(asked, owner=5))
        assert same(found, made, but=("owners",)) and found.makers == {5}
    assert llm.batches == [1] and again.batches == []
    assert (llm.store.store.found, llm.store.store.made) == (1, 1) and again.store.store.found == 1
    assert again.store.store.read_bytes == made.nbytes


def test_what_is_kept_is_read_alone(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    """So that its bits do not depend on what is asked at the same time."""
    llm = Counting(tiny_llm, store_in(tmp_path))
    asked = [document(tiny_llm, words) for words in ((5, 6), (7, 8, 9), (3,))]
    together = read(llm, *asked)
    assert llm.batches == [1, 1, 1]
    assert all(same(one, *tiny_llm.think([request])) for one, request in zip(together, asked, strict=True))


def test_what_a_cache_depends_on_tells_it_apart(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    store = store_in(tmp_path)
    asked = document(tiny_llm)
    different = [
        asked, replace(asked, tokens=(50, 40)), replace(asked, past_tokens=(1, 22, 3)), replace(asked, latent_steps=1),
        replace(asked, latent_steps=2), replace(asked, kind=SlotKind.PREFIX), ThinkRequest(WORDS),
        ThinkRequest(OPENING + WORDS),
    ]  # fmt: skip
    keys = [store.key(request) for request in different]
    assert None not in keys and len(set(keys)) == len(keys)
    assert store.key(replace(asked, owner=7)) == keys[0]
    assert ModelStore(store.store, "other").key(asked) != keys[0]
    thinking = replace(asked, latent_steps=1)
    assert ModelStore(store.store, "m", "as they are").key(thinking) != store.key(thinking)
    assert ModelStore(store.store, "m", "as they are").key(asked) == keys[0]


def test_where_not_all_is_known_nothing_is_kept(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    store, asked = store_in(tmp_path), document(tiny_llm)
    others = [
        replace(asked, past_tokens=None), replace(asked, watch=print), replace(asked, watch_prompt=print),
        replace(asked, text=(4, 5)), ThinkRequest((), embeds=torch.zeros(2, 32)),
    ]  # fmt: skip
    assert [store.key(request) for request in others] == [None] * 5
    read(Counting(tiny_llm, store), *others[:1])
    assert not any(tmp_path.iterdir())


def key(name: object) -> str:
    """As names of a store are."""
    return hashlib.sha256(str(name).encode()).hexdigest()[:32]


def harmed(path: Path, harm: str) -> None:
    content = path.read_bytes()
    if harm == "cut short":
        path.write_bytes(content[:-5])
    elif harm == "a bit":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif harm == "no such file":
        path.write_bytes(b"never mind")
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "of another name":
        CacheFolder(path.parent, 1e9, "").write(key("other"), cache(9), {})
        path.write_bytes((path.parent / f"{key('other')}.safetensors").read_bytes())
    else:  # the words beside the tensors
        save_file(load_file(path), path, {"sha256": "0" * 64})


@pytest.mark.parametrize("harm", ["cut short", "a bit", "no such file", "empty", "of another name", "words"])
def test_a_damaged_file_is_never_used_but_made_again(
    tiny_llm: LocalLLM, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = document(tiny_llm)
    (made,) = read(Counting(tiny_llm, store_in(tmp_path)), asked)
    (path,) = tmp_path.iterdir()
    harmed(path, harm)
    llm = Counting(tiny_llm, store_in(tmp_path))
    (again,) = read(llm, asked)
    assert same(again, made) and llm.batches == [1]
    assert f"{path.name} is damaged" in caplog.text and "made again" in caplog.text
    caplog.clear()
    assert same(read(Counting(tiny_llm, store_in(tmp_path)), asked)[0], made) and not caplog.text


def test_those_that_were_not_asked_for_the_longest_give_way(tmp_path: Path) -> None:
    one = cache()
    CacheFolder(tmp_path / "size", 1e9, "").write(key("x"), one, {})
    size = (tmp_path / "size" / f"{key('x')}.safetensors").stat().st_size
    store, other = (CacheStore(tmp_path / "store", 2.5 * size, 0) for _ in range(2))
    store.put(key("a"), one)
    other.put(key("b"), one)
    assert store.get(key("a"), 0, "cpu") is not None  # so b was asked for the longest ago
    other.put(key("c"), one)
    assert [name for name in "abc" if store.get(key(name), 0, "cpu") is not None] == ["a", "c"]
    assert store.files.nbytes == 2 * size and len(store.files) == 2
    store.put(key("large"), cache(slots=400))  # larger than all the room: nothing gives way for it
    assert [name for name in "ac" if store.get(key(name), 0, "cpu") is not None] == ["a", "c"]


def test_memory_holds_what_was_asked_for_last(tmp_path: Path) -> None:
    one = cache()
    store = CacheStore(tmp_path, 1e9, 2.5 * one.nbytes)
    for name in "abc":
        store.put(key(name), one)
    for path in tmp_path.iterdir():
        path.unlink()
    assert [name for name in "abc" if store.get(key(name), 0, "cpu") is not None] == ["b", "c"]


def test_a_cache_that_is_mapped_outlives_its_file(tmp_path: Path) -> None:
    store = CacheStore(tmp_path, 1e9, 0)
    store.put(key("a"), cache())
    found = store.get(key("a"), 0, "cpu")
    (tmp_path / f"{key('a')}.safetensors").unlink()
    assert found is not None and same(found, cache())


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    store = CacheStore(tmp_path, 1e9, 0)
    left, fresh = (tmp_path / f".{key(name)}.safetensors.x1_abc2d" for name in ("old", "new"))
    for path in (left, fresh):
        path.write_bytes(b"half")
    then = time.time() - 2 * ABANDONED
    os.utime(left, (then, then))
    store.put(key("a"), cache())
    assert not left.exists() and fresh.exists() and len(store.files) == 1


def test_what_is_not_the_stores_is_left_alone(tmp_path: Path) -> None:
    """Whatever else is in the folder: it is not counted, and never removed."""
    names = ("model.safetensors", ".model.safetensors.mybackup", "notes.txt", f"{key(1)}x.safetensors")
    others = [tmp_path / name for name in names]
    for path in others:
        path.write_bytes(b"x" * 10_000)
        os.utime(path, (1, 1))
    folder = tmp_path / f"{key('folder')}.safetensors"
    folder.mkdir()
    store = CacheStore(tmp_path, 5000, 0)
    for name in "abcd":
        store.put(key(name), cache())
    assert all(path.exists() for path in (*others, folder)) and 0 < store.files.nbytes <= 5000


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    CacheStore(tmp_path, 1e9, 0).put(key("a"), cache())
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("harm", ["changed in place", "cut in place"])
def test_what_is_held_in_memory_is_no_file_that_may_change(tmp_path: Path, harm: str) -> None:
    CacheStore(tmp_path, 1e9, 0).put(key("a"), cache())
    store = CacheStore(tmp_path, 1e9, 1e9)
    first = store.get(key("a"), 0, "cpu")
    (path,) = tmp_path.iterdir()
    with path.open("r+b") as file:
        if harm == "cut in place":
            file.truncate(100)
        else:
            file.seek(-64, os.SEEK_END)
            file.write(b"\0" * 64)
    again = store.get(key("a"), 0, "cpu")
    assert first is not None and again is not None and same(first, cache()) and same(again, cache())


def test_a_store_that_cannot_be_written_costs_no_answer(
    tiny_llm: LocalLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise WriteError("no space left on device")

    monkeypatch.setattr(cache_folder, "write_bytes", full)
    llm = Counting(tiny_llm, store_in(tmp_path))
    asked = [document(tiny_llm, words) for words in ((5, 6), (7, 8, 9))]
    assert all(same(one, *tiny_llm.think([request])) for one, request in zip(read(llm, *asked), asked, strict=True))
    assert caplog.text.count("no space left on device; caches are used and not kept") == 1


def test_the_ledger_counts_no_cache_twice(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    """What the store holds in memory is its own; whoever else has it takes no more. What it does not hold counts while
    somebody has it."""
    asked = [document(tiny_llm, words) for words in ((5, 6), (7, 8, 9))]
    gc.collect()
    before = tiny_llm.ledger.held
    llm = Counting(tiny_llm, store_in(tmp_path, memory=1e9))
    read(llm, *asked)
    gc.collect()
    assert tiny_llm.ledger.held == before
    many = [read(llm, request) for request in asked * 5]
    assert tiny_llm.ledger.held == before and len(many) == 10
    without = Counting(tiny_llm, store_in(tmp_path))
    (found,) = read(without, asked[0])
    assert tiny_llm.ledger.held == before + found.nbytes
    del found
    gc.collect()
    assert tiny_llm.ledger.held == before


def test_only_some_caches_may_be_kept(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    asked, other = document(tiny_llm), document(tiny_llm, (4, 4))
    store = store_in(tmp_path)
    known = store.key(asked)
    assert known is not None
    llm = Counting(tiny_llm, store.of_keys([known]))
    read(llm, asked, other, other)
    assert [path.stem for path in tmp_path.iterdir()] == [known] and store.store.made == 1


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    for path in (file, file / "below"):
        with pytest.raises(DataError, match=r"cannot be made \(.*\); name another folder for --store"):
            CacheStore(path, 1e9)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_cache_store import cache, key
from gcache.llm.cache_folder import CacheFolder
folder = CacheFolder(Path(sys.argv[1]), 1e9, "")
print("begun", flush=True)
for seed in range(int(sys.argv[2])):
    folder.write(key(seed % 7), cache(seed % 7, 2000), {})
"""


def writer(folder: Path, times: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(times), str(Path(__file__).parent)],
        stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def entries(folder: Path) -> dict[str, KVCache]:
    """All that can be read; each is checked to be what was written."""
    files, found = CacheFolder(folder, 1e9, ""), {}
    for seed in range(7):
        known = files.read(key(seed))
        if known is not None:
            assert same(known[0], cache(seed, 2000))
            found[str(seed)] = known[0]
    return found


@pytest.mark.slow
def test_killed_while_writing_no_entry_lies(tmp_path: Path) -> None:
    """Twenty times, at any moment of a write. `entries` raises where a file is damaged."""
    for round_ in range(20):
        process = writer(tmp_path, 10_000)
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        while not entries(tmp_path) or (round_ % 3 and len(entries(tmp_path)) < 7):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        entries(tmp_path)
    assert len(entries(tmp_path)) == 7


@pytest.mark.slow
def test_two_processes_write_the_same_entries(tmp_path: Path) -> None:
    both = [writer(tmp_path, 60) for _ in range(2)]
    for process in both:
        process.communicate()
    assert [process.returncode for process in both] == [0, 0] and len(entries(tmp_path)) == 7
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_file_without_a_seal_is_none(tmp_path: Path) -> None:
    files = CacheFolder(tmp_path, 1e9, "")
    files.write(key("a"), cache(), {"said": "x"})
    known = files.read(key("a"))
    assert known is not None and known[1] == {"said": "x"}
    path = files.path(key("a"))
    save_file(load_file(path), path, {"said": "x"})
    assert files.read(key("a")) is None
    save_file(load_file(path), path, {"sha256": "x", "said": "x"})
    with pytest.raises(BrokenCacheFile, match="does not fit"):
        files.read(key("a"))
