"""A browser's tab with the explorer in it, and what a hand does there."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import ConsoleMessage, Locator, Page, Request

OpenExplorer = Callable[..., Awaitable["Explorer"]]

NAME = "callflow.test"
"""A name of this machine that is not "localhost": what a browser gets from it by plain HTTP is no secure context."""


@dataclass
class Explorer:
    """The explorer in a tab of its own, and everything that the tab asked for."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note the requests from now on, and what the browser complains about."""
        self.page.on("request", lambda request: self.requests.append(request))  # noqa: PLW0108 - Playwright marks what it is given
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    async def log_in(self, username: str, key: str) -> None:
        await self.page.get_by_label("Username", exact=True).fill(username)
        await self.page.get_by_label("API key", exact=True).fill(key)

    async def authorize(self, scheme: str, token: str) -> None:
        """Give the tab a bearer token."""
        await self.page.get_by_role("button", name="Authorize").first.click()
        bearer = self.page.locator(".auth-container").filter(has_text=scheme)
        await bearer.locator("input").fill(token)
        await bearer.get_by_role("button", name="Apply credentials").click()
        await self.page.get_by_role("button", name="Close").first.click()

    async def try_out(self, operation: str, media_type: str | None = None) -> "Operation":
        """Open an operation, by its tag and id."""
        shown = self.page.locator(f"#operations-{operation}")
        await shown.locator(".opblock-summary-control").click()
        await shown.get_by_role("button", name="Try it out").click()
        if media_type:
            await shown.get_by_label("Request content type").select_option(media_type)
        return Operation(shown)


@dataclass
class Operation:
    """One operation that is being tried out."""

    shown: Locator

    async def fill(self, **values: str) -> None:
        for name, value in values.items():
            row = self.shown.locator(f'[data-property-name="{name}"], [data-param-name="{name}"]')
            choice = row.locator("select")
            if await choice.count():
                await choice.select_option(value)
            else:
                await row.locator("input:not([type=checkbox])").fill(value)

    async def fill_body(self, text: str) -> None:
        await self.shown.locator("textarea").fill(text)

    async def execute(self) -> None:
        """Send the call, and wait until its answer is shown."""
        async with self.shown.page.expect_response(lambda response: "/docs" not in response.url):
            await self.shown.get_by_role("button", name="Execute").click()
        await self.shown.locator(".live-responses-table").wait_for(state="attached")

    async def answer(self) -> str:
        return await self.shown.get_by_label("Answer", exact=True).inner_text()

    async def signature(self) -> tuple[str, str]:
        """The signed string and the hash."""
        string, digest = await self.shown.locator(".signed dd code").all_inner_texts()
        return string, digest

    async def snippet(self, language: str) -> str:
        await self.shown.get_by_role("button", name=language, exact=True).click()
        return await self.shown.get_by_label(f"The same call in {language}", exact=True).inner_text()

    async def refusal(self) -> str:
        return await self.shown.get_by_role("alert").inner_text()


async def everything_stored(explorer: Explorer) -> dict[str, Any]:
    """What the browser keeps of a page, in whatever way."""
    state = dict(await explorer.page.context.storage_state(indexed_db=True))
    state["session"] = await explorer.page.evaluate("Object.entries(sessionStorage)")
    state["databases"] = await explorer.page.evaluate("indexedDB.databases()")
    state["caches"] = await explorer.page.evaluate("self.caches ? caches.keys() : []")
    return state
