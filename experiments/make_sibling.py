"""A smaller sibling of a model, with its tokenizer: some of its layers, taught for a while to write as it does.

    python experiments/make_sibling.py --llm_name smollm2 --texts train.jsonl --layers 15 --steps 150 --out sibling

Keeps layers evenly spread over the depth, the first and the last among them, then lowers

    KL(the model's next tokens, the sibling's) + |h - h'|^2 / |h|^2

over windows of the texts, h being last hidden states. For trying links between two models of one tokenizer where no
second one is at hand; it is no model to answer questions with.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from gcache.commands.console import guarded, log_to_stderr
from gcache.errors import ConfigError, DataError
from gcache.files import write_json
from gcache.llm.load.loading import load_model

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm_name", default="smollm2", help="(default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="(default: %(default)s)")
    parser.add_argument("--texts", nargs="+", type=Path, required=True, help="any UTF-8 files")
    parser.add_argument("--layers", type=int, default=15, help="to keep (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=150, help="(default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=4, help="windows a step (default: %(default)s)")
    parser.add_argument("--window", type=int, default=128, help="tokens (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=5e-4, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the windows (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    args = parser.parse_args(argv)
    log_to_stderr()
    return guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    for name in ("layers", "steps", "batch_size", "window"):
        if getattr(args, name) < (2 if name in ("layers", "window") else 1):
            raise ConfigError(f"--{name} is too low: {getattr(args, name)}")
    if args.out.exists():
        raise ConfigError(f"--out {args.out} is there already; name a new folder")
    loaded = load_model(args.llm_name, args.dtype)
    depth = len(loaded.model.model.layers)
    if args.layers >= depth:
        raise ConfigError(f"--layers must be below the model's {depth}, got {args.layers}")
    tokens = _tokens(loaded.tokenizer, args.texts)
    if len(tokens) <= args.window:
        raise DataError(f"the texts have {len(tokens)} tokens, which is no more than a window of {args.window}")
    kept = sorted({round(i * (depth - 1) / (args.layers - 1)) for i in range(args.layers)})
    sibling = pruned(loaded.model, kept)
    history = teach(loaded.model, sibling, tokens, args)
    sibling.eval().save_pretrained(args.out)
    loaded.tokenizer.save_pretrained(args.out)
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "texts")}
    settings["llm_name"] = Path(args.llm_name).name
    settings["texts"] = [path.name for path in args.texts]
    write_json(args.out / "sibling.json", {**settings, "kept": kept, "tokens": len(tokens), "history": history})
    first, last = history[0]["kl"], history[-1]["kl"]
    print(f"sibling: {args.out}, {len(kept)} of {depth} layers; KL {first:.3f} at first, {last:.3f} at last")
    return 0


def pruned(model: Any, kept: Sequence[int]) -> Any:
    """A copy with some of the layers, which learns but for its embeddings: they stay the model's own."""
    made = copy.deepcopy(model)
    made.model.layers = torch.nn.ModuleList(made.model.layers[number] for number in kept)
    for number, layer in enumerate(made.model.layers):
        layer.self_attn.layer_idx = number
    made.config.num_hidden_layers = len(kept)
    if getattr(made.config, "layer_types", None):
        made.config.layer_types = made.config.layer_types[: len(kept)]
    made.requires_grad_(True)
    made.get_input_embeddings().requires_grad_(False)
    made.get_output_embeddings().requires_grad_(False)
    return made


def teach(model: Any, sibling: Any, tokens: Tensor, args: argparse.Namespace) -> list[dict[str, float]]:
    """Every step's losses."""
    learning = [p for p in sibling.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=args.lr, weight_decay=0.0)
    draw = torch.Generator().manual_seed(args.seed)
    history: list[dict[str, float]] = []
    for step in tqdm(range(args.steps), desc="teach", unit="step"):
        starts = torch.randint(0, len(tokens) - args.window, (args.batch_size,), generator=draw)
        batch = torch.stack([tokens[int(start) : int(start) + args.window] for start in starts])
        with torch.no_grad():
            wanted = model.model(batch, use_cache=False).last_hidden_state
            likely = torch.log_softmax(model.lm_head(wanted).float(), dim=-1)
        hidden = sibling.model(batch, use_cache=False).last_hidden_state
        own = torch.log_softmax(sibling.lm_head(hidden).float(), dim=-1)
        kl = (likely.exp() * (likely - own)).sum(dim=-1).mean()
        apart = (hidden - wanted).float().square().sum() / wanted.float().square().sum()
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1.0, (step + 1) / 10) * (1 - step / args.steps)
        optimizer.zero_grad(set_to_none=True)
        (kl + apart).backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        history.append({"kl": float(kl.detach()), "apart": float(apart.detach())})
    return history


def _tokens(tokenizer: Any, texts: Sequence[Path]) -> Tensor:
    """All texts in a row; of JSONL, the values that are text."""
    found: list[int] = []
    for path in texts:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); pass a UTF-8 file") from error
        for line in lines:
            if path.suffix == ".jsonl":
                line = "\n".join(value for value in json.loads(line).values() if isinstance(value, str))
            found += tokenizer(line + "\n", add_special_tokens=False)["input_ids"]
    return torch.tensor(found)


if __name__ == "__main__":
    sys.exit(main())
