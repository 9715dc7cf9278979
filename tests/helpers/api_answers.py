"""What tests of the JSON API share: tokens made past it, and its problem documents."""

from collections.abc import Awaitable, Callable

import httpx

MakeToken = Callable[..., Awaitable[str]]


def problem(response: httpx.Response) -> tuple[int, str]:
    """The status and the kind of a problem document, which tells of both and of the request."""
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    assert document["instance"] == response.headers["x-request-id"]
    return response.status_code, document["type"].removeprefix("/problems/")
