"""The notebook of examples/ runs from top to bottom on the embedded models, and shows its pictures."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import needs
import pytest

from gcache.gnn.features import MINILM_PACKAGE
from gcache.llm.load.locate import EMBEDDED_PACKAGE

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_graph.ipynb"
#: Seconds of a cell after which it hangs: it takes one or two minutes at most.
HANGS = 1800
#: Kind of output -> how many cells show it: a topology alone, what the policy learned, and whole runs.
PICTURES = {"image/svg+xml": 1, "image/png": 2, "text/html": 2}

nbformat = needs.module("nbformat")
nbclient = needs.module("nbclient")


def read() -> Any:
    return nbformat.read(NOTEBOOK, 4)


def wrong_with(notebook: Any) -> list[str]:
    """What of the notebook did not run, or does not show."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = [
        f"cell {number} ran as number {cell.execution_count}"
        for number, cell in enumerate(code, start=1)
        if cell.execution_count != number
    ]
    outputs = [output for cell in code for output in cell.outputs]
    found += [str(output.get("evalue")) for output in outputs if output.output_type == "error"]
    found += [output.text for output in outputs if output.get("name") == "stderr"]
    shown = [kind for output in outputs for kind in output.get("data", {})]
    found += [
        f"{shown.count(kind)} of {count} {kind}" for kind, count in PICTURES.items() if shown.count(kind) != count
    ]
    found += ["a run without its topology" for output in outputs if _is_run(output) and "<svg" not in _html(output)]
    return found


def _is_run(output: Any) -> bool:
    return "text/html" in output.get("data", {})


def _html(output: Any) -> str:
    return "".join(output.data["text/html"])


@pytest.mark.slow
@pytest.mark.embedded
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs.weights(EMBEDDED_PACKAGE, ".gguf")
    needs.weights(MINILM_PACKAGE, "/model/config.json")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    notebook = read()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbclient.NotebookClient(
        notebook, timeout=HANGS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert wrong_with(notebook) == []


def test_what_is_committed_was_run_and_names_no_machine() -> None:
    assert wrong_with(read()) == []
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.findall(r"site-packages|/(?:root|home|tmp|work|Users)/", text)
    assert NOTEBOOK.stat().st_size < 200_000


def test_what_went_wrong_is_found() -> None:
    def broken(change: Any) -> list[str]:
        notebook = copy.deepcopy(read())
        change([cell for cell in notebook.cells if cell.cell_type == "code"])
        return wrong_with(notebook)

    (png,) = {n for n, cell in enumerate(_code()) for o in cell.outputs if "image/png" in o.get("data", {})} - {
        max(n for n, cell in enumerate(_code()) for o in cell.outputs if "image/png" in o.get("data", {}))
    }
    assert broken(lambda code: code[-1].update(execution_count=None)) == [f"cell {len(_code())} ran as number None"]
    assert broken(lambda code: code[png].update(outputs=[])) == ["1 of 2 image/png"]
    error = nbformat.v4.new_output("error", ename="E", evalue="it broke", traceback=[])
    assert broken(lambda code: code[0].outputs.append(error)) == ["it broke"]


def _code() -> list[Any]:
    return [cell for cell in read().cells if cell.cell_type == "code"]
