"""Refuse, while too much is in work, before a request costs anything."""

import logging
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final

from callflow_service.web.faces import Face, Faces
from callflow_service.web.failures import RETRY_AFTER
from callflow_service.web.middleware import Observe, Peer, request_id

_TELL_SECONDS: Final = 10.0
# Stands in a page where the request's id belongs; no text of ours has it.
_ID: Final = "REQUEST-ID"


class Refusal:
    """The answer to requests that are refused unread while too much is in work.

    Refusing uses CPU that accepted requests need, so a refusal is written to the connection as it is kept here, and one
    log line now and then says how many there were.

    Args:
        faces: Requests for those that shed are refused.
        is_full: Whether as much is in work as may be.
        observe: Called for each request that is refused.
        trusts: Whether a peer may name its requests' ids.
    """

    def __init__(
        self, faces: Faces, *, is_full: Callable[[], bool], observe: Observe, trusts: Callable[[Peer], bool]
    ) -> None:
        self._faces = faces
        self._is_full = is_full
        self._observe = observe
        self._trusts = trusts
        self._pages = {face: _page(face) for face in faces.all if face.sheds}
        self._refused = 0
        self._told_at = float("-inf")

    def is_due(self, target: bytes) -> bool:
        """Whether to refuse a request, by its target as it came."""
        return self._is_full() and self._faces.of_target(target).sheds

    def written(self, target: bytes, headers: Iterable[tuple[bytes, bytes]], peer: Peer, *, keep_alive: bool) -> bytes:
        """The whole answer to a request, as it goes over the wire."""
        self._observe({"status": 503, "outcome": "overloaded"}, None)
        self._refused += 1
        if time.monotonic() - self._told_at >= _TELL_SECONDS:
            self._told_at = time.monotonic()
            logging.getLogger(__name__).warning("overloaded", extra={"fields": {"refused": self._refused}})
            self._refused = 0
        head, body = self._pages[self._faces.of_target(target)]
        name = request_id(headers if self._trusts(peer) else ()).encode()
        body = body.replace(_ID.encode(), name)
        connection = b"" if keep_alive else b"connection: close\r\n"
        return b"%s%s\r\ncontent-length: %d\r\n%s\r\n%s" % (head, name, len(body), connection, body)


def _page(face: Face) -> tuple[bytes, bytes]:
    """The answer up to the request's id, and its body with a place for that."""
    page = face.failure(503, _ID, RETRY_AFTER)
    lines = [b"HTTP/1.1 503 %s" % HTTPStatus.SERVICE_UNAVAILABLE.phrase.encode()]
    headers = [header for header in page.raw_headers if header[0] != b"content-length"]
    lines += [b"%s: %s" % header for header in (*headers, *face.headers)]
    return b"\r\n".join([*lines, b"x-request-id: "]), bytes(page.body)
