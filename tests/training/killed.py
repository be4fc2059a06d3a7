"""`gcache train`, killed at a point: python killed.py POINT COUNT SIGNAL FLAGS...

Points, of which the one of this number (from 0) is where the signal comes:
    part     before a part of a report's row is kept
    step     within a step of training, after its rollouts
    save     before a checkpoint is written
    never    the run ends by itself
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from gcache.commands.main import main
from gcache.training import checkpoint as checkpoints
from gcache.training import kept_rows, report, trainer

POINTS = {"part": (kept_rows, "append_line"), "step": (trainer, "advantages"), "save": (checkpoints, "write")}


def kill_at(point: str, count: int, number: int) -> None:
    owner, name = POINTS[point]
    real, calls = getattr(owner, name), 0

    def call(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count + 1:
            os.kill(os.getpid(), number)
        return real(*args, **options)

    setattr(owner, name, call)


if __name__ == "__main__":
    point, count, name, *flags = sys.argv[1:]
    report.PART = 2  # questions; a row of the tests has few
    # whoever started this may ignore them
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if point != "never":
        kill_at(point, int(count), getattr(signal, name))
    sys.exit(main(flags))
