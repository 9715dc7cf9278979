"""A real Chromium on the explorer of the real service."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright
from tab import NAME, Explorer, OpenExplorer


@pytest_asyncio.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", f"--host-resolver-rules=MAP {NAME} 127.0.0.1", "--no-proxy-server"],
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture
async def open_explorer(chromium: Browser) -> AsyncIterator[OpenExplorer]:
    """Open a service's explorer in a browser profile of its own. In the end, the browser must not have complained."""
    opened: list[Explorer] = []

    async def open_it(service: httpx.AsyncClient, *, host: str = "127.0.0.1", dark: bool = False) -> Explorer:
        context = await chromium.new_context(color_scheme="dark" if dark else "light")
        explorer = Explorer(await context.new_page())
        opened.append(explorer)
        explorer.page.set_default_timeout(30_000)
        explorer.watch()
        await explorer.page.goto(f"http://{host}:{service.base_url.port}/")
        await explorer.page.locator(".opblock").first.wait_for()
        assert re.fullmatch(rf"http://{host}:\d+/docs", explorer.page.url)
        return explorer

    yield open_it
    for explorer in opened:
        await explorer.page.context.close()
    assert [explorer.complaints for explorer in opened] == [[] for _ in opened]


@pytest.fixture
async def explorer(open_explorer: OpenExplorer, demo_service: httpx.AsyncClient) -> Explorer:
    """The explorer of the service on the demo data, with the settings as they come."""
    return await open_explorer(demo_service)
