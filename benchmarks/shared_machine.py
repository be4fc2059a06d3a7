"""What other busy processes cost `gcache eval`, by how worker threads wait for each other.

    python -m benchmarks.shared_machine --checkpoint runs/split_facts --limit 48 --busy 1 --repeats 3 --json shared.json

Every evaluation is a process of its own: with threads that always spin (what OpenMP does by itself), that always sleep
(OMP_WAIT_POLICY=PASSIVE), and as `gcache.runtime.sharing` chooses. The kinds are measured in turns, alone and beside
processes that do nothing but compute, so that all met the same machine. Seconds are those of the questions, without
loading.
Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.markdown import table
from benchmarks.records import machine
from gcache.commands.console import OneLineParser, guarded, log_to_stderr
from gcache.errors import ConfigError
from gcache.files import write_json
from gcache.llm.load.device import DTYPES

logger = logging.getLogger("gcache.benchmarks.shared_machine")

#: The environment of each kind of waiting. libgomp spins so often where
#: nobody says otherwise, and who says so is left alone by us.
KINDS = {"spin": {"GOMP_SPINCOUNT": "300000"}, "sleep": {"OMP_WAIT_POLICY": "PASSIVE"}, "as chosen": {}}
CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
#: A process that computes and nothing else, for as long as it is the child of the one named to it: whoever is killed
#: cannot end its children.
BUSY = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(100_000):
        pass
"""


@contextmanager
def beside(busy: int) -> Iterator[None]:
    """So many processes that compute and nothing else."""
    others: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(busy):
            others.append(subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())]))
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def evaluated(checkpoint: Path, limit: int, waits: dict[str, str], folder: Path) -> dict[str, Any]:
    """What `gcache eval` wrote.

    Raises:
        ConfigError: it could not be run.
    """
    out = folder / "eval.json"
    command = [sys.executable, "-m", "gcache.commands.main", "eval", "--checkpoint", str(checkpoint)]
    environment = {**{name: value for name, value in os.environ.items() if name not in CHOSEN}, **waits}
    done = subprocess.run(
        [*command, "--limit", str(limit), "--json", str(out)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ConfigError(f"gcache eval --checkpoint {checkpoint} failed: {done.stderr.strip().splitlines()[-1]}")
    said = [line.partition(": ")[2] for line in done.stderr.splitlines() if " gcache.runtime.sharing: " in line]
    return {**json.loads(out.read_text(encoding="utf-8")), "said": said}


def measure(checkpoint: Path, limit: int, busy: int, repeats: int, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each kind, alone and beside others: seconds of every repeat."""
    places = [(kind, others) for others in ([0, busy] if busy else [0]) for kind in kinds]
    rows: dict[tuple[str, int], dict[str, Any]] = {
        (kind, others): {"kind": kind, "busy": others, "seconds": [], "said": []} for kind, others in places
    }
    answers = set()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for kind, others in places:
                with beside(others):
                    found = evaluated(checkpoint, limit, KINDS[kind], Path(folder))
                seconds = found.pop("seconds")
                logger.info("%s, beside %d: %.1f s", kind, others, seconds)
                rows[kind, others]["seconds"].append(seconds)
                rows[kind, others]["said"].append(found.pop("said"))
                answers.add(json.dumps(found, sort_keys=True))
    if len(answers) > 1:
        raise ConfigError("the evaluations did not come to the same answers, so their seconds compare nothing")
    alone = median(rows[places[0]]["seconds"])
    return [{**row, "ratio": median(row["seconds"]) / alone} for row in rows.values()]


def in_dtype(checkpoint: Path, dtype: str, folder: Path) -> Path:
    """A copy of a checkpoint whose model is in another precision."""
    made = folder / "checkpoint"
    shutil.copytree(checkpoint, made)
    files = list(made.rglob("checkpoint.json"))
    if not files:
        raise ConfigError(f"--checkpoint {checkpoint} holds no checkpoint")
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        content["graph"]["dtype"] = dtype
        write_json(file, content)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = OneLineParser(
        prog="python -m benchmarks.shared_machine", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="--out folder of a training run")
    parser.add_argument("--limit", type=int, default=48, help="questions (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=1, help="other processes (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of every measurement (default: %(default)s)")
    parser.add_argument("--dtype", default="auto", help="of the model; auto: the checkpoint's own (default)")
    parser.add_argument(
        "--kinds", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="KIND",
        help=f"some of {', '.join(KINDS)}; the first is what the others are compared with (default: all)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file")
    args = parser.parse_args(argv)
    log_to_stderr()
    return guarded(lambda: _run(args, argv))


def _run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    for name, least in (("limit", 1), ("busy", 0), ("repeats", 1)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name} must be {least} or more, got {getattr(args, name)}")
    if args.dtype not in DTYPES:
        raise ConfigError(f"--dtype {args.dtype!r} is not allowed; choose one of: {', '.join(DTYPES)}")
    if not args.checkpoint.is_dir():
        raise ConfigError(f"--checkpoint {args.checkpoint} is no folder; name one of a training run")
    with tempfile.TemporaryDirectory() as folder:
        used = args.checkpoint if args.dtype == "auto" else in_dtype(args.checkpoint, args.dtype, Path(folder))
        rows = measure(used, args.limit, args.busy, args.repeats, args.kinds)
    cells = [[row["kind"], f"{row['busy']}", " ".join(f"{s:.1f}" for s in row["seconds"]), f"{row['ratio']:.2f}"]
             for row in rows]  # fmt: skip
    print(table(["threads that wait", "busy processes", "seconds", f"times {rows[0]['kind']}, alone"], cells))
    if args.json:
        words = [Path(word).name if os.path.isabs(word) else word for word in argv]
        write_json(args.json, {
            "command": " ".join(["python -m benchmarks.shared_machine", *words]), "machine": machine(),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "rows": rows,
        })  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
