"""llama.cpp beside us, with a stand-in for its library: what it is asked, and what is made of it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from fake_llama_cpp import VOCABULARY, FakeLlamaCpp, next_token

from benchmarks import beside_llama_cpp
from benchmarks.__main__ import main, parser, skipped_sections
from benchmarks.agreement import leading
from benchmarks.llama_cpp_model import PASS, LlamaCpp, has
from benchmarks.setting import Bench, Questions, Settings
from gcache.errors import ConfigError, ModelError

PROMPTS = [(3, 1, 4), (1, 5), (9, 2, 6, 5)]


def written(prompt: tuple[int, ...], longest: int) -> tuple[int, ...]:
    tokens = list(prompt)
    for _ in range(longest):
        tokens.append(next_token(tokens))
    return tuple(tokens[len(prompt) :])


def test_it_writes_what_each_text_alone_would_get() -> None:
    library = FakeLlamaCpp()
    with LlamaCpp(library, "file.gguf", threads=2, rows=3, slots=20) as llama:
        assert llama.write(PROMPTS, 5) == [written(prompt, 5) for prompt in PROMPTS]
        assert llama.write(PROMPTS[:1], 1) == [written(PROMPTS[0], 1)]  # nothing is left of the texts before
    assert library.freed == ["batch", "context", "model"]


def test_only_tokens_that_are_followed_have_logits() -> None:
    library = FakeLlamaCpp()
    with LlamaCpp(library, "file.gguf", threads=2, rows=3, slots=20) as llama:
        llama.write(PROMPTS, 3)
        prompts, steps = library.passes[:3], library.passes[3:]
        assert [[entry[3] for entry in entries] for entries in prompts] == [
            [place == len(prompt) - 1 for place in range(len(prompt))] for prompt in PROMPTS
        ]
        assert [[entry[2:] for entry in entries] for entries in steps] == [[(row, True) for row in range(3)]] * 2
        library.passes.clear()
        llama.read(PROMPTS)
        assert not any(entry[3] for entries in library.passes for entry in entries)


def test_a_long_prompt_is_cut_into_passes() -> None:
    library = FakeLlamaCpp()
    prompt = tuple(place % VOCABULARY for place in range(PASS + 3))
    with LlamaCpp(library, "file.gguf", threads=2, rows=1, slots=PASS + 10) as llama:
        assert llama.write([prompt], 2) == [written(prompt, 2)]
    assert [len(entries) for entries in library.passes] == [PASS, 3, 1]


def test_prompts_of_one_length_are_read_together() -> None:
    library = FakeLlamaCpp()
    prompts = [(1, 2), (3, 4, 5), (5, 6, 7), *[(row % VOCABULARY,) * 200 for row in range(3)]]
    with LlamaCpp(library, "file.gguf", threads=2, rows=6, slots=300) as llama:
        assert llama.write(prompts, 2) == [written(prompt, 2) for prompt in prompts]
    assert [len(entries) for entries in library.passes] == [2, 6, 400, 200, 6]


def test_it_is_set_as_asked() -> None:
    library = FakeLlamaCpp()
    with LlamaCpp(library, "file.gguf", threads=2, rows=3, slots=20) as llama:
        about = llama.about()
    asked = library.settings
    assert (asked.n_ctx, asked.n_seq_max, asked.n_threads, asked.n_threads_batch) == (60, 3, 2, 2)
    assert (asked.n_batch, asked.n_ubatch, asked.flash_attn_type) == (PASS, PASS, -1)
    assert about["has"] == ["SSE3", "AVX2", "REPACK"] and about["threads"] == 2


def test_what_llama_cpp_refuses_is_an_error_of_the_model() -> None:
    with pytest.raises(ModelError, match=r"file\.gguf"):
        LlamaCpp(FakeLlamaCpp(loads=False), "file.gguf", threads=1, rows=1, slots=8)
    llama = LlamaCpp(FakeLlamaCpp(fails=1), "file.gguf", threads=1, rows=1, slots=8)
    with llama, pytest.raises(ModelError, match="llama_decode gave 1"):
        llama.write(PROMPTS[:1], 1)


def test_flags_of_several_backends() -> None:
    assert has("CUDA : ARCHS = 500 | CPU : AVX2 = 1 | FMA = 0 | ") == ["AVX2"]


def test_leading_tokens() -> None:
    found = leading([(1, 2, 3), (1, 2, 3), (4, 5)], [(1, 2, 3), (1, 9, 3), (4, 5, 6)])
    assert (found.common, found.most, found.identical) == ((3, 1, 2), (3, 3, 2), 2)
    assert found.mean == 2.0


@pytest.fixture(scope="module")
def bench(model_folder: Path, data: Path) -> Bench:
    settings = Settings(questions=5, batch=4, max_new_tokens=4, repeats=2)
    return Bench.of(str(model_folder), Questions.of(str(data), settings), settings)


def test_the_section(bench: Bench) -> None:
    library = FakeLlamaCpp()
    found = beside_llama_cpp.measure(bench, library)
    names = {"llama.cpp", "ours", "ours, without lookup"}
    assert [(work["batch"], work["texts"]) for work in found["decode"]] == [(1, 4), (4, 4)]
    for work in found["decode"]:
        assert work["tokens_per_second"].keys() == work["seconds"].keys() == work["generated"].keys() == names
        assert all(len(rounds) == 2 for rounds in work["seconds_first_token"].values())
        assert work["generated"]["llama.cpp"] == [4 * 4] * 2
        assert len(work["ratio"]) == len(work["ratio_without_lookup"]) == 2
    assert [(work["prompts"], work["length"]) for work in found["prefill"]] == [(4, 100), (1, 512)]
    assert all(speed > 0 for work in found["prefill"] for speed in work["tokens_per_second"]["llama.cpp"])
    assert len(found["agreement"]["common"]) == 4 and found["steps"] == 3
    assert found["reference"] == "llama.cpp unknown with SSE3 AVX2 REPACK"
    assert library.freed == ["batch", "context", "model"]


def test_time_of_the_first_token_is_left_out() -> None:
    assert beside_llama_cpp.Written(first=1.0, whole=3.0, texts=[(1,) * 65, (1,) * 65]).speed == 64.0


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama-cpp-python, installed or not."""
    monkeypatch.delitem(sys.modules, "llama_cpp.llama_cpp", raising=False)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.touch()
    return file


@pytest.mark.usefixtures("absent")
def test_without_the_library_it_says_how_to_get_it(
    gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--only", "llama_cpp", "--models", str(gguf), "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "pip install llama-cpp-python" in line and "15 minutes" in line
    with pytest.raises(ConfigError, match="pip install llama-cpp-python"):
        beside_llama_cpp.import_llama_cpp()


def test_a_model_that_is_no_gguf_file_is_named(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--only", "llama_cpp", "--models", str(model_folder), "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "needs a .gguf file" in line and str(model_folder) in line


@pytest.mark.usefixtures("absent")
def test_a_default_run_leaves_it_out_and_says_so(
    gguf: Path, model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = parser().parse_args(["--models", str(gguf), str(model_folder)])
    with caplog.at_level(logging.INFO, "benchmarks"):
        assert skipped_sections(["floor", "llama_cpp"], args) == {
            ("llama_cpp", str(gguf)), ("llama_cpp", str(model_folder)),
        }  # fmt: skip
        assert skipped_sections(["floor"], args) == set()
    first, second = caplog.messages
    assert first.startswith(f"skipping llama_cpp of {gguf}: llama-cpp-python is not there")
    assert second.startswith(f"skipping llama_cpp of {model_folder}: llama.cpp needs a .gguf file")
