"""The service behind its routes: the engine, what is served in it, and who may use it now."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gcache.errors import GcacheError
from gcache.serve.admission import AdmissionQueue
from gcache.serve.deltas import Answer, Tell, Work
from gcache.serve.engine import Engine
from gcache.serve.metrics import Metrics
from gcache.serve.model import ServedModel
from gcache.serve.refusals import Refused, refused
from gcache.serve.settings import LOADING_SECONDS, ServeSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Service:
    """One graph, served to many.

    Args:
        name: what clients call the graph.
        settings: see `ServeSettings`.
    """

    def __init__(self, name: str, settings: ServeSettings) -> None:
        self.name, self.settings = name, settings
        self.engine = Engine()
        self.places = AdmissionQueue(settings.max_running, settings.max_waiting)
        self.served: ServedModel | None = None
        self.draining = False
        self.metrics = Metrics(
            running=lambda: self.places.running,
            waiting=lambda: self.places.waiting,
            cache_bytes=lambda: 0 if self.served is None else self.served.cache_bytes,
        )

    @property
    def ready(self) -> bool:
        return self.served is not None and not self.draining

    async def load(self, make: Callable[[], ServedModel]) -> None:
        """Load what is served, in the engine's thread.

        Raises:
            GcacheError: whatever `make` raises.
        """

        async def loaded() -> ServedModel:
            return make()

        self.served = await self.engine.run(loaded)

    def check_model(self, name: str | None) -> None:
        """Raises Refused where a request names another model than the one that is served."""
        if name is not None and name != self.name:
            raise Refused(
                404, f"no model {name[:200]!r} is served here; the one that is is {self.name!r}", "model",
                "model_not_found",
            )  # fmt: skip

    def check_most(self, most: int | None, field: str = "max_tokens") -> None:
        """Raises Refused where a request asks for a longer answer than it may."""
        if most is not None and most > self.settings.max_tokens:
            raise Refused(
                400, f"{field} must be: a whole number from 1 to {self.settings.max_tokens}; got {most}", field,
                "invalid_value",
            )  # fmt: skip

    async def answer(self, work: Work, tell: Tell) -> Answer:
        """Work on a request as soon as there is a place for it.

        Args:
            tell: called in the engine's thread.

        Raises:
            Refused: too many wait, or the request cannot be answered, or the model failed.
        """
        answer = await self.work(lambda served: work(served, tell))
        self.metrics.tokens(answer.prefilled, answer.generated)
        return answer

    async def work(self, work: Callable[[ServedModel], Coroutine[Any, Any, T]]) -> T:
        """Likewise, for anything that takes a place."""
        served = self.served
        if served is None:
            raise Refused(
                503, "the model is being loaded; ask again in a moment", code="loading",
                headers={"Retry-After": str(LOADING_SECONDS)},
            )  # fmt: skip
        try:
            await self.places.take()
        except Refused:
            self.metrics.refused()
            raise
        began = time.monotonic()
        try:
            # the place is free when nothing of the run is left in the engine, not when its client has gone
            return await self.engine.run(lambda: work(served), lambda: self.places.give_back(time.monotonic() - began))
        except Exception as error:
            told = refused(error)
            if told.status == 500:
                logger.exception("a request failed")
            elif isinstance(error, GcacheError) and told.status >= 500:
                logger.warning("%s", told.message)
            raise told from error
