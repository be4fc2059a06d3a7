"""The command of the benchmarks: measures sections, writes their records, renders the tables."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks.command import command
from benchmarks.setting import DTYPES, Bench, Questions, Settings
from gcache.commands.console import OneLineParser
from gcache.errors import ConfigError, DataError

logger = logging.getLogger("benchmarks")

NOTHING = "none"
#: In the order they are measured. All but `WITHOUT_MODEL` are measured once per model.
SECTIONS = (
    "end_to_end", "reasoning", "documents", "decoding", "llama_cpp", "floor", "orchestration", "answering", "training",
)  # fmt: skip
WITHOUT_MODEL = "orchestration"
#: Measured only where they are named.
BY_NAME = ("answering", "reasoning", "documents")
#: Left out of a default run where it cannot be measured.
LLAMA_CPP = "llama_cpp"

EXPLAINED = """sections:
  end_to_end     questions per second, tokens and peak cache bytes of our graphs beside a plain
                 transformers version of the published latent multi-agent algorithm
  reasoning      four agents that write solutions and a decision maker: slots handed on beside the same words
                 as text, seconds and tokens read
  documents      ten documents and a question: time to the first token with their caches in a store, beside all of
                 them as text
  decoding       tokens per second of LocalLLM.generate beside transformers' generate, and whether
                 they write the same tokens
  llama_cpp      decoding and prefill beside llama.cpp on the same GGUF file (it needs llama-cpp-python)
  floor          prefill and decoding beside the least time the machine needs for them
  orchestration  what a graph costs beside its model, per call and per edge (no model is loaded)
  answering      minutes, tokens per second and right answers of LocalLLM.generate on all questions
  training       a whole training step beside its rollouts

Every section writes OUT/<section>-<model>-<instructions>-<dtype>.json: its numbers, the command, the
model's fingerprint, versions and machine. Sections may be measured by separate commands, and for
several kinds of machine; the tables are made from all records in OUT.

examples:
  python -m benchmarks --data test.jsonl --repeats 3
  python -m benchmarks --models smollm2 models/other --only end_to_end decoding --data test.jsonl
  python -m benchmarks --only orchestration --repeats 5
  python -m benchmarks --only llama_cpp --models model.gguf --data test.jsonl --repeats 5
  python -m benchmarks --only answering --models model.gguf --data test.jsonl --questions 50 --max_new_tokens 250
  python -m benchmarks --only none --out docs/results/performance --table docs/performance.md

Nothing else should run on the machine meanwhile. Threads are torch's own choice; OMP_NUM_THREADS sets them.
A processor with AVX-512 stands for one without by ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
MKL_ENABLE_INSTRUCTIONS=AVX2 and --dtype float32; llama.cpp is then to be built without AVX-512, too.
"""


def parser() -> argparse.ArgumentParser:
    defaults = Settings()
    made = OneLineParser(
        prog="python -m benchmarks",
        description="Speed and memory, always beside a reference measured in the same run, as ratios.",
        epilog=EXPLAINED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--models", nargs="+", default=["smollm2"], metavar="MODEL",
        help="smollm2 (embedded), Hugging Face ids, local folders or .gguf files (default: smollm2)",
    )  # fmt: skip
    made.add_argument("--data", help="GSM8K in the official JSONL; without it, questions of gsm_symbolic are generated")
    for name, text in (
        ("questions", "questions asked"),
        ("batch", "rows of a forward pass, of the reference and of ours"),
        ("latent_steps", "of each agent"),
        ("max_new_tokens", "the most tokens of a text"),
        ("repeats", "how often what is timed is measured again, in turns with its reference"),
        ("seed", "of the choice of questions"),
    ):
        made.add_argument(
            f"--{name}", type=int, default=getattr(defaults, name), metavar="N", help=f"{text} (default: %(default)s)"
        )
    made.add_argument(
        "--dtype", choices=DTYPES, default=defaults.dtype,
        help="of the models; auto: bfloat16 where the processor has it, else float32 (default: %(default)s)",
    )  # fmt: skip
    made.add_argument(
        "--only", nargs="+", choices=(*SECTIONS, NOTHING), metavar="SECTION",
        help=f"{', '.join(SECTIONS)}, or {NOTHING} to render only (default: all but {', '.join(BY_NAME)}, and "
        "llama_cpp where it can be measured)",
    )  # fmt: skip
    made.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of records (default: %(default)s)")
    made.add_argument("--table", type=Path, metavar="FILE", help="write the tables between the markers of this file")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return command(parser(), run, argv)


def run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Measure what was asked for, then print the tables of all records."""
    from benchmarks.markdown import put_between_markers
    from benchmarks.records import read_records
    from benchmarks.table import render

    named = args.only or [section for section in SECTIONS if section not in BY_NAME]
    wanted = [section for section in SECTIONS if section in named]
    if NOTHING in named and wanted:
        raise ConfigError(f"--only {NOTHING} measures nothing; drop {NOTHING} or {', '.join(wanted)}")
    if wanted:
        settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
        _measure(wanted, args, argv, settings)
    records = read_records(args.out)
    if not records:
        raise DataError(f"{args.out} has no records, so there are no tables; measure, or name another --out")
    text = render(records)
    if args.table:
        put_between_markers(args.table, text)
    print(text, end="")
    return 0


def _measure(wanted: Sequence[str], args: argparse.Namespace, argv: Sequence[str], settings: Settings) -> None:
    from benchmarks.records import record_of, write_record

    skipped = skipped_sections(wanted, args)
    questions = Questions.of(args.data, settings)
    logger.info("%d questions, %s", len(questions.examples), questions.origin)
    if WITHOUT_MODEL in wanted:
        logger.info("measuring %s", WITHOUT_MODEL)
        measured = _orchestration(settings)
        write_record(args.out, record_of(WITHOUT_MODEL, measured, argv, settings, questions))
    sections = [section for section in wanted if section != WITHOUT_MODEL]
    for name in args.models if sections else []:
        bench = Bench.of(name, questions, settings)
        for section in sections:
            if (section, name) in skipped:
                continue
            logger.info("measuring %s of %s", section, bench.loaded.label)
            measured = _measurer(section)(bench)
            path = write_record(args.out, record_of(section, measured, argv, settings, questions, bench))
            logger.info("wrote %s", path)


def skipped_sections(wanted: Sequence[str], args: argparse.Namespace) -> set[tuple[str, str]]:
    """The sections, with their models, that were not asked for by name and cannot be measured.

    Raises:
        ConfigError: one that was asked for cannot be measured.
    """
    skipped: set[tuple[str, str]] = set()
    if LLAMA_CPP not in wanted:
        return skipped
    from benchmarks.beside_llama_cpp import obstacle

    for name in args.models:
        reason = obstacle(name)
        if reason and args.only:
            raise ConfigError(reason)
        if reason:
            logger.info("skipping %s of %s: %s", LLAMA_CPP, name, reason)
            skipped.add((LLAMA_CPP, name))
    return skipped


def _orchestration(settings: Settings) -> dict[str, Any]:
    from benchmarks import orchestration

    return orchestration.measure(settings.repeats)


def _measurer(section: str) -> Callable[[Bench], dict[str, Any]]:
    """A section's function, imported when it is needed."""
    from benchmarks import answering, beside_llama_cpp, decoding, documents, end_to_end, floor, reasoning, training_step

    measurers: dict[str, Callable[[Bench], dict[str, Any]]] = {
        "end_to_end": end_to_end.measure,
        "reasoning": reasoning.measure,
        "documents": documents.measure,
        "decoding": decoding.measure,
        "llama_cpp": beside_llama_cpp.measure,
        "floor": floor.measure,
        "answering": answering.measure,
        "training": training_step.measure,
    }
    return measurers[section]


if __name__ == "__main__":
    sys.exit(main())
