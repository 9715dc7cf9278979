"""Serve the explorer's page, scripts and styles, and lead `/` to it."""

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from callflow_service.web.faces import Face
from callflow_service.web.headers import SECURITY_HEADERS, Headers

PATH: Final = "/docs"

# What is not the service's own is neither loaded nor asked. Swagger UI's style sheet has pictures in it.
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final[Headers] = (*SECURITY_HEADERS[:3], (b"content-security-policy", _POLICY))

_MEDIA_TYPES: Final = {"css": "text/css", "html": "text/html", "js": "text/javascript"}


def explorer_face() -> Face:
    """The page, what it loads beside Swagger UI, and the way from `/` to it."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def lead_to_explorer() -> RedirectResponse:
        return RedirectResponse(PATH)

    for file in files(__package__).joinpath("static").iterdir():
        is_page = file.name == "index.html"
        _serve(router, PATH if is_page else f"{PATH}/{file.name}", file.name, file.read_bytes())
    return Face(name="explorer", prefixes=(PATH, "/static-offline-docs"), router=router, headers=_HEADERS)


def _serve(router: APIRouter, path: str, name: str, content: bytes) -> None:
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]

    @router.get(path)
    async def serve() -> Response:
        return Response(content, media_type=media_type)
