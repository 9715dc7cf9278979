"""Questions of the four switches and what answers them, written down apart from the code under test."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import asyncpg
import httpx
from pydantic import SecretStr

from callflow_service.credentials.switch_passwords import hash_switch_password
from callflow_service.settings import driver_url

NAMES = (
    "action",
    "dial",
    "ring_seconds",
    "fax_dial",
    "mailbox",
    "cause",
    "caller_number",
    "caller_name",
    "privacy",
    "reason",
    "device",
    "payer",
    "payer_device",
    "leg",
    "flow_id",
    "path",
    "diversion",
    "history_info",
    "explain",
)
SWITCH = ("switch", "switch-secret")
"""The demo's switch user; its domain is 127.0.0.1."""

FLAT_FACES = ("asterisk", "kamailio", "opensips")
FACES = ("freeswitch", *FLAT_FACES)

ALICE = {"caller_number": "37061111111", "caller_name": "Alice", "call_id": "c1"}
NONE = dict.fromkeys(NAMES, "") | {"action": "none"}
"""The flat answer where there is nothing to say: carry on."""

FREESWITCH_REQUEST = dict(
    parse_qsl((Path(__file__).parents[1] / "switch" / "freeswitch_request.txt").read_text(), keep_blank_values=True)
)
"""A dialplan request as FreeSWITCH sent it, every variable of it."""

NOT_FOUND = b"""\
<?xml version="1.0" encoding="UTF-8"?>
<document type="freeswitch/xml">
	<section name="result">
		<result status="not found"/>
	</section>
</document>"""

KNOWN_APPLICATIONS = {
    "answer",
    "bridge",
    "hangup",
    "log",
    "multiunset",
    "redirect",
    "set",
    "sleep",
    "spandsp_start_fax_detect",
    "transfer",
    "voicemail",
}

Actions = list[tuple[str, str]]
StartService = Callable[..., Awaitable[httpx.AsyncClient]]
Api = Callable[..., Awaitable[Any]]


def answered(action: str, **values: str) -> dict[str, str]:
    """The flat answer to a call of Alice's, nothing in it but what is said here."""
    alice = {"caller_number": "37061111111", "caller_name": "Alice", "privacy": "off", "leg": "1", "flow_id": "c1"}
    return dict.fromkeys(NAMES, "") | {"action": action} | alice | values


async def ask(
    service: httpx.AsyncClient, face: str = "opensips", *, user: tuple[str, str] = SWITCH, **question: str
) -> dict[str, str]:
    """The flat answer to a question about a call of Alice's."""
    body = json.dumps({**ALICE, **question})
    headers = {"content-type": "application/json"}
    response = await service.post(f"/switch/{face}", content=body, headers=headers, auth=user)
    assert response.status_code == 200, response.text
    return flat(face, response)


def flat(face: str, response: httpx.Response) -> dict[str, str]:
    """The shared names of an answer; checks that it is what the face promises to write."""
    if face == "asterisk":
        assert response.headers["content-type"] == "application/x-www-form-urlencoded"
        pairs = parse_qsl(response.text, keep_blank_values=True, strict_parsing=True)
        assert tuple(name for name, _ in pairs) == NAMES
        return {name: without_details(value) if name == "path" else value for name, value in pairs}
    assert response.headers["content-type"] == "application/json"
    assert b"\n" not in response.content
    document = response.json()
    if face == "kamailio":
        assert list(document) == ["version", "routing", "routes", *NAMES]
        assert (document.pop("version"), document.pop("routing")) == ("1.0", "serial")
        document.pop("routes")
    assert tuple(document) == NAMES
    assert all(isinstance(value, str) for value in document.values())
    return dict(document) | {"path": without_details(document["path"])}


def without_details(text: str) -> str:
    """A text without the details of its marker: the time of the call is another one in each test."""
    return re.sub(r"(_[A-Za-z0-9.-]+)_t[0-9a-z]{6}[0-9a-z.-]*$", r"\1", text)


async def ask_freeswitch(
    service: httpx.AsyncClient, destination: str, *, user: tuple[str, str] = SWITCH, **changes: str
) -> Actions | None:
    """What FreeSWITCH would do with a call that goes to `destination`; None where it looks further."""
    request = freeswitch_request(destination, **changes)
    response = await service.post("/switch/freeswitch", data=request, auth=user)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/xml; charset=utf-8"
    return read_dialplan(response.content, context=request["Hunt-Context"])


def freeswitch_request(destination: str, **changes: str) -> dict[str, str]:
    """The real request, to another destination, of Alice's call c1 that nobody diverted."""
    request = FREESWITCH_REQUEST | {
        "Hunt-Destination-Number": destination,
        "Caller-Destination-Number": destination,
        "variable_sip_call_id": "c1",
    }
    for name in ("variable_sip_h_Diversion", "variable_sip_history_info"):
        request.pop(name)
    return request | changes


def read_dialplan(body: bytes, *, context: str) -> Actions | None:
    """The actions of an answer, by the rules of FreeSWITCH's own reader; None where it says "not found"."""
    declaration, newline, rest = body.partition(b"\n")
    assert declaration.startswith(b"<?xml "), "the declaration comes first"
    assert declaration.endswith(b"?>"), "and has a line of its own"
    assert newline
    assert b"<?" not in rest
    document = ET.fromstring(body)  # noqa: S314 - our own answer
    assert (document.tag, document.attrib) == ("document", {"type": "freeswitch/xml"})
    (section,) = document
    if section.attrib == {"name": "result"}:
        assert body == NOT_FOUND
        return None
    assert (section.tag, section.attrib) == ("section", {"name": "dialplan"})
    (context_element,) = section
    assert (context_element.tag, context_element.attrib) == ("context", {"name": context})
    (extension,) = context_element
    assert (extension.tag, extension.attrib) == ("extension", {"name": "callflow"})
    (condition,) = extension
    assert (condition.tag, condition.attrib) == ("condition", {})
    for action in condition:
        assert action.tag == "action"
        assert set(action.attrib) == {"application", "data"}
        assert not list(action)
        assert action.attrib["application"] in KNOWN_APPLICATIONS
    for element in document.iter():
        assert not (element.text or "").strip()
        assert not (element.tail or "").strip()
    return [(action.attrib["application"], without_details(action.attrib["data"])) for action in condition]


def variables(actions: Actions) -> dict[str, str]:
    """The channel variables that the actions leave set."""
    values: dict[str, str] = {}
    for application, data in actions:
        if application == "set":
            name, _, value = data.partition("=")
            values[name] = value
        elif application == "multiunset":
            for name in data.split():
                values.pop(name, None)
    return values


def leg(actions: Actions) -> tuple[dict[str, str], str]:
    """The variables that FreeSWITCH would give to the leg, and whom it would dial."""
    (data,) = [data for application, data in actions if application == "bridge"]
    found = re.fullmatch(r"\{\^\^!([^{}]*)\}(.*)", data)
    assert found, data
    return dict(pair.split("=", 1) for pair in found[1].split("!")), found[2]


def explained(actions: Actions) -> str:
    """Why, of the line that goes to FreeSWITCH's log."""
    application, data = actions[0]
    assert application == "log"
    found = re.fullmatch(r"INFO callflow [A-Za-z0-9.-]+: (.*)", data)
    assert found, data
    return found[1]


@dataclass(frozen=True, slots=True)
class Flows:
    """Set call flows by SQL, past every check of the MOR call."""

    connection: asyncpg.Connection

    async def set(
        self,
        device: int,
        state: str,
        action: str,
        *,
        target: int | None = None,
        number: str | None = None,
        caller_id: str | None = None,
        did: int | None = None,
        text: str | None = None,
    ) -> None:
        await self.connection.execute(
            """INSERT INTO callflow (device_id, state, priority, action, target_device_id, target_number, caller_id,
                caller_id_did_id, caller_id_text) VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8)
            ON CONFLICT (device_id, state, priority) DO UPDATE SET action = excluded.action,
                target_device_id = excluded.target_device_id, target_number = excluded.target_number,
                caller_id = excluded.caller_id, caller_id_did_id = excluded.caller_id_did_id,
                caller_id_text = excluded.caller_id_text""",
            device,
            state,
            action,
            target,
            number,
            caller_id,
            did,
            text,
        )

    async def forward(
        self,
        device: int,
        state: str = "before_call",
        *,
        to: int | str,
        caller_id: str = "source",
        did: int | None = None,
        text: str | None = None,
    ) -> None:
        """Forward to a device or to a number; the caller ID stays as it comes where nothing else is said."""
        target, number = (to, None) if isinstance(to, int) else (None, to)
        await self.set(device, state, "forward", target=target, number=number, caller_id=caller_id, did=did, text=text)


async def connect(url: SecretStr) -> asyncpg.Connection:
    return await asyncpg.connect(driver_url(url).set(drivername="postgresql").render_as_string(hide_password=False))


async def add_switch(
    connection: asyncpg.Connection,
    username: str,
    password: str = SWITCH[1],
    *,
    trust_headers: bool = True,
    dial: str = "{}",
    trunk: str | None = None,
) -> None:
    """A switch user of the domain `pbx.example`; one that is there gets another password."""
    await connection.execute(
        """INSERT INTO switch_user (username, password_hash, domain, trust_headers, dial, trunk)
        VALUES ($1, $2, 'pbx.example', $3, $4, $5)
        ON CONFLICT (username) DO UPDATE SET password_hash = excluded.password_hash""",
        username,
        hash_switch_password(password),
        trust_headers,
        dial,
        trunk,
    )
