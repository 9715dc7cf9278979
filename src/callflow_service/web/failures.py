"""Answer in a face's words what its endpoints raise instead of answering."""

from typing import Final

from fastapi import Request, Response
from starlette.exceptions import HTTPException

from callflow_service.domain.errors import Overloaded, StorageUnavailable, TooManyGuesses
from callflow_service.web.faces import Face
from callflow_service.web.request import BodyTooLarge

FAILURES: Final = (HTTPException, TooManyGuesses, StorageUnavailable)
"""What an endpoint may raise instead of an answer."""

RETRY_AFTER: Final = {"Retry-After": "2"}
"""When to try again after the database was away, or too much was in work."""


async def answer_failure(request: Request, error: Exception) -> Response:
    """The answer to a request that ended with one of `FAILURES`; the log line gets its outcome."""
    face: Face = request.scope["face"]
    log: dict[str, object] = request.scope["log"]
    name = str(log["request_id"])
    match error:
        case TooManyGuesses():
            log["outcome"] = face.text(429)
            return face.failure(429, name, {"Retry-After": str(error.retry_after_seconds)})
        case StorageUnavailable():
            log["outcome"] = "overloaded" if isinstance(error, Overloaded) else "database unavailable"
            log["detail"] = str(error)
            return face.failure(503, name, RETRY_AFTER)
        case BodyTooLarge():
            log["outcome"] = face.text(413)
            return face.failure(413, name)
        case HTTPException(status_code=405):
            return face.failure(405, name, {**(error.headers or {}), "Allow": face.methods(request.url.path)})
        case HTTPException():
            return face.failure(error.status_code, name, error.headers)
        case _:
            raise error
