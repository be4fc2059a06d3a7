"""Loading a frozen causal language model and its tokenizer from any source.

Weights come from safetensors only: pickled checkpoints and code shipped with a model are refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcache.environment import hub_commit, quiet_transformers
from gcache.errors import ModelError
from gcache.llm.load.device import pick_device, pick_dtype, quantization_config
from gcache.llm.load.fingerprint import fingerprint
from gcache.llm.load.gguf import converted
from gcache.llm.load.locate import EMBEDDED, EMBEDDED_INSTALL, ModelSource, resolve

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model that will not be trained, with all that is needed to speak to it.

    Attributes:
        model: in eval mode; no parameter requires a gradient.
        tokenizer: has a chat template and a pad token.
        label: short name for tables and logs.
        fingerprint: stands for the weights' content, whatever dtype they were loaded in; a checkpoint trained on one
            fingerprint is not for another. See `gcache.llm.load.fingerprint`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    label: str
    fingerprint: str


def load_model(
    name: str,
    dtype: str = "auto",
    device: str = "cpu",
    device_map: str | dict[str, Any] | None = None,
    quantization: str = "none",
) -> LoadedModel:
    """Load the model called ``name`` (see :func:`gcache.llm.load.locate.resolve`), frozen.

    Args:
        name: ``smollm2``, a folder, a .gguf file, or a hub id.
        dtype: one of placement.DTYPES; ``auto`` is bfloat16 where the hardware computes in it,
            else float32.
        device: ``cpu``, ``auto`` (CUDA if there is one) or a torch device such as ``cuda:1``.
        device_map: handed to transformers, which then places the layers; ``device`` is unused.
        quantization: one of placement.QUANTIZATIONS; 8bit and 4bit need the ``quantization`` extra.

    Raises:
        ConfigError: dtype, device or quantization is not an allowed value.
        ModelError: the model cannot be had, is incomplete, or has no chat template.
    """
    options, place = _options(dtype, device, device_map, quantization)
    source = resolve(name)
    location = str(converted(Path(source.location))) if source.kind == "gguf" else source.location
    local_only, commit = _ask_hub(source) if source.kind == "hub" else (True, None)
    try:
        with quiet_transformers():
            tokenizer = _load_tokenizer(source, location, local_only)
            model = _load_weights(source, location, {**options, "local_files_only": local_only})
            if place is not None:
                model.to(place)  # type: ignore[arg-type]
    except ModelError:
        raise
    except Exception as error:  # transformers, tokenizers, safetensors and the hub share no base class
        raise _cannot_load(source, error) from error
    model.requires_grad_(False).eval()
    commit = commit or getattr(model.config, "_commit_hash", None)
    logger.info("loaded %s in %s on %s", source.label, model.dtype, model.device)
    return LoadedModel(model, tokenizer, source.label, fingerprint(source, commit))


def _options(
    dtype: str, device: str, device_map: str | dict[str, Any] | None, quantization: str
) -> tuple[dict[str, Any], torch.device | None]:
    """The options for transformers, and where to move the model afterwards (None: it is placed)."""
    place = pick_device(device)
    chosen = pick_dtype(dtype, "auto" if device_map is not None else device)
    quantized = quantization_config(quantization, chosen)
    options: dict[str, Any] = {"dtype": chosen}
    if quantized is not None:
        options["quantization_config"] = quantized
    if device_map is None and quantized is None:
        return options, place
    options["device_map"] = device_map if device_map is not None else {"": place}
    return options, None


def _ask_hub(source: ModelSource) -> tuple[bool, str | None]:
    """Whether to use downloaded files only, and the model's current commit if the hub answers."""
    try:
        commit = hub_commit(source.location)
    except LookupError as error:
        raise _cannot_load(source, error) from error
    return commit is None, commit


def _load_tokenizer(source: ModelSource, location: str, local_only: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(location, local_files_only=local_only, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise ModelError(f"model {source.label!r} has no chat template; pass an instruction-tuned model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


def _load_weights(source: ModelSource, location: str, options: dict[str, Any]) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    pair: Any = AutoModelForCausalLM.from_pretrained(
        location, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
    )
    model: PreTrainedModel = pair[0]
    absent = sorted(str(key) for key in pair[1].get("missing_keys", ()))
    if absent:  # transformers would go on with random numbers there
        lacks = f"lacks {len(absent)} of its weights ({absent[0]}, ...)"
        raise ModelError(f"model {source.label!r} {lacks}; pass a complete causal language model")
    return model


def _cannot_load(source: ModelSource, error: Exception) -> ModelError:
    reason = str(error).strip().partition("\n")[0][:160].rstrip(".") or type(error).__name__
    tried = f"cannot load model {source.label!r} from {source.kind} {source.location!r}: {reason}"
    return ModelError(
        f"{tried}; pass a complete local folder, a .gguf file, or '{EMBEDDED}' after {EMBEDDED_INSTALL}"
    )
