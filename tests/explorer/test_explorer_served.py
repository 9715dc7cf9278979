"""The explorer as it is served; no browser is needed to see it."""

import re
from urllib.parse import urljoin

import httpx
import pytest


async def test_the_first_page_leads_to_the_explorer(demo_service: httpx.AsyncClient) -> None:
    response = await demo_service.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "/docs")


async def test_the_page_loads_nothing_from_elsewhere(demo_service: httpx.AsyncClient) -> None:
    page = await demo_service.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    loaded = re.findall(r"""(?:src|href)="([^"]+)""", page.text)
    assert len(loaded) == 6
    for address in loaded:
        assert urljoin("http://service/docs", address).startswith("http://service/")
        assert (await demo_service.get(urljoin("/docs", address))).status_code == 200


@pytest.mark.parametrize(
    ("file", "media_type"),
    [
        ("explorer.css", "text/css"),
        ("explorer.js", "text/javascript"),
        ("sha1.js", "text/javascript"),
        ("signing.js", "text/javascript"),
        ("snippets.js", "text/javascript"),
    ],
)
async def test_each_file_is_served_as_what_it_is(demo_service: httpx.AsyncClient, file: str, media_type: str) -> None:
    response = await demo_service.get(f"/docs/{file}")
    assert (response.status_code, response.headers["content-type"]) == (200, f"{media_type}; charset=utf-8")


@pytest.mark.parametrize(
    "path", ["/docs/", "/docs/index.html", "/docs/nothing.js", "/docs/../app.py", "/docs/..%2fface.py"]
)
async def test_nothing_else_is_served_below_it(demo_service: httpx.AsyncClient, path: str) -> None:
    assert (await demo_service.get(path)).status_code == 404
