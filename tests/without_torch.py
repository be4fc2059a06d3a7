"""The command line in a process that must not import torch, nor anything that takes as long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gcache

#: Packages that take long to import, and whatever of ours would drag them in.
SLOW = ("torch", "transformers", "torch_geometric", "numpy", "matplotlib")
#: Refuses them, so that a failure shows who asked; and looks once more at the end.
GUARDED = f"""
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {SLOW}:
            raise AssertionError(f"{{name}} is imported")

sys.meta_path.insert(0, Refusing())
from gcache.commands.main import main

try:
    main(sys.argv[1:])
finally:
    found = sorted({{name.partition(".")[0] for name in sys.modules}} & set({SLOW}))
    assert not found, found
"""


def asked(*words: str) -> subprocess.CompletedProcess[str]:
    """`gcache` with these words."""
    return python(GUARDED, *words)


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    root = Path(gcache.__file__).parents[1]
    return subprocess.run([sys.executable, "-c", code, *words], cwd=root, capture_output=True, text=True, check=False)
