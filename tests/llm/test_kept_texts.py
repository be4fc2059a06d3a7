"""Texts that are kept: written once, the same for whoever asks again, in this run and in the next."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from gcache.build import build
from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED, SlotKind
from gcache.config import GraphSpec
from gcache.errors import ConfigError, DataError
from gcache.llm.cache_budget import Limits
from gcache.llm.forward.alignment import Alignment
from gcache.llm.kept_scores import KeptScores, content_of
from gcache.llm.kept_slots import KeptSlots
from gcache.llm.kept_texts import KeptTexts, read_texts
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest
from gcache.llm.scheduler import BatchingLLM

ASKED = GenerateRequest((5, 9, 17), None, 6, 0.9, seed=3)
QUESTION = (1, 22, 50, 40)


class Counting:
    """Counts what a model is asked."""

    def __init__(self, llm: LocalLLM, texts: KeptTexts) -> None:
        self.llm, self.kept_texts = llm, texts
        self.written = self.read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.llm, name)

    decoding = None

    def generate(self, requests: Any) -> Any:
        self.written += len(requests)
        return self.llm.generate(requests)

    def think(self, requests: Any) -> Any:
        self.read += len(requests)
        return self.llm.think(requests)


def ask(llm: Counting, *requests: GenerateRequest) -> list[Generation]:
    front = BatchingLLM(llm)

    async def together() -> list[Generation]:
        return list(await asyncio.gather(*(front.generate(request) for request in requests)))

    return asyncio.run(together())


def on_question(llm: LocalLLM, **more: Any) -> GenerateRequest:
    """An agent's solution behind a question."""
    (shared,) = llm.think([ThinkRequest(QUESTION, owner=SHARED, kind=SlotKind.PREFIX)])
    made = replace(ASKED, past=FusedCache.plain(shared), past_tokens=QUESTION, owner=2)
    return replace(made, **more)


def test_a_text_is_written_once_in_this_run_and_the_next(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    first = Counting(tiny_llm, KeptTexts("m", file))
    (text,) = ask(first, ASKED)
    assert ask(first, ASKED, ASKED) == [text, text] and first.written == 1
    again = Counting(tiny_llm, KeptTexts("m", file))
    (found,) = ask(again, ASKED)
    assert (found.text, found.tokens, found.finished, again.written) == (text.text, text.tokens, text.finished, 0)
    assert found.log_probs == pytest.approx(text.log_probs, abs=1e-4)
    assert again.kept_texts.reused == 1 and again.kept_texts.reused_seconds > 0


def test_what_a_text_depends_on_tells_it_apart(tiny_llm: LocalLLM) -> None:
    texts = KeptTexts("m")
    greedy = replace(ASKED, temperature=0.0)
    different = [
        ASKED, greedy, replace(ASKED, seed=4), replace(ASKED, temperature=0.8), replace(ASKED, max_new_tokens=7),
        replace(ASKED, tokens=(5, 9)), replace(ASKED, latent_steps=1), replace(ASKED, top_p=0.9),
        on_question(tiny_llm), on_question(tiny_llm, tokens=(22, 5)),
        replace(on_question(tiny_llm), past_tokens=QUESTION[:-1]),
    ]  # fmt: skip
    keys = [texts.key(request) for request in different]
    assert None not in keys and len(set(keys)) == len(keys)
    assert texts.key(replace(greedy, seed=9)) == texts.key(greedy)
    assert KeptTexts("another").key(ASKED) != texts.key(ASKED)


def test_where_not_all_is_known_nothing_is_kept(tiny_llm: LocalLLM) -> None:
    texts = KeptTexts("m")
    unknown = on_question(tiny_llm, past_tokens=None)
    others = [
        replace(ASKED, stop=("x",)), replace(ASKED, watch=print), replace(ASKED, top_log_probs=0),
        replace(ASKED, watch_latents=print), replace(ASKED, alignment=Alignment.of_model(tiny_llm.model)),
        GenerateRequest((), embeds=torch.zeros(2, 32)),
    ]  # fmt: skip
    assert [texts.key(request) for request in (unknown, *others)] == [None] * 7


NAMES = ("kinds", "owners", "positions", "ordinals", "mask")


@pytest.mark.parametrize("steps", [0, 2])
def test_slots_of_a_kept_text_are_read_anew(tiny_llm: LocalLLM, steps: int) -> None:
    llm = Counting(tiny_llm, KeptTexts("m"))
    asked = on_question(tiny_llm, latent_steps=steps)
    (first,), (again,) = ask(llm, asked), ask(llm, asked)
    assert first.slots is not None and again.slots is not None and (llm.written, llm.read) == (1, 1)
    for name in NAMES:
        assert getattr(first.slots, name).tolist() == getattr(again.slots, name).tolist()
    torch.testing.assert_close(first.slots.keys, again.slots.keys, atol=1e-4, rtol=0)
    (other,) = ask(llm, replace(asked, owner=1))
    assert other.slots is not None and other.slots.makers == {1}


@pytest.mark.parametrize("steps", [0, 2])
def test_slots_that_are_kept_are_those_it_had_to_the_bit(tiny_llm: LocalLLM, tmp_path: Path, steps: int) -> None:
    """In this run and in the next, of texts that were just written and of those that were read anew."""
    file, folder = tmp_path / "texts.jsonl", tmp_path / "slots"
    asked = on_question(tiny_llm, latent_steps=steps)
    (first,) = ask(Counting(tiny_llm, KeptTexts("m", file, slots=KeptSlots(folder, 1e9))), asked)
    for number in range(2):
        llm = Counting(tiny_llm, KeptTexts("m", file, slots=KeptSlots(folder, 1e9)))
        (again,) = ask(llm, asked)
        assert first.slots is not None and again.slots is not None and (llm.written, llm.read) == (0, 0)
        assert all(torch.equal(getattr(first.slots, n), getattr(again.slots, n)) for n in ("keys", "values", *NAMES))
        other = ask(llm, replace(asked, owner=1))[0].slots  # read anew once, then kept as well
        assert other is not None and other.makers == {1} and llm.read == 1 - number


def test_slots_that_were_not_asked_for_the_longest_are_removed(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    caches = [text.slots for text in ask(Counting(tiny_llm, KeptTexts("m")), *[on_question(tiny_llm)] * 3)]
    assert caches[0] is not None
    KeptSlots(tmp_path, 1e9).put("f" * 32, 0, caches[0])
    size = (tmp_path / f"{'f' * 32}-0.safetensors").stat().st_size
    (tmp_path / f"{'f' * 32}-0.safetensors").unlink()
    kept = KeptSlots(tmp_path, 2.5 * size)
    kept.put("a" * 32, 0, caches[0])
    kept.put("b" * 32, 0, caches[0])
    assert kept.get("a" * 32, 0, "cpu") is not None and kept.get("b" * 32, 1, "cpu") is None
    kept.put("c" * 32, 0, caches[0])
    assert {file.name[0] for file in tmp_path.iterdir()} == {"a", "c"}
    later = KeptSlots(tmp_path, 2.5 * size)  # which knows what was used last
    later.put("d" * 32, 0, caches[0])
    assert {file.name[0] for file in tmp_path.iterdir()} == {"c", "d"}
    KeptSlots(tmp_path, 0.5 * size).put("e" * 32, 0, caches[0])
    assert {file.name[0] for file in tmp_path.iterdir()} == {"c", "d"}


def test_broken_slots_are_one_line_that_names_the_way_out(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    file, kept = tmp_path / "texts.jsonl", KeptSlots(tmp_path / "slots", 1e9)
    llm = Counting(tiny_llm, KeptTexts("m", file, slots=kept))
    ask(llm, on_question(tiny_llm))
    (written,) = (tmp_path / "slots").iterdir()
    written.write_bytes(written.read_bytes()[:-7])
    with pytest.raises(DataError, match=r"holds no slots of a kept text .*; remove it, and the text is read anew"):
        ask(llm, on_question(tiny_llm))
    written.unlink()
    assert ask(llm, on_question(tiny_llm))[0].slots is not None and llm.read == 1


def test_slots_are_those_of_the_text_that_is_served(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    """Two processes wrote other texts under one key: the first line counts, and slots of the second are none."""
    file, folder = tmp_path / "texts.jsonl", tmp_path / "slots"
    asked = on_question(tiny_llm)
    names = KeptTexts("m", None)
    key = names.key(asked)
    assert key is not None and asked.owner is not None
    first, second = (ask(Counting(tiny_llm, KeptTexts("m")), replace(asked, seed=s))[0] for s in (3, 4))
    assert first.tokens != second.tokens and second.slots is not None
    for text in (first, second):
        KeptTexts("m", file, texts={}).put(key, text, 1.0)
    marks = [KeptTexts("m", texts={}).put(key, text, 1.0).mark for text in (first, second)]
    slots = KeptSlots(folder, 1e9)
    slots.put(key, asked.owner, second.slots, mark=marks[1])
    llm = Counting(tiny_llm, KeptTexts("m", file, slots=slots))
    (served,) = ask(llm, asked)
    assert served.tokens == first.tokens and llm.read == 1 and served.slots is not None and first.slots is not None
    torch.testing.assert_close(served.slots.values, first.slots.values, atol=1e-4, rtol=0)
    assert ask(llm, asked)[0].slots is not None and llm.read == 1  # and now these are kept
    assert slots.get(key, asked.owner, "cpu", marks[1]) is None


@pytest.mark.parametrize("harm", ["a bit", "another's name", "another's seconds"])
def test_slots_that_are_not_what_was_written_are_refused(tiny_llm: LocalLLM, tmp_path: Path, harm: str) -> None:
    kept = KeptSlots(tmp_path, 1e9)
    one, other = (ask(Counting(tiny_llm, KeptTexts("m")), on_question(tiny_llm, seed=s))[0].slots for s in (3, 4))
    assert one is not None and other is not None
    kept.put("a", 0, one, 1.5, "t")
    kept.put("b", 0, other, 1.5, "t")
    file = tmp_path / "a-0.safetensors"
    content = bytearray(file.read_bytes())
    if harm == "a bit":
        content[-40] ^= 1
    elif harm == "another's name":
        content = bytearray((tmp_path / "b-0.safetensors").read_bytes())
    else:
        content = bytearray(bytes(content).replace(b'"1.5"', b'"9.5"'))
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"its sha256 does not fit\); remove it, and the text is read anew"):
        kept.get("a", 0, "cpu", "t")
    assert kept.get("b", 0, "cpu", "t") is not None


def test_slots_without_a_seal_are_made_anew(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    llm = Counting(tiny_llm, KeptTexts("m", tmp_path / "texts.jsonl", slots=KeptSlots(tmp_path / "slots", 1e9)))
    ask(llm, on_question(tiny_llm))
    (file,) = (tmp_path / "slots").iterdir()
    file.write_bytes(save(load(file.read_bytes())))
    assert ask(llm, on_question(tiny_llm))[0].slots is not None and llm.read == 1
    assert ask(llm, on_question(tiny_llm))[0].slots is not None and llm.read == 1


def test_a_model_has_texts_questions_and_scores_of_its_own(tmp_path: Path) -> None:
    one, other = (KeptTexts(model, slots=KeptSlots(tmp_path, 1e9)) for model in ("m", "n"))
    question = ThinkRequest(QUESTION, owner=SHARED, kind=SlotKind.PREFIX)
    assert one.key(ASKED) != other.key(ASKED)
    assert one.key_of_question(question) != other.key_of_question(question) is not None
    of: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
        ("c", (1,), (2,)), ("d", (1,), (2,)), ("c", (3,), (2,)), ("c", (1,), (3,))
    ]  # fmt: skip
    assert len({kept.key_of_score(*each) for kept in (one, other) for each in of}) == 8


def test_a_text_of_another_vocabulary_is_one_line(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    (text,) = ask(Counting(tiny_llm, KeptTexts("m", file)), ASKED)
    most = max(text.tokens)
    with pytest.raises(DataError, match=rf"a text with token {most}, .* remove the line"):
        ask(Counting(tiny_llm, KeptTexts("m", file, vocabulary=most)), ASKED)
    assert ask(Counting(tiny_llm, KeptTexts("m", file, vocabulary=most + 1)), ASKED)[0].tokens == text.tokens


def test_log_probabilities_are_kept_to_the_bit(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    (text,) = ask(Counting(tiny_llm, KeptTexts("m", file)), ASKED)
    assert ask(Counting(tiny_llm, KeptTexts("m", file)), ASKED)[0].log_probs == text.log_probs


@pytest.mark.parametrize("values", ["NaN, 1", "Infinity, 1", "3.5, 1", "-1, -1", "true, 1", '-1, "1"', "-1, Infinity"])
def test_what_is_no_score_is_refused(tmp_path: Path, values: str) -> None:
    (tmp_path / "scores").write_text(f'["k", {values}]\n')
    with pytest.raises(DataError, match=r"line 1: not a kept score .*; remove the line, or the file"):
        KeptScores(tmp_path / "scores")


def test_a_score_belongs_to_all_that_attention_reads(tiny_llm: LocalLLM) -> None:
    (cache,) = tiny_llm.think([ThinkRequest(QUESTION)])
    plain = content_of(FusedCache.plain(cache))
    for changed in (
        replace(cache, positions=cache.positions + 1), replace(cache, mask=torch.zeros_like(cache.mask)),
        replace(cache, keys=cache.keys + 1), replace(cache, values=cache.values + 1),
    ):  # fmt: skip
        assert content_of(FusedCache.plain(changed)) != plain
    assert content_of(FusedCache.plain(replace(cache, keys=cache.keys.clone()))) == plain


def test_a_killed_run_goes_on_behind_its_last_whole_line(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    """A line without an end is none: a run was killed there, or another one is writing it."""
    file = tmp_path / "texts.jsonl"
    ask(Counting(tiny_llm, KeptTexts("m", file)), ASKED, replace(ASKED, seed=8))
    whole = file.read_text()
    for broken in (whole.splitlines()[0][:40], whole.splitlines()[0]):
        file.write_text(whole + broken)
        found = KeptTexts("m", file)
        assert len(found) == 2 and file.read_text() == whole + broken
    ask(Counting(tiny_llm, found), replace(ASKED, seed=9))
    assert len(KeptTexts("m", file)) == 3


def test_two_processes_lose_no_line(tmp_path: Path) -> None:
    file, each = tmp_path / "texts.jsonl", 40
    script = (
        "import sys; from pathlib import Path; from gcache.llm.kept_texts import KeptTexts\n"
        "from gcache.llm.requests import Generation\n"
        "texts = KeptTexts('m', Path(sys.argv[1]))\n"
        "for n in range(int(sys.argv[3])):\n"
        "    texts.put(f'{sys.argv[2]}-{n}', Generation('x' * 5000, (1,), (0.0,), True), 0.0)\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(file), name, str(each)]) for name in ("one", "other")
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(KeptTexts("m", file)) == 2 * each


@pytest.mark.parametrize("spoil", [Path.mkdir, lambda file: file.write_bytes(b"\xff\xfe\n")])
def test_what_is_no_file_of_texts_is_one_line(tmp_path: Path, spoil: Any) -> None:
    file = tmp_path / "texts.jsonl"
    spoil(file)
    with pytest.raises(DataError, match=r"name a|another file"):
        read_texts(file)


def test_a_bad_file_is_refused_before_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcache.build.load_model", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(DataError, match="cannot be read"):
        build(GraphSpec(), Limits(texts=str(tmp_path)))
    with pytest.raises(ConfigError, match="name their file by --texts"):
        Limits(kept_gb=1)


def test_what_latent_steps_feed_back_tells_texts_apart() -> None:
    plain, other = KeptTexts("m", latents="realigned"), KeptTexts("m", latents="as they are")
    assert plain.key(ASKED) == other.key(ASKED)
    behind = replace(ASKED, latent_steps=2)
    assert plain.key(behind) != other.key(behind)


def test_slots_from_a_file_count_as_caches_while_somebody_has_them(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    llm = Counting(tiny_llm, KeptTexts("m", slots=KeptSlots(tmp_path, 1e9)))
    asked = on_question(tiny_llm)
    ask(llm, asked)
    gc.collect()
    before = tiny_llm.ledger.held
    (text,) = ask(llm, asked)
    assert text.slots is not None and tiny_llm.ledger.held == before + text.slots.nbytes
    del text
    gc.collect()
    assert tiny_llm.ledger.held == before


GOOD = {"key": "a", "text": "t", "tokens": [1], "log_probs": [-0.5], "finished": True, "seconds": 1.0}


@pytest.mark.parametrize(
    "line",
    [
        "{}", "[1]", '{"key": "a", "tokens": []}', "nonsense", json.dumps({**GOOD, "tokens": ["1"]}),
        json.dumps({**GOOD, "tokens": [-1]}), json.dumps({**GOOD, "log_probs": [0.5]}),
        json.dumps({**GOOD, "log_probs": [float("nan")]}), json.dumps({**GOOD, "seconds": -1}),
        json.dumps({**GOOD, "finished": "no"}), json.dumps({**GOOD, "text": 3}),
    ],
)  # fmt: skip
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"line 1: not a kept text .*; remove the line, or name another file"):
        KeptTexts("m", file)
    assert file.read_text() == f"{line}\n"


def test_a_file_says_what_was_written(tiny_llm: LocalLLM, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    (text,) = ask(Counting(tiny_llm, KeptTexts("m", file)), ASKED)
    (line,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert line["text"] == text.text and tuple(line["tokens"]) == text.tokens and line["seconds"] > 0
