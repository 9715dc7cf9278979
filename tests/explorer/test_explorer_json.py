"""The JSON API by hand: a token in "Authorize", and each kind of call with the body that the editor begins with."""

import asyncio
import json
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tab import NAME, Explorer, OpenExplorer, everything_stored

from mor_requests import StartService
from program import run

pytestmark = pytest.mark.explorer

NOTHING = {"cookies": [], "origins": [], "session": [], "databases": [], "caches": []}


@pytest_asyncio.fixture
async def service(start_service: StartService, own_url: SecretStr) -> httpx.AsyncClient:
    return await start_service(own_url)


@pytest_asyncio.fixture
async def token(own_url: SecretStr) -> str:
    done = await asyncio.to_thread(run, "tokens", "create", "--account", "admin", "--scope", "write", url=own_url)
    return done.stdout.splitlines()[-1]


async def answered(explorer: Explorer, operation: str, **values: str) -> tuple[int, Any]:
    """What an operation answers, sent with the body that its editor begins with."""
    tried = await explorer.try_out(operation)
    await tried.fill(**values)
    await tried.execute()
    status = int((await tried.shown.locator(".live-responses-table .response-col_status").last.inner_text()).split()[0])
    if status == httpx.codes.NO_CONTENT:
        return status, None
    shown = tried.shown.locator(".live-responses-table .response-col_description pre.microlight")
    return status, json.loads(await shown.first.inner_text())


async def test_each_kind_of_call_is_made_with_a_token_and_the_body_that_is_there(
    open_explorer: OpenExplorer, service: httpx.AsyncClient, token: str
) -> None:
    explorer = await open_explorer(service, host=NAME)
    await explorer.authorize("token", token)
    status, devices = await answered(explorer, "Devices-list_devices", owner="user1", limit="2")
    assert (status, [item["label"] for item in devices["items"]]) == (200, ["FAX/102", "IAX2/1002"])
    status, device = await answered(explorer, "Devices-show_device", device_id="4")
    assert (status, device["label"]) == (200, "IAX2/1002")
    status, added = await answered(explorer, "Devices-add_device")
    assert (status, added["label"], added["owner"]) == (201, "SIP/103", "user1")
    added_id = str(added["id"])
    status, changed = await answered(explorer, "Devices-change_device", device_id=added_id)
    assert (status, changed["caller_name"], changed["ring_seconds"]) == (200, "Reception", 30)
    assert await answered(explorer, "Devices-delete_device", device_id=added_id) == (204, None)
    status, state = await answered(explorer, "Call_flows-change_callflow_state", device_id="4", state="busy")
    assert (status, state["otherwise"]["steps"][0]["to"]) == (200, {"number": "+37061234567"})
    status, history = await answered(explorer, "Call_flows-show_callflow_history", device_id="4")
    assert (status, [item["state"] for item in history["items"]]) == (200, ["busy"])
    change = history["items"][0]["id"]
    status, undone = await answered(explorer, "Call_flows-undo_change", entry_id=str(change))
    assert (status, undone["undoes"], undone["after"]["otherwise"]) == (200, change, {"action": "empty"})
    status, problem = await answered(explorer, "Dids-show_did", did_id="999")
    assert (status, problem["type"]) == (404, "/problems/not-found")

    made = [request for request in explorer.requests if "/v1/" in request.url]
    assert [await request.header_value("authorization") for request in made] == [f"Bearer {token}"] * 9
    origin = f"http://{NAME}:{service.base_url.port}/"
    assert {request.url for request in explorer.requests if not request.url.startswith((origin, "data:"))} == set()
    assert await everything_stored(explorer) == NOTHING
    await explorer.page.reload()
    await explorer.page.locator(".opblock").first.wait_for()
    explorer.complaints.clear()
    assert (await answered(explorer, "Devices-list_devices"))[0] == 401
    # Chromium itself notes the statuses 401 and 404.
    explorer.complaints.clear()


async def test_every_editor_begins_with_a_body_that_can_be_sent(
    open_explorer: OpenExplorer, service: httpx.AsyncClient
) -> None:
    explorer = await open_explorer(service)
    document = (await service.get("/openapi.json")).json()
    operations = [
        operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if path.startswith("/v1/") and method in {"put", "post", "patch"} and "requestBody" in operation
    ]
    assert len(operations) > 10
    for operation in operations:
        tried = await explorer.try_out(f"{operation['tags'][0].replace(' ', '_')}-{operation['operationId']}")
        body = json.loads(await tried.shown.locator("textarea.body-param__text").input_value())
        assert body == operation["requestBody"]["content"]["application/json"]["example"], operation["operationId"]
