"""Being asked to stop: what Ctrl-C does, for the signals of a system that shuts down or of a terminal that closes."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)

_NAMES = ("SIGTERM", "SIGHUP")


@contextmanager
def terminable() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise SystemExit in the main thread, so that what is done can be kept.

    Where somebody handles or ignores a signal already, or in another thread, it stays as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        logger.warning("stopped by %s; the same command goes on from what is kept", signal.Signals(number).name)
        asked.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt) and interrupt is not signal.default_int_handler:
            interrupt(number, frame)  # an event loop runs, which ends its tasks before it raises
        else:
            raise SystemExit(128 + number)

    ours = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    ours = [number for number in ours if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        if asked:
            raise SystemExit(128 + asked[0]) from None
        raise
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
