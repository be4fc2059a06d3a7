"""No tensor is on the wrong device, in the check for a GPU and in what it runs of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "on_fake_gpu.py"


@pytest.mark.slow
def test_all_tensors_are_on_the_device_that_is_measured() -> None:
    """In a process of its own: the engine of gradients learns of devices when it is first used."""
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
