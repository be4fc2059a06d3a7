"""The scripts of experiments/, which are run by path and belong to no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any


def experiment(name: str) -> Any:
    """The module of experiments/NAME.py."""
    path = Path(__file__).parents[1] / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"experiments.{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
