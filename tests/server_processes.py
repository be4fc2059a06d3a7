"""Servers in processes of their own, on this machine, for as long as a block runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2

#: Seconds until a server answers, and of a request.
STARTING, PATIENCE = 300.0, 120.0


@dataclass
class Server:
    """A process group that answers at an address of this machine."""

    process: subprocess.Popen[Any]
    url: str

    def end(self, how: int = signal.SIGTERM) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        with contextlib.suppress(ProcessLookupError):  # workers that outlive the first of them
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def post(self, path: str, body: Any, key: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx2.post(self.url + path, json=body, headers=headers, timeout=PATIENCE)


@contextlib.contextmanager
def running(command: list[str], port: int, ready: str, extra: dict[str, str]) -> Iterator[Server]:
    """A server, once it is ready, until the block ends.

    Raises:
        RuntimeError: it ended, or was not ready in time; with its last words.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            ["nice", "-n", "5", *command], stdout=log, stderr=log, env={**os.environ, **extra}, start_new_session=True
        )
        server = Server(process, f"http://127.0.0.1:{port}")
        try:
            until = time.monotonic() + STARTING
            while not _answers(server.url + ready):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} does not serve:\n{log.read().decode(errors='replace')[-3000:]}")
                time.sleep(0.5)
            yield server
        finally:
            server.end()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
