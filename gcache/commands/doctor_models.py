"""What `gcache doctor` finds of models: those on this machine, the encoder, and the API."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
from pathlib import Path

from gcache.commands import api_flags
from gcache.commands.finding import Finding
from gcache.environment import API_KEYS, api_sources, cache_home, offline
from gcache.errors import GcacheError
from gcache.gnn.features import MINILM_HUB_ID, MINILM_INSTALL, MINILM_PACKAGE, minilm_source
from gcache.llm.api.secrets import hidden
from gcache.llm.api.settings import NO_KEY
from gcache.llm.load.gguf import unpacked
from gcache.llm.load.locate import EMBEDDED, EMBEDDED_HUB_ID, EMBEDDED_INSTALL, EMBEDDED_PACKAGE, resolve

#: Models that are named in one line, at most.
MOST = 8
#: Bytes that the smallest model takes unpacked.
ROOM = 600 * 2**20


def cached(folder: Path | None = None) -> dict[str, list[str]]:
    """Models in the Hugging Face cache: id -> what they were made as ("LlamaForCausalLM").

    Args:
        folder: of the cache; None for the user's.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(folder).repos
    except (CacheNotFound, ValueError, OSError):  # none, or something else in its place
        return {}
    found = {}
    for repository in sorted(repositories, key=lambda each: each.repo_id):
        files = [Path(file.file_path) for revision in repository.revisions for file in revision.files]
        if repository.repo_type == "model" and any(file.suffix == ".safetensors" for file in files):
            config = next((file for file in files if file.name == "config.json"), None)
            found[repository.repo_id] = _made_as(config)
    return found


def _made_as(config: Path | None) -> list[str]:
    try:
        made = json.loads(config.read_text(encoding="utf-8")).get("architectures") if config else None
    except (OSError, ValueError, AttributeError):
        made = None
    return [str(name) for name in made] if isinstance(made, list) else []


def embedded(known: dict[str, list[str]]) -> Finding:
    """The model that comes as a package."""
    source = resolve(EMBEDDED)
    if source.kind == "gguf":
        names = [name for name, _ in unpacked()]
        state = "unpacked before" if Path(source.location).name in names else "its first start unpacks it"
        return Finding("ok", EMBEDDED, f"from the package {EMBEDDED_PACKAGE} ({source.location}); {state}")
    if EMBEDDED_HUB_ID in known:
        text = f"from the Hugging Face cache ({EMBEDDED_HUB_ID})"
        return Finding("ok", EMBEDDED, text)
    return Finding("no", EMBEDDED, "neither its package nor its copy of the hub is here", EMBEDDED_INSTALL)


def others(known: dict[str, list[str]]) -> Finding:
    """Models of the hub that were downloaded before and write text."""
    names = [name for name, made in known.items() if any(each.endswith("ForCausalLM") for each in made)]
    if not names:
        return Finding("note", "Hugging Face cache", "no other model is here", _hub())
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return Finding("ok", "Hugging Face cache", f"--llm_name takes {', '.join(names[:MOST])}{more}; {_hub()}")


def _hub() -> str:
    if offline():
        return "downloads are switched off (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE); unset that to download"
    return "an id as --llm_name downloads one"


def files() -> Finding:
    """The folder of unpacked models."""
    home = cache_home()
    there = next(folder for folder in (home, *home.parents) if folder.is_dir())
    names = [name for name, _ in unpacked()]
    text = f"{home}, {'holds ' + ', '.join(names[:MOST]) if names else 'holds no unpacked GGUF file'}"
    if not os.access(there, os.W_OK):
        return Finding("no", "unpacked models", f"{text}; it cannot be written", "set GCACHE_HOME to another folder")
    if shutil.disk_usage(there).free < ROOM:
        return Finding("no", "unpacked models", f"{text}; its disk is full", "set GCACHE_HOME to another disk")
    return Finding("ok", "unpacked models", text)


def encoder(known: dict[str, list[str]]) -> Finding:
    """Of roles and questions, for a learned topology."""
    source = minilm_source()
    if source != MINILM_HUB_ID:
        return Finding("ok", "encoder", f"minilm, from the package {MINILM_PACKAGE} ({source})")
    if MINILM_HUB_ID in known:
        return Finding("ok", "encoder", f"minilm, from the Hugging Face cache ({MINILM_HUB_ID})")
    return Finding("note", "encoder", "minilm is not here", f"{MINILM_INSTALL}, or pass --encoder hash")


def api(args: argparse.Namespace, ask: bool) -> Finding:
    """The API that flags, environment and `.env` describe; asked one question only where that is wanted."""
    secrets = [args.api_key] if args.api_key else []
    try:
        said = api_sources()
        secrets += [said[name][0] for name in API_KEYS if name in said]
        if not (said or args.api_model or args.base_url or args.api_key):
            text = "none is named; --generation_mode local needs none"
            return Finding(
                "note", "API", text, "for the other modes set API_KEY, BASE_URL and API_MODEL (.env.example)"
            )
        llm = api_flags.api(args)
    except GcacheError as error:
        return Finding("no", "API", hidden(" ".join(str(error).split()), secrets), "see .env.example")
    settings = llm.settings
    key = next((name for name in API_KEYS if name in said), "")
    places = {name: f"{name} of {place}" for name, (_, place) in said.items()}
    address = "--base_url" if args.base_url else places.get("BASE_URL", f"what {key or '--api_key'} stands for")
    model = "--api_model" if args.api_model else places.get("API_MODEL", "")
    held = f"a key is set ({'--api_key' if args.api_key else places.get(key)})"
    text = (
        f"{settings.model} ({model}) at {settings.base_url} ({address}), "
        f"{'no key is set' if settings.key == NO_KEY else held}"
    )
    if not ask:
        return Finding("ok", "API", hidden(f"{text}; not asked (--ask_api asks it)", secrets))
    try:
        answer = asyncio.run(llm.chat([("user", "Say: ok")], 16))
    except GcacheError as error:
        told = hidden(f"{text}; {' '.join(str(error).split())}", secrets)
        return Finding("no", "API", told, "see .env.example")
    said_back = " ".join(answer.text.split())[:40]
    return Finding("ok", "API", hidden(f"{text}; it answered {said_back!a}", secrets))
