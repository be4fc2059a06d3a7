"""Bodies of requests for completions with embeddings: every variant that tests/real_vllm.sh sends to two servers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import torch

from gcache.graph.writers.prompt_embeds import encoded

#: Of the served model: its width, and the positions that it is served with.
WIDTH, CONTEXT = 576, 2048


def embeds_of(rows: int, width: int = WIDTH) -> str:
    """Base64 of small embeddings, always the same of one length."""
    return encoded(torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)) * 0.1)


def saved(value: Any, **how: Any) -> str:
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return base64.b64encode(buffer.getvalue()).decode()


def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every variant of a request with embeddings, by name."""
    one, two = embeds_of(5), embeds_of(3)
    tensor = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1)) * 0.1
    for name, prompt in (
        ("absent", {}), ("null", {"prompt": None}), ("[]", {"prompt": []}), ('""', {"prompt": ""}),
        ('[""]', {"prompt": [""]}), ("[[]]", {"prompt": [[]]}), ('"x"', {"prompt": "x"}), ('["x"]', {"prompt": ["x"]}),
        ('["x", "y"]', {"prompt": ["x", "y"]}), ("tokens", {"prompt": [504, 1109]}),
        ("lists of tokens", {"prompt": [[504], [1109, 260]]}), ("a number", {"prompt": 5}),
        ("no such token", {"prompt": [10**7]}), ("a negative token", {"prompt": [-1]}),
    ):  # fmt: skip
        for beside, embeds in (
            ("no embeds", {}), ("null", {"prompt_embeds": None}), ("one", {"prompt_embeds": one}),
            ("a list of two", {"prompt_embeds": [one, two]}), ("[]", {"prompt_embeds": []}),
        ):  # fmt: skip
            yield f"prompt {name}, prompt_embeds {beside}", {**prompt, **embeds}
    tensors: dict[str, Any] = {
        '""': "", '[""]': [""], "[null]": [None], "a number": 5, "an object": {}, "numbers": [[0.5] * WIDTH],
        "not base64": "!!!!", "cut base64": one[:-1], "base64 with a newline": one[:76] + "\n" + one[76:],
        "base64 of junk": base64.b64encode(b"junk").decode(), "half of it": one[: len(one) // 8 * 4],
        "one that is none among two": [one, "!!!!"],
        "bfloat16": saved(tensor.bfloat16()), "float16": saved(tensor.half()), "float64": saved(tensor.double()),
        "float8": saved(tensor.to(torch.float8_e4m3fn)), "int64": saved(tensor.long()), "bool": saved(tensor > 0),
        "complex": saved(tensor.to(torch.complex64)), "(1, S, E)": saved(tensor[None]),
        "(2, S, E)": saved(torch.stack([tensor] * 2)), "(1, 1, S, E)": saved(tensor[None, None]),
        "(E,)": saved(tensor[0].clone()), "()": saved(torch.tensor(1.0)), "another width": embeds_of(5, WIDTH + 1),
        "no row": saved(tensor[:0].clone()), "a view": saved(torch.cat([tensor] * 3)[5:10]),
        "transposed": saved(tensor.T.contiguous().T),
        "with gradient": saved(tensor.clone().requires_grad_()), "a parameter": saved(torch.nn.Parameter(tensor)),
        "the old format": saved(tensor, _use_new_zipfile_serialization=False), "a list of tensors": saved([tensor]),
        "an object of tensors": saved({"a": tensor}), "pickle protocol 4": saved(tensor, pickle_protocol=4),
        "a pickled program": base64.b64encode(b"cos\nsystem\n(S'true'\ntR.").decode(),
        "all of the context": embeds_of(CONTEXT), "beyond the context": embeds_of(CONTEXT + 1),
        "all but one position": embeds_of(CONTEXT - 1),
    }  # fmt: skip
    for name, embeds in tensors.items():
        yield f"embeddings: {name}", {"prompt_embeds": embeds}
    for name, values in {
        "max_tokens": (None, 0, -1, 1.5, CONTEXT + 1), "temperature": (-1, 2.1),
        "seed": (None, 0, -1, 1.5, "a"),
        "stop": (None, [], "", [""], "a", ["a", "e"], ["a"] * 5, [None], 5), "logprobs": (None,), "n": (0, 1),
        "best_of": (None, 1), "echo": (None, False), "suffix": (None,), "top_p": (None, 1, 0, 1.1),
        "frequency_penalty": (None, 0, 3), "presence_penalty": (None, 0, -3), "logit_bias": (None, {}),
        "user": (None, "", "u", 5), "stream": (None, False, "x"), "model": (None, "other"),
        "stream_options": (None, {}, {"include_usage": True}, {"include_usage": None}),
    }.items():  # fmt: skip
        for value in values:
            yield f"{name} {json.dumps(value)}", {"prompt_embeds": one, "max_tokens": 3, name: value}
    yield f"max_tokens {CONTEXT}, stopped early", {"prompt_embeds": one, "max_tokens": CONTEXT, "stop": [" ", "e", "a"]}
