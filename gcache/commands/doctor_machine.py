"""What `gcache doctor` finds of this machine: libraries, devices, memory, the sandbox and optional packages."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from gcache import __version__
from gcache.commands.finding import Finding
from gcache.environment import THREADS, chromium
from gcache.errors import GradingError

#: Libraries that every graph needs, as pip knows them.
NEEDED = ("torch", "transformers", "torch-geometric", "safetensors", "gguf")
#: Those that may be installed and broken.
IMPORTED = ("torch", "transformers")
#: Bytes of memory below which the smallest model may not fit.
LITTLE = 2 * 2**30
GB = 2**30

#: Module -> (what is installed for it, what it is for).
OPTIONAL = {
    "bitsandbytes": ("'gcache-mas[quantization]'", "--quantization 8bit and 4bit"),
    "datasets": ("'gcache-mas[data]'", "data sets from the hub"),
    "fastapi": ("'gcache-mas[serve]'", "gcache serve"),
    "prometheus_client": ("'gcache-mas[serve]'", "the metrics of gcache serve"),
    "uvicorn": ("'gcache-mas[serve]'", "gcache serve"),
    "tensorboard": ("'gcache-mas[tensorboard]'", "--tensorboard"),
    "socksio": ("socksio", "an API behind a SOCKS proxy"),
}


def versions() -> list[Finding]:
    """gcache, Python, and what every graph needs."""
    found = [f"gcache {__version__}", f"Python {platform.python_version()}"]
    missing = []
    for name in NEEDED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    said, way_out = Finding("ok", "versions", ", ".join(found)), "make setup, or pip install -e ."
    if missing:
        return [said, Finding("no", "libraries", f"{', '.join(missing)} not installed", way_out)]
    for name in IMPORTED:
        try:
            import_module(name)
        except Exception as error:  # a broken installation raises whatever it likes
            why = " ".join(str(error).split())[:200] or type(error).__name__
            return [said, Finding("no", "libraries", f"{name} cannot be imported ({why})", way_out)]
    return [said]


def devices() -> Iterator[Finding]:
    """Where models can stand, and the precision that `--dtype auto` picks there."""
    import torch

    from gcache.llm.load.device import pick_device, pick_dtype

    places = ["cpu"]
    if torch.cuda.is_available():
        places += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    for place in places:
        name = platform.processor() or platform.machine()
        if place != "cpu":
            free, total = torch.cuda.mem_get_info(place)
            name = f"{torch.cuda.get_device_name(place)}, {free / GB:.1f} of {total / GB:.1f} GB free"
        picked = str(pick_dtype("auto", place)).removeprefix("torch.")
        why = "it has bf16 arithmetic" if picked == "bfloat16" else "it has no bf16 arithmetic of its own"
        yield Finding("ok", "device", f"{place} ({name}); --dtype auto is {picked} there, since {why}")
    yield Finding("ok", "--device auto", f"is {pick_device('auto')}")


def threads() -> Finding:
    """How many threads compute, and how many may run."""
    import torch

    from gcache.runtime.processors import usable_cores

    cores, used = usable_cores(), torch.get_num_threads()
    chosen = next((name for name in THREADS if os.environ.get(name)), None)
    text = f"{used}, on {cores} processors that this process may use" + (f" ({chosen} is set)" if chosen else "")
    if used > cores:
        return Finding("note", "threads", text, f"set OMP_NUM_THREADS={cores}, so that they do not wait for each other")
    return Finding("ok", "threads", text)


def compiled_passes() -> Finding:
    """Whether passes on the CPU are compiled code; it is made now if it was not yet."""
    from gcache.llm.forward.native.library import library_or_reason, machine_options

    found = library_or_reason()
    if isinstance(found, str):
        text = f"cannot be compiled ({found}); passes on the CPU go through torch's operators, which takes longer"
        return Finding("note", "compiled passes", text, "install gcc or clang with OpenMP")
    return Finding("ok", "compiled passes", f"on the CPU, {' '.join(machine_options()) or 'for any processor'}")


def memory() -> Finding:
    """Memory that is free, and in all."""
    from gcache.runtime.memory import usable_memory

    found = usable_memory()
    if found is None:
        return Finding("note", "memory", "this system does not say", "bound it by --max_cache_gb")
    text = f"{found.free / GB:.1f} of {found.total / GB:.1f} GB free"
    if found.free < LITTLE:
        return Finding("note", "memory", text, "close other programs, or bound caches by --max_cache_gb")
    return Finding("ok", "memory", text)


def optional() -> Iterator[Finding]:
    """Packages that some commands and flags need."""
    for name, (package, purpose) in OPTIONAL.items():
        if find_spec(name):
            yield Finding("ok", name, f"for {purpose}")
        else:
            yield Finding("note", name, f"not installed; it is for {purpose}", f"pip install {package}")


def sandbox() -> Finding:
    """What contains the programs that models write."""
    from gcache.tasks.sandbox import gaps

    try:
        opened = gaps()
    except GradingError as error:
        return Finding("no", "sandbox", str(error), "the tasks with programs need it; see docs/sandbox.md")
    if opened:
        text = f"programs of models can {'; '.join(opened)}"
        return Finding("note", "sandbox", text, "use a container of their own for them (docs/sandbox.md)")
    return Finding("ok", "sandbox", "all layers hold for programs of models")


def browser() -> Finding:
    """In which the tests look at pages."""
    found = chromium()
    if found is None:
        text = "no Chromium; only tests of the pages need one"
        return Finding("note", "browser", text, "apt-get install chromium")
    return Finding("ok", "browser", f"{found}, for tests of the pages")
