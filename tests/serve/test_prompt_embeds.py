"""Embeddings from strangers."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from collections import Counter
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


FORMATS: list[dict[str, Any]] = [{}, {"_use_new_zipfile_serialization": False}]
DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


@pytest.mark.parametrize("how", FORMATS, ids=["archive", "old format"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_was_saved_is_what_is_read(dtype: torch.dtype, how: dict[str, Any]) -> None:
    embeds = torch.randn(5, WIDTH).to(dtype)
    found = read(saved(embeds, **how))
    assert torch.equal(found, embeds.float()) and found.dtype == torch.float32 and found.is_contiguous()


@pytest.mark.parametrize("how", FORMATS, ids=["archive", "old format"])
@pytest.mark.parametrize(
    "value",
    [
        torch.randn(1, 5, WIDTH), torch.randn(WIDTH, 5).T, torch.randn(9, WIDTH)[2:7],
        torch.randn(20, WIDTH)[::4], torch.randn(5, 3 * WIDTH)[:, WIDTH:-WIDTH],
        torch.randn(5, WIDTH, requires_grad=True), torch.nn.Parameter(torch.randn(5, WIDTH)),
    ],
    ids=["batch of one", "transposed", "rows", "strided", "columns", "with gradient", "parameter"],
)  # fmt: skip
def test_vllm_takes_it_however_it_lies_in_memory(value: torch.Tensor, how: dict[str, Any]) -> None:
    found = read(saved(value, **how))
    assert torch.equal(found, value.detach().reshape(5, WIDTH)) and not found.requires_grad and found.is_contiguous()


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

    with pytest.raises(Refused, match="claims more numbers"):
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
        (torch.ones(1, WIDTH).expand(2, WIDTH), "more numbers"),
        (torch.ones(1, WIDTH).expand(10**9, WIDTH), "more numbers"),
        (torch.ones(2, 2, WIDTH), "shape"),
        (torch.ones(1, 1, 2, WIDTH), "shape"),
        (torch.tensor(1.0), "shape"),
        (torch.ones(2, WIDTH, dtype=torch.long), "floating point"),
        (torch.ones(2, WIDTH, dtype=torch.bool), "floating point"),
        (torch.ones(2, WIDTH, dtype=torch.complex64), "floating point"),
        (torch.ones(2, WIDTH).to_sparse(), "dense tensor"),
        (torch.ones(2, WIDTH, device="meta"), "dense tensor"),
        ({"a": torch.ones(2, WIDTH)}, "dense tensor"),
        ([torch.ones(2, WIDTH), torch.ones(2, WIDTH)], "dense tensor"),
        ("text", "dense tensor"),
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
        (b"junk", "not what"), (saved(torch.ones(2, WIDTH), _use_new_zipfile_serialization=False)[:-30], "storage"),
        (saved(torch.ones(2, WIDTH), pickle_protocol=4), "more than a tensor"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=said):
            read(bad)


def test_a_small_archive_of_much_is_refused_before_it_is_unpacked() -> None:
    bomb = changed(saved(torch.ones(2, WIDTH)), "data/0", lambda _: bytes(10**7), zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**6
    with pytest.raises(Refused, match="more than one tensor"):
        read(bomb)


def test_a_pickle_with_other_bytes_is_refused_or_is_another_tensor() -> None:
    draw = random.Random(0)

    def broken(content: bytes) -> bytes:
        other = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            other[draw.randrange(len(other))] = draw.randrange(256)
        return bytes(other)

    archive, old = (saved(torch.ones(2, WIDTH), **how) for how in FORMATS)
    numbers = 2 * WIDTH * 4 + 8
    outcomes: Counter[str] = Counter()
    for _ in range(3000):
        for raw in (changed(archive, "data.pkl", broken), broken(old[:-numbers]) + old[-numbers:]):
            try:
                found = read(raw)
            except Refused as refused:
                assert refused.status == 400
                outcomes["refused"] += 1
            else:
                assert found.shape[1] == WIDTH and found.isfinite().all()
                outcomes["read"] += 1
    assert min(outcomes.values()) > 100  # some bytes, such as a storage's place, mean nothing here
