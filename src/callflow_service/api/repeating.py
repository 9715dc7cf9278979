"""Requests that come again: under one `Idempotency-Key` a change is made once, and told as often as it is asked for.

A POST that changes something opens its transaction by `House.changing`. It is committed when the answer is known, with
the answer in it: whoever is killed in between leaves both or neither.
"""

import base64
import hashlib
import json
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Annotated, Any, Final

from fastapi import Header, Request, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.problems import Problem
from callflow_service.credentials.api_keys import Keyring, Undecipherable
from callflow_service.domain.errors import StorageUnavailable
from callflow_service.repositories import answers
from callflow_service.repositories.answers import Kept

MAX_KEY: Final = 255
"""The longest key, in characters."""

_NAME: Final = "Idempotency-Key"
# Each answer has these anew: the server's, and the body's length.
_NOT_KEPT: Final = {"content-length", "x-request-id", "date"}


async def key_header(
    _: Annotated[
        str | None,
        Header(
            alias=_NAME,
            min_length=1,
            max_length=MAX_KEY,
            pattern="^[ -~]+$",
            description="A text of your own, another one for each change. The same request under the same key within "
            "24 hours is not carried out again: it gets the first answer.",
            examples=["5f0c6f0e-2a0c-4f0f-9d57-6f8f2f5f2c11"],
        ),
    ] = None,
) -> None:
    """Have a route take the header, and the document name it."""


class AnsweredBefore(Exception):
    """The request is one that was answered already; `response` is how."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class OneChange:
    """The transaction of one request, which ends after its answer is known.

    Args:
        request: Of its headers the key is taken, where it is a POST.
        ending: Closed when the answer is known; what a transaction has to do in the end is put on it.
    """

    def __init__(self, request: Request, ending: AsyncExitStack) -> None:
        self._request = request
        self._ending = ending
        self._key = request.headers.get(_NAME) if request.method == "POST" else None
        self._opened: tuple[AsyncSession, int, Keyring] | None = None
        self._savepoint: Any = None

    async def open(
        self, transaction: AbstractAsyncContextManager[AsyncSession], account: int, keys: Keyring
    ) -> AsyncSession:
        """Begin the transaction; under a key, nothing else may be at work on it.

        Raises:
            AnsweredBefore: It was answered already.
            Problem: `idempotency-in-progress` or `idempotency-mismatch`.
            StorageUnavailable: The first answer cannot be decrypted.
        """
        session = await self._ending.enter_async_context(transaction)
        if self._key is None:
            return session
        if not await answers.lock(session, account, self._key):
            raise Problem("idempotency-in-progress", headers={"Retry-After": "1"})
        if kept := await answers.find(session, account, self._key):
            if kept.fingerprint != await self._fingerprint():
                raise Problem("idempotency-mismatch")
            raise AnsweredBefore(_read(kept.answer, keys))
        self._savepoint = await session.begin_nested()
        self._opened = session, account, keys
        return session

    @property
    def is_kept(self) -> bool:
        """Whether the answer, be it a refusal, belongs to a change that was begun under a key."""
        return self._opened is not None

    async def take_back(self) -> None:
        """Undo what was changed; the refusal is the answer that is kept."""
        if self._savepoint is not None:
            await self._savepoint.rollback()

    async def keep(self, response: Response) -> None:
        """Store the answer in the transaction that it tells of, where there is a key."""
        if self._opened is None or self._key is None:
            return
        session, account, keys = self._opened
        kept = Kept(await self._fingerprint(), keys.encrypt(_written(response)))
        await answers.keep(session, account, self._key, kept)

    async def _fingerprint(self) -> bytes:
        target = f"{self._request.method} {self._request.url.path}?{self._request.url.query}\n"
        return hashlib.sha256(target.encode() + await self._request.body()).digest()


def _written(response: Response) -> str:
    headers = [[name, value] for name, value in response.headers.items() if name not in _NOT_KEPT]
    body = base64.b64encode(bytes(response.body)).decode()
    return json.dumps({"status": response.status_code, "headers": headers, "body": body})


def _read(stored: str, keys: Keyring) -> Response:
    try:
        kept = json.loads(keys.decrypt_afresh(stored))
    except Undecipherable:
        raise StorageUnavailable("a kept answer cannot be decrypted") from None
    response = Response(base64.b64decode(kept["body"]), kept["status"])
    for name, value in kept["headers"]:
        response.headers[name] = value
    response.headers["Idempotency-Replayed"] = "true"
    return response
