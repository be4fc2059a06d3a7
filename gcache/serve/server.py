"""The process that serves: it listens, loads, answers, and ends in good order when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from gcache.errors import ConfigError
from gcache.serve.app import create_app
from gcache.serve.model import ServedModel
from gcache.serve.service import Service
from gcache.serve.settings import ServeSettings

logger = logging.getLogger(__name__)

#: Connections that may wait to be let in.
BACKLOG = 256


def serve(name: str, settings: ServeSettings, load: Callable[[], ServedModel], announce: Callable[[str], None]) -> None:
    """Serve until the process is told to stop.

    It listens before the model is there, so that it can say that it is being loaded.

    Args:
        name: of what is served.
        load: makes it, in the engine's thread.
        announce: told the address once questions are answered.

    Raises:
        GcacheError: it cannot listen there, or whatever `load` raises.
    """
    if not settings.is_local and settings.key is None:
        logger.warning(
            "listening on %s without a key: whoever reaches this machine can ask; set GCACHE_SERVE_KEY", settings.host
        )
    with listening(settings) as listener:
        asyncio.run(Serving(Service(name, settings), listener).go(load, announce))


@contextlib.contextmanager
def listening(settings: ServeSettings) -> Iterator[socket.socket]:
    """A socket that listens; its port is known, whatever was asked for.

    Raises:
        ConfigError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}); choose another --host "
                "or --port, or --port 0 for any free one"
            ) from error
        listener.listen(BACKLOG)
        yield listener


class Serving:
    """A service on a socket, from its start to its end."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        self.service, self.listener = service, listener
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.server = _Server(
            uvicorn.Config(
                create_app(service), http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
                server_header=False,
                proxy_headers=False, backlog=BACKLOG,
                timeout_graceful_shutdown=max(1, math.ceil(service.settings.drain)),
            )
        )  # fmt: skip

    async def go(self, load: Callable[[], ServedModel], announce: Callable[[str], None] = lambda url: None) -> None:
        """Serve until `stop` is called.

        Raises:
            GcacheError: whatever `load` raises.
        """
        self._heed_signals()
        self.service.engine.start()
        loading = asyncio.create_task(self._load(load, announce))
        try:
            await self.server.serve([self.listener])
            if loading.done():
                loading.result()
        finally:
            loading.cancel()
            # in a thread: what the engine still has to tell this loop must be heard meanwhile
            await asyncio.to_thread(self.service.engine.stop)

    def stop(self) -> None:
        """Take no more requests, finish those that are there, and end; a second time: end at once."""
        if self.service.draining:
            self.server.force_exit = True
            return
        logger.info("ending; %d questions are being answered", self.service.places.running)
        self.service.draining = True
        self.server.should_exit = True

    async def _load(self, load: Callable[[], ServedModel], announce: Callable[[str], None]) -> None:
        try:
            await self.service.load(load)
        except BaseException:
            self.server.should_exit = True
            raise
        announce(self.url)

    def _heed_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                loop.add_signal_handler(number, self.stop)
            except NotImplementedError:  # where loops know no signals
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.stop))


class _Server(uvicorn.Server):
    """Leaves signals to `Serving`: uvicorn would end the process by the signal that it got."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
