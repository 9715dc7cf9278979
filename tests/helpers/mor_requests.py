"""Requests of MOR's two calls and the pages that answer them, written down apart from the code under test."""

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha1
from xml.sax.saxutils import escape

import httpx

StartService = Callable[..., Awaitable[httpx.AsyncClient]]
Answer = tuple[int, str, str]

UPDATE = "/billing/api/device_callflow_update"
GET = "/billing/api/device_callflow_get"
ADMIN_KEY = "456789"
ORDER = (
    "device_id",
    "callflow_action",
    "state",
    "forward_to_device",
    "external_number",
    "fax_device",
    "voicemail",
    "device_callerid",
    "src_callerid",
    "did_id",
    "custom",
)
GOOD = {
    "u": "admin",
    "device_id": "4",
    "callflow_action": "forward",
    "state": "before_call",
    "forward_to_device": "5",
}
"""An update that succeeds: device 4 forwards to device 5 before the call."""

ERRORS = {
    1: "API Requests are disabled",
    2: "GET Requests are disabled",
    3: "Bad login",
    4: "Incorrect hash",
    5: "You are not authorised to use this functionality",
    6: "Device was not found",
    7: "Callflow state was not found",
    8: "Callflow action was not found",
    9: "Missing forward parameters",
    10: "Local device was not found",
    11: "External number was not found",
    12: "FAX device was not found",
    13: "DID was not found",
}
GET_ERRORS = {number: ERRORS[number] for number in range(1, 7)} | {3: "User was not found"}

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


def sha1_hex(text: str, key: str = ADMIN_KEY, *, encoding: str = "utf-8") -> str:
    return sha1((text + key).encode(encoding), usedforsecurity=False).hexdigest()


def with_changes(values: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """The values with some replaced or added, and those left out that are None."""
    return {name: value for name, value in {**values, **changes}.items() if value is not None}


def signed(values: Mapping[str, str], key: str = ADMIN_KEY) -> dict[str, str]:
    """The values with the hash over all of them in the order of MOR's documentation."""
    return {**values, "hash": sha1_hex("".join(values.get(name, "") for name in ORDER), key)}


def update(key: str = ADMIN_KEY, **changes: str | None) -> dict[str, str]:
    """The good update with changes, signed."""
    return signed(with_changes(GOOD, changes), key)


def get(device_id: str = "4", *, u: str = "admin", key: str = ADMIN_KEY) -> dict[str, str]:
    return {"u": u, "device_id": device_id, "hash": sha1_hex(device_id, key)}


def answer(response: httpx.Response) -> Answer:
    """All of a response that a client goes by."""
    return response.status_code, response.headers["content-type"], response.content.decode()


def page(text: str, status: int = 200) -> Answer:
    return status, "application/xml; charset=utf-8", text


def refused(text: str, status: int = 200) -> Answer:
    return page(f"{_DECLARATION}<page>\n  <status>\n    <error>{text}</error>\n  </status>\n</page>\n", status)


def updated(
    *,
    user: str = "Test User #1",
    device: str = "IAX2/1002",
    state: str = "Before call",
    action: str = "Forward",
    data: str = "IAX2/101",
    callerid_type: str = "From Device",
    callerid_data: str = "",
) -> Answer:
    return page(
        f"{_DECLARATION}<page>\n"
        "  <status>Callflow was successfully updated</status>\n"
        f"  {_element('user', user)}\n"
        f"  {_element('device', device)}\n"
        "  <callflow>\n"
        f"    {_element('state', state)}\n"
        "    <priority>1</priority>\n"
        f"    {_element('action', action)}\n"
        f"    {_element('data', data)}\n"
        f"    {_element('callerid_type', callerid_type)}\n"
        f"    {_element('callerid_data', callerid_data)}\n"
        "  </callflow>\n"
        "</page>\n"
    )


def got(
    *, user: str = "Test User #1", device: str = "IAX2/1002", ring: int = 60, **rows: tuple[str, str, str, str, str]
) -> Answer:
    """The page of a get; each row given is action, data, data2, data3 and data4."""
    untouched = ("", "", "", "1", "")
    all_rows = [
        ("Before call", *rows.get("before_call", untouched)),
        ("Call", "Dial", f"{device}|{ring}", "", "1", ""),
        ("Answered", "Hangup", "", "", "1", ""),
        ("No answer", *rows.get("no_answer", untouched)),
        ("Busy", *rows.get("busy", untouched)),
        ("Failed", *rows.get("failed", untouched)),
    ]
    return page(
        f"{_DECLARATION}<page>\n  {_element('user', user)}\n  {_element('device', device)}\n"
        + "".join(_row(*row) for row in all_rows)
        + "</page>\n"
    )


def _row(state: str, action: str, *data: str) -> str:
    columns = {"state": state, "priority": "1", "action": action}
    columns |= dict(zip(("data", "data2", "data3", "data4", "data5"), (*data, ""), strict=True))
    elements = "".join(f"    {_element(name, text)}\n" for name, text in columns.items())
    return f"  <callflow>\n{elements}  </callflow>\n"


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>" if text else f"<{name}/>"
