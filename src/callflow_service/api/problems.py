"""What the API answers where it cannot do what was asked: problem documents (RFC 9457), and a page about each kind."""

import json
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import HTMLResponse

from callflow_service.domain.history import Origin
from callflow_service.repositories.taken_numbers import Alert

MEDIA_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its status, its title, and what a person can do about it."""

    status: int
    title: str
    advice: str


KINDS: Final[dict[str, Kind]] = {
    "unreadable": Kind(400, "The request cannot be read", "Send a JSON object in UTF-8."),
    "cursor-invalid": Kind(400, "The cursor is not one of ours", "Begin the list again without a cursor."),
    "token-missing": Kind(401, "No token was sent", "Send the header Authorization: Bearer cf_..."),
    "token-invalid": Kind(401, "The token is not valid", "Check it for typing errors, or make a new one."),
    "token-expired": Kind(401, "The token has expired", "Make a new one with POST /v1/tokens or the command line."),
    "not-allowed": Kind(403, "Your account may not do this", "Ask the account above yours."),
    "scope-too-small": Kind(403, "The token may only read", "Use a token with the scope write."),
    "api-disabled": Kind(403, "The API is switched off", "The operator, or your account's owner, switched it off."),
    "not-found": Kind(404, "There is no such thing", "It does not exist, or your account may not see it."),
    "method-not-allowed": Kind(405, "This address does not take that method", "The header Allow names those it takes."),
    "in-use": Kind(409, "Something still uses it", "Change or remove what used_by names first."),
    "already-exists": Kind(409, "There is one like it already", "Choose another id, name or number."),
    "newer-change": Kind(409, "Something newer would be lost", "Look at the newer entries; send force: true to go on."),
    "loop": Kind(409, "The forward closes a ring", "Forward one of the devices on the path somewhere else."),
    "idempotency-in-progress": Kind(
        409, "The first request with this key is at work", "Send it again in a moment; it is carried out once."
    ),
    "changed-meanwhile": Kind(412, "It was changed meanwhile", "Look at current, and send the change with its etag."),
    "too-large": Kind(413, "The request is too large", "Send at most 1 MiB."),
    "media-type": Kind(
        415, "The request is of a type that is not read here", "Send application/json that is not compressed."
    ),
    "invalid": Kind(422, "The request says something that cannot be", "Mend each field that errors names."),
    "target-refused": Kind(422, "The number may not be forwarded to", "Choose another number, or ask the operator."),
    "idempotency-mismatch": Kind(
        422, "Another request had this key", "Send each change under a key of its own, and the same one unchanged."
    ),
    "precondition-needed": Kind(428, "The request must say which version it changes", "Send If-Match with the etag."),
    "too-many-guesses": Kind(429, "Too many wrong tokens came from this address", "Wait as long as Retry-After says."),
    "internal": Kind(500, "Something is wrong here", "Tell the operator the request id, which is the instance."),
    "unavailable": Kind(503, "The service cannot answer now", "Send it again after Retry-After."),
}
"""Every problem that the API knows, by its slug."""


@dataclass(slots=True)
class Problem(Exception):
    """What is wrong, in the API's words. `members` stand in the document beside the usual ones.

    `alerts` are for operators, kept though the change that came from `origin` is not.
    """

    slug: str
    detail: str = ""
    members: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    alerts: tuple[Alert, ...] = ()
    origin: Origin | None = None

    def response(self, request_id: str) -> Response:
        """The answer; `request_id` finds the request in the log."""
        kind = KINDS[self.slug]
        document = {
            "type": f"/problems/{self.slug}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail or kind.advice,
            "instance": request_id,
            **self.members,
        }
        # The names of unknown fields stand in it, and they can be any text that JSON can write.
        body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        return Response(body, kind.status, self.headers, MEDIA_TYPE)


def invalid(field_name: str, message: str) -> Problem:
    """One field is wrong."""
    return Problem("invalid", message, {"errors": [{"field": field_name, "message": message}]})


def pages() -> APIRouter:
    """A page about each kind of problem, where its type points to."""
    router = APIRouter()

    @router.get("/problems/{slug}", include_in_schema=False, response_class=HTMLResponse)
    async def page(slug: str) -> str:
        kind = KINDS.get(slug)
        if kind is None:
            raise HTTPException(404)
        title, advice = escape(kind.title), escape(kind.advice)
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
            f"<h1>{title}</h1><p>Status {kind.status}, <code>{escape(slug)}</code>.</p><p>{advice}</p></html>"
        )

    return router
