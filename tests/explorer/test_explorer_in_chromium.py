"""The explorer by hand: calls are signed in the tab, shown as they were sent, and the key goes nowhere."""

import asyncio
import json
import logging
import random
import subprocess
import sys
from collections.abc import Iterable
from hashlib import sha1
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from tab import NAME, Explorer, OpenExplorer, Operation, everything_stored

from callflow_service.app import all_faces
from callflow_service.components import Components
from callflow_service.settings import Settings
from callflow_service.watching.logs import JsonLines
from callflow_service.web.faces import Face
from mor_requests import ADMIN_KEY, GET, StartService, got, refused, sha1_hex, updated

pytestmark = [pytest.mark.explorer, pytest.mark.usefixtures("untouched")]

MEDIA_TYPES = ["application/x-www-form-urlencoded", "application/json", "multipart/form-data"]
ODD = """Žalias "ąč" & Co's 100% + \\ $HOME `id` ?> ☎ 🙂 a=b"""
COMMANDS = {"curl": ["bash"], "PHP": ["php"], "Python": [sys.executable, "-"]}


async def run(language: str, snippet: str) -> str:
    """What a snippet prints, pasted as it is."""
    command = COMMANDS[language]
    done = await asyncio.to_thread(subprocess.run, command, input=snippet, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def check_snippets(operation: Operation) -> None:
    for language in COMMANDS:
        assert await run(language, await operation.snippet(language)) == (await operation.answer()).strip(), language


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
async def test_an_update_is_signed_and_shown_in_each_language(explorer: Explorer, media_type: str) -> None:
    await explorer.log_in("admin", ADMIN_KEY)
    operation = await explorer.try_out("MOR-device_callflow_update", media_type)
    values = {"device_id": "4", "callflow_action": "forward", "state": "busy", "external_number": "+37060000001"}
    values |= {"custom": ODD}
    if media_type == "application/json":
        await operation.fill_body(json.dumps({"u": "nobody", **values, "hash": "", "voicemail": None}))
    else:
        await operation.fill(u="nobody", forward_to_device="", **values)
    await operation.execute()
    expected = updated(state="Busy", data="+37060000001", callerid_type="Custom", callerid_data=ODD)
    assert await operation.answer() == expected[2]
    string = f"4forwardbusy+37060000001{ODD}"
    assert await operation.signature() == (string, sha1_hex(string))
    await check_snippets(operation)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
async def test_a_get_is_signed_and_shown_in_each_language(explorer: Explorer, media_type: str) -> None:
    await explorer.log_in("admin", ADMIN_KEY)
    operation = await explorer.try_out("MOR-device_callflow_get", media_type)
    if media_type == "application/json":
        await operation.fill_body('{"u": "admin", "device_id": 4}')
    else:
        await operation.fill(device_id="4")
    await operation.execute()
    assert await operation.answer() == got()[2]
    assert await operation.signature() == ("4", sha1_hex("4"))
    await check_snippets(operation)


async def test_calls_by_get_are_signed_and_shown_in_each_language(
    open_explorer: OpenExplorer, start_service: StartService, demo_url: SecretStr
) -> None:
    explorer = await open_explorer(await start_service(demo_url, allow_get=True))
    await explorer.log_in("admin", ADMIN_KEY)
    operation = await explorer.try_out("MOR-device_callflow_update_by_get")
    await operation.fill(u="nobody", state="failed", forward_to_device="", external_number="+370", custom=ODD)
    await operation.execute()
    expected = updated(state="Failed", data="+370", callerid_type="Custom", callerid_data=ODD)
    assert await operation.answer() == expected[2]
    string = f"4forwardfailed+370{ODD}"
    assert await operation.signature() == (string, sha1_hex(string))
    await check_snippets(operation)
    operation = await explorer.try_out("MOR-device_callflow_get_by_get")
    await operation.execute()
    assert await operation.answer() == got(device="SIP/101")[2]
    assert await operation.signature() == ("100", sha1_hex("100"))
    await check_snippets(operation)


async def test_an_alias_is_signed_in_its_names_place(explorer: Explorer) -> None:
    await explorer.log_in("admin", ADMIN_KEY)
    operation = await explorer.try_out("MOR-device_callflow_update", "application/json")
    body = {"u": "admin", "device_id": 4, "state": "busy", "src_callerid": True, "foward_to_device": 5}
    await operation.fill_body(json.dumps({**body, "action": "forward", "nested": {"a": 1}, "empty": ""}))
    await operation.execute()
    assert await operation.answer() == updated(state="Busy", callerid_type="Same as comes")[2]
    assert await operation.signature() == ("4forwardbusy5true", sha1_hex("4forwardbusy5true"))
    await check_snippets(operation)


async def test_a_wrong_key_shows_the_servers_words_and_the_likely_reason(explorer: Explorer) -> None:
    operation = await explorer.try_out("MOR-device_callflow_get")
    for username, key, refusal in (
        ("admin", "wrong", "Incorrect hash: The API key at the top is most likely not the one of “admin”."),
        (
            "admin",
            f"{ADMIN_KEY} ",
            "Incorrect hash: The API key at the top begins or ends with a blank, which counts. Was it pasted with it?",
        ),
        (
            "nobody",
            ADMIN_KEY,
            "User was not found: There is no account “nobody”, or it is blocked, or “p” is missing or wrong.",
        ),
        (
            "reseller",
            "reseller-secret",
            "Device was not found: There is no such device, or it is not one of “reseller”.",
        ),
    ):
        await explorer.log_in(username, key)
        await operation.execute()
        await operation.shown.get_by_role("alert").get_by_text(refusal).wait_for()
        assert f"<error>{refusal.partition(':')[0]}</error>" in await operation.answer()
        assert (await operation.signature())[1] == sha1_hex("100", key)
    await explorer.log_in("admin", "")
    await operation.fill(hash="0" * 40)
    await operation.execute()
    await operation.shown.get_by_role("alert").get_by_text("Enter the username and its API key at the top").wait_for()


async def test_without_a_key_a_call_is_sent_as_it_is_typed(explorer: Explorer) -> None:
    await explorer.page.get_by_label("Username", exact=True).fill("nobody")
    operation = await explorer.try_out("MOR-device_callflow_get")
    await operation.execute()
    assert await operation.answer() == got(device="SIP/101")[2]
    assert await operation.shown.locator(".signed dl").count() == 0
    await check_snippets(operation)
    assert await explorer.page.get_by_role("status").inner_text() == "No API key: MOR calls are sent as typed below."


async def test_a_body_that_is_no_json_is_sent_as_it_is_typed(explorer: Explorer) -> None:
    await explorer.log_in("admin", ADMIN_KEY)
    operation = await explorer.try_out("MOR-device_callflow_get", "application/json")
    await operation.fill_body('["no object"]')
    await operation.execute()
    assert [request.post_data for request in explorer.requests if GET in request.url] == ['["no object"]']
    assert await operation.shown.locator(".signed").count() == 0
    # Chromium itself notes the status 400.
    explorer.complaints.clear()


async def test_the_key_is_in_no_request_no_storage_and_no_log(
    explorer: Explorer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await explorer.log_in("reseller", "reseller-secret")
    operation = await explorer.try_out("MOR-device_callflow_get")
    await operation.fill(device_id="200")
    await operation.execute()
    assert await operation.answer() == got(user="Test User #2", device="SIP/2001", ring=30)[2]
    await operation.shown.get_by_role("button", name="Copy: The same call in curl").click()
    shown = await explorer.page.content()
    assert len(explorer.requests) > 8
    for request in explorer.requests:
        sent = f"{request.method} {request.url} {await request.all_headers()} {request.post_data_buffer!r}"
        assert "secret" not in sent
    nothing = {"cookies": [], "origins": [], "session": [], "databases": [], "caches": []}
    assert await everything_stored(explorer) == nothing
    logged = [JsonLines().format(record) for record in caplog.records]
    assert [line for line in logged if GET in line]
    assert not [line for line in logged if "reseller-secret" in line]
    assert "reseller-secret" not in shown
    await explorer.page.reload()
    assert await explorer.page.get_by_label("API key", exact=True).input_value() == ""


async def test_nothing_leaves_the_machine_and_no_secure_context_is_needed(
    open_explorer: OpenExplorer, demo_service: httpx.AsyncClient
) -> None:
    explorer = await open_explorer(demo_service, host=NAME)
    assert await explorer.page.evaluate("[isSecureContext, typeof crypto.subtle]") == [False, "undefined"]
    await explorer.log_in("admin", ADMIN_KEY)
    operation = await explorer.try_out("MOR-device_callflow_update")
    await operation.execute()
    assert await operation.answer() == updated()[2]
    assert await operation.signature() == ("4forwardbefore_call5", sha1_hex("4forwardbefore_call5"))
    await explorer.page.evaluate("addEventListener('copy', () => { window.copied = getSelection().toString(); })")
    await operation.shown.get_by_role("button", name="Copy: The same call in curl").click()
    assert await operation.shown.get_by_text("Copied").count() == 1
    snippet = await operation.snippet("curl")
    assert (await explorer.page.evaluate("copied")).strip() == snippet
    origin = f"http://{NAME}:{demo_service.base_url.port}/"
    assert snippet.startswith(f"curl '{origin}billing/api/device_callflow_update'")
    asked = {request.url for request in explorer.requests}
    assert {url for url in asked if not url.startswith((origin, "data:"))} == set()
    for request in explorer.requests:
        response = await request.response()
        if request.url.startswith(origin) and response:
            assert (await response.server_addr() or {}).get("ipAddress") == "127.0.0.1"


def echo_face(_: Settings, __: Components) -> Iterable[Face]:
    router = APIRouter(prefix="/v1", tags=["Echo"])

    @router.post("/echo", operation_id="echo")
    async def echo(
        request: Request, token: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())], body: dict[str, str]
    ) -> dict[str, Any]:
        return {"token": token.credentials, "body": body, "query": str(request.query_params)}

    yield Face(name="echo", prefixes=("/v1",), router=router)
    yield from all_faces(_, __)


async def test_calls_that_are_not_mors_are_left_alone(
    open_explorer: OpenExplorer, start_service: StartService, demo_url: SecretStr
) -> None:
    explorer = await open_explorer(await start_service(demo_url, make_faces=echo_face))
    await explorer.log_in("admin", ADMIN_KEY)
    await explorer.authorize("HTTPBearer", "t0ken")
    operation = await explorer.try_out("Echo-echo")
    await operation.fill_body('{"device_id": "4"}')
    await operation.execute()
    (request,) = [request for request in explorer.requests if "/v1/echo" in request.url]
    assert (request.post_data, await request.header_value("authorization")) == ('{"device_id": "4"}', "Bearer t0ken")
    response = await request.response()
    assert response is not None
    assert await response.json() == {"token": "t0ken", "body": {"device_id": "4"}, "query": ""}
    assert await operation.shown.locator(".signed").count() == 0
    assert await operation.shown.locator(".live-responses-table").is_visible()


async def test_the_documented_answers_are_shown(explorer: Explorer) -> None:
    operation = await explorer.try_out("MOR-device_callflow_update")
    answer = operation.shown.locator('[data-code="200"]')
    assert (await answer.locator("pre").inner_text()).strip() == updated()[2].strip()
    await answer.locator(".examples-select select").select_option("Incorrect hash")
    assert (await answer.locator("pre").inner_text()).strip() == refused("Incorrect hash")[2].strip()


async def test_the_sha1_is_sha1(explorer: Explorer) -> None:
    letters = "aZ09 +&\n\u0000éąč☎🙂"
    texts = ["".join(random.choices(letters, k=length)) for length in range(200)] + ["🙂" * 20_000]  # noqa: S311 - no secrets
    digests = await explorer.page.evaluate(
        "async (texts) => { const { sha1 } = await import('/docs/sha1.js'); return texts.map(sha1); }", texts
    )
    assert digests == [sha1(text.encode(), usedforsecurity=False).hexdigest() for text in texts]


async def test_the_panel_goes_by_keyboard_and_the_key_is_covered_until_it_is_wanted(explorer: Explorer) -> None:
    page = explorer.page
    key, show = page.get_by_label("API key", exact=True), page.get_by_role("button", name="Show", exact=True)
    await page.keyboard.press("Tab")
    await page.keyboard.type("admin")
    await page.keyboard.press("Tab")
    await page.keyboard.type(ADMIN_KEY)
    assert await page.get_by_role("status").inner_text() == "MOR calls are signed as admin."
    types = [await key.get_attribute("type")]
    for _ in range(2):
        await show.focus()
        await page.keyboard.press("Space")
        types.append(await key.get_attribute("type"))
    assert types == ["password", "text", "password"]
    await key.focus()
    await page.keyboard.press("Enter")
    assert await page.get_by_label("Username", exact=True).input_value() == "admin"
    assert await key.input_value() == ADMIN_KEY


def luminance(colour: str) -> float:
    """How light a colour is, as WCAG 2 has it."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("dark", [False, True])
async def test_the_panel_can_be_read_in_light_and_dark(
    open_explorer: OpenExplorer, demo_service: httpx.AsyncClient, *, dark: bool
) -> None:
    explorer = await open_explorer(demo_service, dark=dark)
    await explorer.log_in("admin", "wrong")
    operation = await explorer.try_out("MOR-device_callflow_get")
    await operation.execute()
    await operation.shown.get_by_role("alert").wait_for()
    for text, ground in (
        ("#signing", "#signing"),
        ("#signing-state", "#signing"),
        ("#key", "#key"),
        (".refused", ".refused"),
        (".answer", ".answer"),
    ):
        colours = "([text, ground]) => [[text, 'color'], [ground, 'backgroundColor']].map(([selector, property]) =>"
        colours += " getComputedStyle(document.querySelector(selector))[property])"
        letters, behind = map(luminance, await explorer.page.evaluate(colours, [text, ground]))
        assert (max(letters, behind) + 0.05) / (min(letters, behind) + 0.05) >= 4.5, text
        assert (letters > behind) is dark
