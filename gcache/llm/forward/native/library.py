"""The compiled code of this folder: made by the machine's own C compiler when it is first needed, and kept.

It takes some two seconds and no library but the compiler's OpenMP, which torch has loaded already. Where there is no
compiler, or one that cannot, passes go through torch's operators, and the log says so.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from gcache.environment import cache_home

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("decoder.c")
#: What it is made of.
PARTS = ("numbers.h", "products.h", "layer.h", "attention.h", "packing.h", SOURCE.name)
COMPILERS = ("cc", "gcc", "clang")
OPTIONS = ("-O3", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC")
#: By what torch says that it computes with (ATEN_CPU_CAPABILITY changes it): so both speak of the same machine.
AVX2 = ("-mavx2", "-mfma")
AVX512 = (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
#: Seconds that a compiler is given.
PATIENCE = 120


def native_library() -> ctypes.CDLL | None:
    """The compiled code, or None where it cannot be had; the reason is in the log."""
    found = library_or_reason()
    return None if isinstance(found, str) else found


def library_or_reason() -> ctypes.CDLL | str:
    """The compiled code, or in words why it cannot be had."""
    return _library(machine_options())


def machine_options() -> tuple[str, ...]:
    """What the compiler is told of this processor."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ("-mcpu=native",) if platform.machine().lower() in ("aarch64", "arm64") else ()
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX512":
        dots = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()  # private: may go away
        return (*AVX512, "-mavx512bf16") if dots else AVX512
    return AVX2 if capability == "AVX2" else ()


@functools.cache
def _library(options: tuple[str, ...]) -> ctypes.CDLL | str:
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    try:
        if compiler is None:
            raise FileNotFoundError(f"no C compiler ({', '.join(COMPILERS)})")
        return ctypes.CDLL(str(_compiled(compiler, options)))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        reason = str(said).strip().rpartition("\n")[2][:200]
        logger.info("passes go through torch's operators, which takes longer: %s", reason)
        return reason


def _compiled(compiler: str, options: tuple[str, ...]) -> Path:
    """The shared library's file, made now if it is not there; two processes may ask at once, the first rename wins."""
    version = _run([compiler, "--version"]).partition("\n")[0]
    mark = hashlib.sha256("\n".join([version, platform.machine(), *OPTIONS, *options]).encode())
    for part in PARTS:
        mark.update(SOURCE.with_name(part).read_bytes())
    folder = cache_home() / "native"
    target = folder / f"decoder-{mark.hexdigest()[:24]}.so"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as work:
        made = Path(work) / target.name
        _run([compiler, *OPTIONS, *options, str(SOURCE), "-o", str(made), "-lm"])
        made.rename(target)
    logger.info("compiled %s with %s, first time only", SOURCE.name, version)
    return target


def _run(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=True, stdin=subprocess.DEVNULL)
    return done.stdout
