"""Embeddings from strangers."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gcache.serve.prompt_embeds import decoded
from gcache.serve.refusals import Refused

WIDTH = 32


def saved(value: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def changed(raw: bytes, name: str, change: Callable[[bytes], bytes], compress: int = zipfile.ZIP_STORED) -> bytes:
    """A saved tensor with one entry of its archive changed."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as came, zipfile.ZipFile(made, "w", compress) as archive:
        for entry in came.infolist():
            content = came.read(entry)
            archive.writestr(entry.filename, change(content) if entry.filename.endswith(name) else content)
    return made.getvalue()


def read(raw: bytes) -> torch.Tensor:
    return decoded(raw, WIDTH, 100, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_what_was_saved_is_what_is_read(dtype: torch.dtype) -> None:
    embeds = torch.randn(5, WIDTH).to(dtype)
    found = read(saved(embeds))
    assert torch.equal(found, embeds.float()) and found.dtype == torch.float32 and found.is_contiguous()


def test_bytes_that_would_run_a_program_do_not(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"

    class Program:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    for raw in (
        pickle.dumps(Program()), saved(Program()), saved([torch.ones(2, WIDTH), Program()]),
        changed(saved(torch.ones(2, WIDTH)), "data.pkl", lambda _: pickle.dumps(Program())),
        changed(saved(torch.ones(2, WIDTH)), "data.pkl", lambda _: pickle.dumps(Program(), protocol=0)),
        saved(Program(), _use_new_zipfile_serialization=False),
    ):  # fmt: skip
        with pytest.raises(Refused) as refused:
            read(raw)
        assert refused.value.status == 400
    assert not mark.exists()
    pickle.loads(pickle.dumps(Program()))
    assert mark.exists()  # it would have


def test_a_storage_that_claims_more_than_it_has_is_refused() -> None:
    def claim(content: bytes) -> bytes:
        # K is an integer of one byte: 2 rows of 32 numbers; the claim is 98 rows of them, as an integer of two
        claimed = (98 * WIDTH).to_bytes(2, "little")
        changed_sizes = content.replace(b"K@", b"M" + claimed).replace(b"K\x02K ", b"K\x62K ")
        assert changed_sizes != content
        return changed_sizes

    with pytest.raises(Refused, match=r"storage must hold|cannot be loaded"):  # some releases of torch notice it first
        read(changed(saved(torch.ones(2, WIDTH)), "data.pkl", claim))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.ones(2, WIDTH + 1), "shape"),
        (torch.ones(WIDTH), "shape"),
        (torch.ones(0, WIDTH), "shape"),
        (torch.ones(101, WIDTH), "shape"),
        (torch.full((2, WIDTH), torch.nan), "finite"),
        (torch.full((2, WIDTH), 1e300, dtype=torch.float64), "finite"),
        (torch.ones(2, WIDTH, dtype=torch.long), "names more"),
        (torch.ones(2, WIDTH).to_sparse(), "more than one tensor|names more|one storage"),
        (torch.ones(WIDTH, 2).T, "contiguous"),
        (torch.ones(1, WIDTH).expand(2, WIDTH), "storage must hold"),
        (torch.ones(4, WIDTH)[2:], "storage must hold"),
        ({"a": torch.ones(2, WIDTH)}, "dense tensor"),
        ([torch.ones(2, WIDTH), torch.ones(2, WIDTH)], "one storage"),
        (torch.nn.Parameter(torch.ones(2, WIDTH)), "names more"),
        ("text", "one storage"),
    ],
)  # fmt: skip
def test_anything_but_a_dense_finite_tensor_of_the_width_is_refused(value: Any, said: str) -> None:
    with pytest.raises(Refused, match=said):
        read(saved(value))


def test_archives_that_are_not_what_save_writes_are_refused() -> None:
    raw = saved(torch.ones(2, WIDTH))
    for bad, said in (
        (b"", "not what"), (b"PK\x03\x04", "not what"), (raw[:-30], "not what"), (raw[: len(raw) // 2], "not what"),
        (changed(raw, "none", bytes, zipfile.ZIP_DEFLATED), "compressed"),
        (changed(raw, "byteorder", lambda _: b"big"), "byte order"),
        (changed(raw, "data.pkl", lambda _: b"\x80\x02"), "broken"),
        (saved(torch.ones(2, WIDTH), _use_new_zipfile_serialization=False), "not what"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=said):
            read(bad)


def test_a_small_archive_of_much_is_refused_before_it_is_unpacked() -> None:
    bomb = changed(saved(torch.ones(2, WIDTH)), "data/0", lambda _: bytes(10**7), zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**6
    with pytest.raises(Refused, match="more than one tensor"):
        read(bomb)
