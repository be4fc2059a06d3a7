"""What a section leaves behind: one JSON file with its numbers and all they depend on."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.setting import Bench, Questions, Settings
from gcache import __version__
from gcache.errors import DataError
from gcache.files import write_json

NO_MODEL = "no model"
#: Variables that keep torch and its libraries from instructions that the processor has.
ENVIRONMENT = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


@dataclass(frozen=True)
class Record:
    """A section's numbers for one model.

    Attributes:
        section: its name.
        model: name, label, fingerprint, dtype and parameters; the label alone where no model is
            measured.
        command: the command line.
        machine: processor, the instructions that torch uses of it, threads and versions.
        settings: see `Settings`.
        questions: where they are from.
        n: how many there were.
        date: of the end of the measurement, UTC.
        measured: the section's own numbers.
    """

    section: str
    model: dict[str, Any]
    command: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    questions: str
    n: int
    date: str
    measured: dict[str, Any]

    @property
    def kind(self) -> tuple[str, ...]:
        """What tells its numbers from others of the same model: the instructions and the dtype.

        Empty where the record does not know the instructions; early ones do not.
        """
        instructions = self.machine.get("cpu_capability")
        if instructions is None:
            return ()
        return (str(instructions), *([str(self.model["dtype"])] if "dtype" in self.model else []))

    @property
    def row(self) -> str:
        """The model and the kind, for a row of a table."""
        label = str(self.model["label"])
        return f"{label} ({', '.join(self.kind)})" if self.kind else label

    @property
    def file_name(self) -> str:
        words = (str(self.model["label"]), *(word.lower() for word in self.kind))
        return "-".join([self.section, *(re.sub(r"[^\w.-]+", "_", word) for word in words)]) + ".json"


def record_of(
    section: str,
    measured: dict[str, Any],
    argv: Sequence[str],
    settings: Settings,
    questions: Questions,
    bench: Bench | None = None,
) -> Record:
    """Put a section's numbers beside all they depend on."""
    return Record(
        section=section,
        model={"label": NO_MODEL} if bench is None else _model(bench),
        command=command_line(argv),
        machine=machine(),
        settings=asdict(settings),
        questions=questions.origin,
        n=len(questions.examples),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        measured=measured,
    )


def command_line(argv: Sequence[str]) -> str:
    """The command and what it needs of the environment, with the folders of this machine left out of its paths."""
    words = [Path(word).name if os.path.isabs(word) else word for word in argv]
    variables = [f"{name}={os.environ[name]}" for name in ENVIRONMENT if os.environ.get(name)]
    return " ".join([*variables, "python -m benchmarks", *words])


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import torch
    import transformers

    return {
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "gcache": __version__,
    }


def write_record(out: Path, record: Record) -> Path:
    """Write a record into its own file, replacing an earlier one of the same section, model and kind."""
    path = out / record.file_name
    write_json(path, asdict(record))
    return path


def read_records(out: Path) -> list[Record]:
    """All records of a folder, by section, model and kind.

    Raises:
        DataError: a JSON file there is no record.
    """
    records = []
    for path in sorted(out.glob("*.json")):
        try:
            records.append(Record(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} is no record of a benchmark ({error}); delete it or measure again") from error
    return records


def _model(bench: Bench) -> dict[str, Any]:
    loaded = bench.loaded
    return {
        "name": Path(bench.name).name if os.path.isabs(bench.name) else bench.name,
        "label": loaded.label,
        "fingerprint": loaded.fingerprint,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "parameters": loaded.model.num_parameters(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
