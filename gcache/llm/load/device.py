"""Where a model's numbers live and in what precision: device, dtype, quantisation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcache.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "bfloat16", "float16", "float32")
QUANTIZATIONS = ("none", "8bit", "4bit")


def pick_device(name: str) -> torch.device:
    """The torch device for ``cpu``, ``auto`` or a torch device name; ConfigError if it is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device {name!r} is not usable here; choose cpu or auto") from error
    return device


def pick_dtype(name: str, device: str = "cpu") -> torch.dtype:
    """The torch dtype for one of DTYPES on ``device``; ConfigError for another name."""
    import torch

    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r} is not allowed; choose one of: {', '.join(DTYPES)}")
    if name != "auto":
        found: torch.dtype = getattr(torch, name)
        return found
    kind = pick_device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = kind == "cpu" and _cpu_has_bfloat16()
    return torch.bfloat16 if native else torch.float32


def _cpu_has_bfloat16() -> bool:
    """Whether this processor has bfloat16 instructions (x86 AVX512-BF16 or AMX; Arm BF16)."""
    import torch

    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private: may go away
    if any(getattr(torch.cpu, probe, bool)() for probe in probes):
        return True
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def quantization_config(name: str, compute_dtype: torch.dtype) -> Any:
    """The bitsandbytes configuration for one of QUANTIZATIONS, or None for ``none``."""
    from importlib.util import find_spec

    if name not in QUANTIZATIONS:
        allowed = ", ".join(QUANTIZATIONS)
        raise ConfigError(f"quantization {name!r} is not allowed; choose one of: {allowed}")
    if name == "none":
        return None
    if find_spec("bitsandbytes") is None:
        raise ModelError(f"quantization {name!r} needs bitsandbytes; pip install 'gcache-mas[quantization]'")
    from transformers import BitsAndBytesConfig

    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=compute_dtype)
