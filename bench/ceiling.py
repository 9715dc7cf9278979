"""The limit of this stack: Starlette and asyncpg, the service's own statements, its checks and its pages by hand.

It answers what the benchmark sends as the service does, and holds nothing for anything else.
"""

import asyncio
import base64
import hmac
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha1
from typing import Any, Final
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import asyncpg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from callflow_service.repositories.callflows import _LOAD_FACTS, _SAVE
from callflow_service.repositories.lookups import _FIND
from callflow_service.storage.database import PLANNING

_POOL_SIZE: Final = 10
_TECHNOLOGIES: Final = ["SIP", "IAX2"]

_ORDER: Final = (
    *("device_id", "callflow_action", "state", "forward_to_device", "external_number", "fax_device"),
    *("voicemail", "device_callerid", "src_callerid", "did_id", "custom"),
)
_STATE_FIRST: Final = ("device_id", "state", "callflow_action", *_ORDER[3:])
_STATES: Final = {"before_call": "Before call", "no_answer": "No answer", "failed": "Failed", "busy": "Busy"}
_REASONS: Final = {
    "before_call": "unconditional",
    "no_answer": "no-answer",
    "failed": "unavailable",
    "busy": "user-busy",
}

_PAGE: Final = """<?xml version="1.0" encoding="UTF-8"?>
<page>
  <status>Callflow was successfully updated</status>
  {user}
  {device}
  <callflow>
    <state>{state}</state>
    <priority>1</priority>
    {action}
    {data}
    <callerid_type>{kind}</callerid_type>
    {caller_id}
  </callflow>
</page>
"""
_ERROR: Final = """<?xml version="1.0" encoding="UTF-8"?>
<page>
  <status>
    <error>{}</error>
  </status>
</page>
"""

# Connections with their three prepared statements; the last one used is the next one taken.
_connections: asyncio.LifoQueue[tuple[Any, Any, Any]] = asyncio.LifoQueue()
_switch_users: dict[str, tuple[str, str]] = {}


_Columns = tuple[int | None, str | None, str | None, int | None, str | None]
_Shown = tuple[str, str, str, str]


class Refused(Exception):
    """The request is answered with MOR's error of this text."""


async def update(request: Request) -> Response:
    """`device_callflow_update`."""
    request_id = os.urandom(8).hex()
    values = dict(parse_qsl((await request.body()).decode()))
    connection = await _connections.get()
    try:
        page = await _update(connection, values, request_id, request.client.host if request.client else None)
    except Refused as refused:
        page = _ERROR.format(refused)
    finally:
        _connections.put_nowait(connection)
    return Response(page, headers={"x-request-id": request_id}, media_type="application/xml; charset=utf-8")


async def _update(statements: tuple[Any, Any, Any], values: dict[str, str], request_id: str, client: str | None) -> str:
    load, save, _ = statements
    device_id, target_id, fax_id, did_id = (
        int(values[name]) if values.get(name, "").isdigit() else None
        for name in ("device_id", "forward_to_device", "fax_device", "did_id")
    )
    row = await load.fetchrow(values.get("u"), device_id, target_id, fax_id, did_id, "external_number" in values)
    _admit(row, values)
    account, state, action = row[0], values.get("state", ""), values.get("callflow_action", "")
    if not _may_use(row, 10):
        raise Refused("Device was not found")
    if state not in _STATES:
        raise Refused("Callflow state was not found")
    flow, shown = _flow(row, values, state, action)
    if did_id is not None and row[33] != device_id:
        raise Refused("DID was not found")
    await save.fetch(device_id, state, action, *flow, None, None, account, "mor", client, request_id, None, True)  # noqa: FBT003 - a parameter of SQL
    return _PAGE.format(
        user=_element("user", row[14]),
        device=_element("device", f"{row[11]}/{row[12]}"),
        state=_STATES[state],
        action=_element("action", shown[0]),
        data=_element("data", shown[1]),
        kind=shown[2],
        caller_id=_element("callerid_data", shown[3]),
    )


def _flow(row: Any, values: dict[str, str], state: str, action: str) -> tuple[_Columns, _Shown]:
    """What is stored (target, number, caller ID's kind, DID, text), and what the page shows of it."""
    if action == "forward" and values.get("forward_to_device"):
        if not _may_use(row, 17):
            raise Refused("Local device was not found")
        caller_id, shown = _caller_id(row, values)
        return (row[17], None, *caller_id), ("Forward", f"{row[18]}/{row[19]}", *shown)
    if action == "forward":
        number = values.get("external_number", "")
        if not number.lstrip("+").isdigit():
            raise Refused("External number was not found")
        caller_id, shown = _caller_id(row, values)
        return (None, number, *caller_id), ("Forward", number, *shown)
    if action == "fax_detect" and state == "before_call":
        if not _may_use(row, 24) or row[25] != "FAX":
            raise Refused("FAX device was not found")
        return (row[24], None, None, None, None), ("Fax detect", f"{row[25]}/{row[26]}", "From Device", "")
    if action not in {"voicemail", "empty"}:
        raise Refused("Callflow action was not found")
    return (None,) * 5, ("Voicemail" if action == "voicemail" else "", "", "From Device", "")


def _caller_id(row: Any, values: dict[str, str]) -> tuple[tuple[str, int | None, str | None], tuple[str, str]]:
    if values.get("device_callerid") in {"true", "1"}:
        return ("device", None, None), ("From Device", "")
    if values.get("src_callerid") in {"true", "1"}:
        return ("source", None, None), ("Same as comes", "")
    if values.get("did_id"):
        return ("did", row[31], None), ("From DID", row[32])
    if custom := values.get("custom"):
        return ("custom", None, custom), ("Custom", custom)
    return ("device", None, None), ("From Device", "")


def _admit(row: Any, values: dict[str, str]) -> None:
    account, _, role, blocked, enabled, addon, policy, key, _, addresses = row[:10]
    if account is not None and not enabled:
        raise Refused("API Requests are disabled")
    # The world of the benchmark has no account that may call from certain addresses only.
    if account is None or blocked or addresses or policy == "off":
        raise Refused("Bad login")
    if not key or not _is_signed(values, key):
        raise Refused("Incorrect hash")
    if role == "accountant" or (role == "reseller" and not addon):
        raise Refused("You are not authorised to use this functionality")


def _is_signed(values: dict[str, str], key: str) -> bool:
    sent = values.get("hash", "").lower()
    in_order = [value for name, value in values.items() if name in _ORDER]
    for order in (_ORDER, _STATE_FIRST, None):
        text = "".join(in_order if order is None else [values.get(name, "") for name in order])
        if hmac.compare_digest(sha1((text + key).encode(), usedforsecurity=False).hexdigest(), sent):
            return True
    return False


def _may_use(row: Any, start: int) -> bool:
    """Whether the device whose columns start there is one of the caller's."""
    account, role, owner, reseller = row[0], row[2], row[start + 3], row[start + 5]
    if row[start] is None:
        return False
    return bool(role == "admin" or account == owner or (role == "reseller" and account == reseller))


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>" if text else f"<{name}/>"


async def kamailio(request: Request) -> Response:
    """A question of Kamailio's, where at most one forward to a device without any leads on."""
    request_id = os.urandom(8).hex()
    user, _, password = base64.b64decode(request.headers["authorization"].partition(" ")[2]).decode().partition(":")
    stored, domain = _switch_users[user]
    _, salt, digest = stored.split("$")
    if not hmac.compare_digest(hmac.digest(bytes.fromhex(salt), password.encode(), "sha256"), bytes.fromhex(digest)):
        return Response(status_code=401)
    asked = dict(parse_qsl((await request.body()).decode()))
    device, called = asked.get("device"), asked.get("called")
    connection = await _connections.get()
    try:
        ids, number = [int(device)] if device else [], None if device else called
        rows = await connection[2].fetch(ids, number, _TECHNOLOGIES, asked["caller_number"], False)  # noqa: FBT003 - a parameter of SQL
    finally:
        _connections.put_nowait(connection)
    return Response(_decide(asked, rows, domain), headers={"x-request-id": request_id}, media_type="application/json")


def _decide(asked: dict[str, str], rows: list[Any], domain: str) -> str:
    state = asked.get("state", "before_call")
    start = next(row for row in rows if (str(row[1]) == asked["device"] if "device" in asked else row[0]))
    id_, call_id = start[1], asked["call_id"]
    number, name = asked["caller_number"], asked["caller_name"]
    flow = next((row for row in rows if row[1] == id_ and row[10] == state), None)
    answer = dict.fromkeys(_NAMES, "")
    answer |= {"caller_number": number, "caller_name": name, "privacy": "off", "leg": "1", "flow_id": call_id}
    answer["device"] = str(id_)
    routes: list[dict[str, Any]] = []
    if flow is None:
        answer["action"] = "none"
    elif flow[11] == "voicemail":
        answer |= {"action": "voicemail", "mailbox": start[3], "path": _marker(f"{id_}", asked)}
    else:
        at_number = flow[12] is None
        target = None if at_number else next(row for row in rows if row[1] == flow[12])
        to, seconds = (target[3], target[7]) if target else (flow[13], 60)
        shown_as = start[8][0] if at_number else start[3]
        uri, by = f"sip:{to}@{domain}", f"<sip:{shown_as}@{domain}"
        headers: dict[str, Any] = {}
        if flow[14] == "device":
            answer |= {"caller_number": start[5], "caller_name": start[6]}
            headers["from"] = {"display": f'"{start[6]}"', "uri": f"sip:{start[5]}@{domain}"}
        reason = _REASONS[state]
        diversion = f"{by}>;reason={reason};counter=1;privacy=off"
        history = f"{by}?Privacy=none>;index=1, <{uri};cause=302>;index=1.1;mp=1"
        headers["extra"] = f"Diversion: {diversion}\r\nHistory-Info: {history}\r\n"
        routes.append({"uri": uri, "fr_inv_timer": seconds * 1000, "headers": headers})
        at = "x" if at_number else flow[12]
        answer |= {"action": "forward", "dial": uri, "ring_seconds": str(seconds), "diversion": diversion}
        answer |= {"history_info": history, "reason": reason, "device": str(id_ if at_number else at)}
        answer |= {"payer": start[4], "payer_device": str(id_), "leg": "2", "path": _marker(f"{id_}u.{at}", asked)}
    return json.dumps({"version": "1.0", "routing": "serial", "routes": routes, **answer})


def _marker(way: str, asked: dict[str, str]) -> str:
    seconds, began = int(time.time()), ""
    while seconds:
        seconds, digit = divmod(seconds, 36)
        began = _DIGITS[digit] + began
    called = f".n{asked['called'].lstrip('+')}" if asked.get("called") else ""
    return f"{way}_{asked['call_id']}_t{began}{called}"


_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAMES: Final = (
    *("action", "dial", "ring_seconds", "fax_dial", "mailbox", "cause", "caller_number", "caller_name", "privacy"),
    *("reason", "device", "payer", "payer_device", "leg", "flow_id", "path", "diversion", "history_info", "explain"),
)


@asynccontextmanager
async def _lifespan(_: Starlette) -> AsyncIterator[None]:
    opened = [
        await asyncpg.connect(os.environ["BENCH_DATABASE_URL"], server_settings=PLANNING) for _ in range(_POOL_SIZE)
    ]
    for connection in opened:
        _connections.put_nowait(
            (await connection.prepare(_LOAD_FACTS), await connection.prepare(_SAVE), await connection.prepare(_FIND))
        )
    for user, stored, domain in await opened[0].fetch("SELECT username, password_hash, domain FROM switch_user"):
        _switch_users[user] = (stored, domain)
    yield
    for connection in opened:
        await connection.close()


app = Starlette(
    routes=[
        Route("/billing/api/device_callflow_update", update, methods=["POST"]),
        Route("/switch/kamailio", kamailio, methods=["POST"]),
    ],
    lifespan=_lifespan,
)
