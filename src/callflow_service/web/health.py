"""Health and metrics, for operators and load balancers."""

import asyncio
import time
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from callflow_service.domain.errors import Overloaded, StorageUnavailable
from callflow_service.storage.database import Database
from callflow_service.storage.schema import schema_problem
from callflow_service.watching.metrics import MEDIA_TYPE, Metrics

_FRESH_SECONDS: Final = 1.0


class Readiness:
    """Whether calls can be served. The database's yes holds for a second; after a no it is asked again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking: asyncio.Task[str | None] | None = None
        self._asked_at = float("-inf")
        self._last: str | None = None

    async def problem(self) -> str | None:
        """What keeps calls from being served, as a sentence; None where nothing does."""
        is_fresh = self._last is None and time.monotonic() - self._asked_at < _FRESH_SECONDS
        if self._asking is None or (self._asking.done() and not is_fresh):
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> str | None:
        try:
            self._last = await self._database.run(schema_problem)
        except Overloaded:
            # A full worker tells nothing about the database, so the last finding still holds.
            pass
        except StorageUnavailable:
            self._last = "The database cannot be reached."
        return self._last


def health_router(database: Database) -> APIRouter:
    """Whether the service lives and can serve."""
    router = APIRouter(prefix="/health", tags=["Health"])
    readiness = Readiness(database)

    @router.get("/live", operation_id="health_live", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(
        "/ready",
        operation_id="health_ready",
        summary="Whether calls can be served: the database answers and has the right schema",
        responses={503: {"description": "Not ready; `detail` says why"}},
    )
    async def ready(request: Request) -> JSONResponse:
        ending: asyncio.Event = request.state.ending
        problem = "The service is ending." if ending.is_set() else await readiness.problem()
        if problem:
            return JSONResponse({"status": "unavailable", "detail": problem}, 503)
        return JSONResponse({"status": "ok"})

    return router


def metrics_router(metrics: Metrics) -> APIRouter:
    """What all workers counted, for Prometheus."""
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def exposition() -> Response:
        # In a thread: with several workers it sums up all of their files, which takes milliseconds.
        return Response(await asyncio.to_thread(metrics.exposition), media_type=MEDIA_TYPE)

    return router
