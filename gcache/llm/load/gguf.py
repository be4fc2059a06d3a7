"""Converted GGUF files, kept so that only the first start pays for the conversion.

A GGUF file packs its weights in blocks of few bits. Unpacking one takes transformers half a minute
for the smallest model, so the result is kept as an ordinary folder (config, safetensors, tokenizer)
under ``cache_home()/converted/<sha256 of the file>-v<converter>/``. It is stored in float32: those
are the unpacked numbers exactly, and loading them in bfloat16 is no slower than loading a bfloat16
copy. A manifest holds the sha256 of every file of the folder; a folder that does not match it is
made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import shutil
import tempfile
import time
from pathlib import Path

from gcache.environment import cache_home, quiet_transformers
from gcache.errors import ModelError
from gcache.files import write_json

logger = logging.getLogger(__name__)

CONVERTER_VERSION = 1
MANIFEST = "manifest.json"
MEMO = "gguf_hashes.json"
_STALE_SECONDS = 24 * 3600


def converted(gguf_path: Path) -> Path:
    """The folder with the unpacked weights of ``gguf_path``, made now if it is not there or broken.

    Two processes may ask at once: each works in a folder of its own and the first rename wins.

    Raises:
        ModelError: the file is missing or no readable GGUF, or the cache cannot be written.
    """
    gguf_path = Path(gguf_path).expanduser().resolve()
    root = cache_home() / "converted"
    try:
        root.mkdir(parents=True, exist_ok=True)
        target = root / f"{gguf_sha256(gguf_path)}-v{CONVERTER_VERSION}"
        if not intact(target):
            logger.info("reading GGUF %s, first time only", gguf_path.name)
            _sweep(root)
            _make(gguf_path, target)
    except OSError as error:
        where = f"cannot keep the converted model under {str(root)!r}"
        raise ModelError(f"{where}: {error}; set GCACHE_HOME to a folder with space to write in") from error
    return target


def unpacked() -> list[tuple[str, Path]]:
    """The GGUF files that were unpacked before: (name of the file, folder). What is in them is not checked."""
    found = []
    for manifest in sorted((cache_home() / "converted").glob(f"*-v{CONVERTER_VERSION}/{MANIFEST}")):
        found.append((str(_read_json(manifest).get("gguf", "?")), manifest.parent))
    return found


def gguf_sha256(gguf_path: Path) -> str:
    """The sha256 (hex) of a GGUF file, remembered under its path, size and time of change.

    Raises:
        ModelError: there is no such file, it cannot be read, or it does not start as a GGUF does.
    """
    try:
        with gguf_path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{str(gguf_path)!r} is not a GGUF file; download it again or pass another")
        stat = gguf_path.stat()
    except OSError as error:
        raise ModelError(f"cannot read {str(gguf_path)!r}: {error.strerror}; pass another model") from error
    memo_path = cache_home() / "converted" / MEMO
    memo = _read_json(memo_path)
    key, stamp = str(gguf_path.resolve()), [stat.st_size, stat.st_mtime_ns]
    known = memo.get(key)
    if isinstance(known, list) and len(known) == 3 and known[:2] == stamp:
        return str(known[2])
    digest = file_sha256(gguf_path)
    memo = {path: entry for path, entry in memo.items() if Path(path).is_file()}
    write_json(memo_path, {**memo, key: [*stamp, digest]})
    return digest


def file_sha256(path: Path) -> str:
    """The sha256 (hex) of a file of any size, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def intact(folder: Path) -> bool:
    """Whether every file that the folder's manifest names is there, byte for byte."""
    files = _read_json(folder / MANIFEST).get("files")
    if not isinstance(files, dict) or not any(name.endswith(".safetensors") for name in files):
        return False
    try:
        return all(file_sha256(folder / name) == digest for name, digest in files.items())
    except OSError:
        return False


def _make(gguf_path: Path, target: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        try:
            convert(gguf_path, work)
        except Exception as error:  # transformers, gguf and torch raise whatever they like on a bad file
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the system's word (a full disk); transformers' own OSErrors carry no number
            reason = str(error).strip().partition("\n")[0][:200].rstrip(".") or type(error).__name__
            raise ModelError(f"cannot convert {gguf_path.name}: {reason}; pass another model") from error
        files = {path.name: file_sha256(path) for path in sorted(work.iterdir()) if path.is_file()}
        write_json(work / MANIFEST, {"converter": CONVERTER_VERSION, "gguf": gguf_path.name, "files": files})
        _put_in_place(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Drop what conversions that were killed a day ago or earlier left behind."""
    for folder in [*root.glob(".making-*"), *root.glob(".broken-*")]:
        with contextlib.suppress(OSError):  # its owner may be removing it right now
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(work: Path, target: Path) -> None:
    """Rename ``work`` to ``target``; a broken target goes first, a good one (another's) is kept."""
    if target.exists() and not intact(target):
        aside = Path(tempfile.mkdtemp(prefix=".broken-", dir=target.parent))
        with contextlib.suppress(FileNotFoundError):  # another process has just moved it
            target.rename(aside / "old")
        shutil.rmtree(aside, ignore_errors=True)
    try:
        work.rename(target)
    except OSError:
        if not intact(target):
            raise


def convert(gguf_path: Path, folder: Path) -> None:
    """Unpack ``gguf_path`` into ``folder``: config, float32 safetensors and the tokenizer."""
    import torch
    import transformers

    parent, name = str(gguf_path.parent), gguf_path.name
    options: dict[str, object] = {"gguf_file": name, "dtype": torch.float32, "local_files_only": True}
    if hasattr(transformers, "GgufConfig"):  # releases without it always unpack
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    # The converter draws a bar of its own, which no setting of transformers turns off.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        tokenizer = transformers.AutoTokenizer.from_pretrained(parent, gguf_file=name, local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(parent, **options)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _read_json(path: Path) -> dict[str, object]:
    """The object in a JSON file; an empty one if the file is missing or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
