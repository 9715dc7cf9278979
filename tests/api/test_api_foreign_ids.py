"""What belongs to somebody else looks like what is not there, on every call of the document and for every role.

The requests are made from the OpenAPI document, so a call that is new is among them by itself.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from api_answers import MakeToken
from callflow_service.domain.tokens import Scope
from own_demo import OwnDemo

ROLES: Final = {"user": 20, "another user": 21, "reseller": 10, "accountant": 12, "admin": 1}
MARK: Final = "Zorglub"
"""Stands in all that is the stranger's, and in no request."""

STRANGER: Final = "stranger"
NOBODY: Final = "nobody77"
ABSENT: Final = 7_000_222
FOREIGN: Final = 7_000_111

# By the names that addresses, queries and bodies have for it: what is there and the stranger's.
NAMES: Final = {"owner": STRANGER, "account": STRANGER, "username": STRANGER, "switch": STRANGER}
IDS: Final = {"device", "devices", "did", "account", "schedule", "not_schedule", "list", "not_list", "profile"}

STATES: Final = ("before_call", "no_answer", "busy", "failed")

STAGED: Final = {"accounts", "devices", "dids", "switches", "tokens"}
"""What is put there past the API."""

# Never ends, and has what `/v1/changes` has.
LEFT_OUT: Final = {"follow_changes"}

# What changes by itself: when a token was used, the place of a change in the feed, which its first reader gives it, and
# how far webhooks have been told.
BY_ITSELF: Final = {
    "token": {"last_used_at"},
    "callflow_history": {"position"},
    "change_feed": {"head"},
    "webhook_progress": {"position", "held_until", "holder"},
}

# All that has an id and an owner; each row is the stranger's.
STAGE: Final = f"""
INSERT INTO account (id, username, name, role, owner_id, pbx_addon, api_enabled, blocked)
VALUES ({FOREIGN}, '{STRANGER}', '{MARK}', 'user', 13, false, true, false);
INSERT INTO device (id, technology, name, owner_id, caller_number, caller_name, ring_seconds)
VALUES ({FOREIGN}, 'SIP', '{MARK}', {FOREIGN}, '', '{MARK}', 30);
INSERT INTO did (id, number, device_id) VALUES ({FOREIGN}, '{MARK}', {FOREIGN});
INSERT INTO switch_user (username, password_hash, domain, trust_headers, dial)
VALUES ('{STRANGER}', '{MARK}', '{MARK}', false, '{{}}');
INSERT INTO callflow (device_id, state, priority, action, target_number, caller_id, caller_id_text)
VALUES ({FOREIGN}, 'busy', 1, 'forward', '+37069999999', 'custom', '{MARK}');
INSERT INTO target_alert (device_id, number, reason, account_id, face)
VALUES ({FOREIGN}, '{MARK}', 'emergency', {FOREIGN}, 'json');
INSERT INTO token (id, account_id, name, scope, token_hash) OVERRIDING SYSTEM VALUE
VALUES ({FOREIGN}, {FOREIGN}, '{MARK}', 'write', '{MARK}');
INSERT INTO callflow_history (id, account_id, face, request_id, device_id, state, priority, before, after)
OVERRIDING SYSTEM VALUE
SELECT {FOREIGN}, {FOREIGN}, 'mor', '{MARK}', {FOREIGN}, 'busy', 1, NULL, to_jsonb(callflow) FROM callflow;
"""  # noqa: S608 - ours


@dataclass(frozen=True, slots=True)
class Sent:
    """A request, made twice: with what is the stranger's, and with what is not there."""

    operation: str
    method: str
    foreign: tuple[str, Any]
    absent: tuple[str, Any]


def requests(document: Mapping[str, Any]) -> Iterator[Sent]:
    """Every place of every call where something of somebody else can be named."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if path.startswith("/v1/") and operation["operationId"] not in LEFT_OUT:
                yield from in_addresses(path, method, operation)
                yield from in_bodies(path, method, operation)
                yield from in_queries(path, method, operation)


def in_addresses(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[Sent]:
    names = [name for name in re.findall("{([^}]+)}", path) if name != "state"]
    if not names:
        return
    texts = {name: name == "username" for name in names}
    own = {name: STRANGER if is_text else FOREIGN for name, is_text in texts.items()}
    other = {name: NOBODY if is_text else ABSENT for name, is_text in texts.items()}
    example = example_of(operation)
    queries = ["?cascade=true"] if any(each["name"] == "cascade" for each in operation.get("parameters", ())) else []
    for query in ["", *queries]:
        for state in STATES if "{state}" in path else ("",):
            for body in [None] if example is None else [example, {}, None]:
                foreign, absent = (path.format(state=state, **each) + query for each in (own, other))
                yield Sent(operation["operationId"], method, (foreign, body), (absent, body))


def in_bodies(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[Sent]:
    """Calls that may name the caller's own device, and something else besides."""
    own = path.replace("{device_id}", "4").replace("{state}", "no_answer")
    if "{" not in own:
        for foreign, absent in substituted(example_of(operation)):
            yield Sent(operation["operationId"], method, (own, foreign), (own, absent))


def in_queries(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[Sent]:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query" and "{" not in path:
            is_id = "integer" in json.dumps(parameter["schema"])
            for values in values_of(parameter["name"], ABSENT if is_id else ""):
                foreign, absent = (f"{path}?{parameter['name']}={value}" for value in values)
                yield Sent(operation["operationId"], method, (foreign, None), (absent, None))


def example_of(operation: Mapping[str, Any]) -> Any:
    contents = operation.get("requestBody", {"content": {}})["content"].values()
    return next((content.get("example") for content in contents), None)


async def stage(house: httpx.AsyncClient, document: Mapping[str, Any], demo: OwnDemo, admin: str) -> None:
    """Have the stranger own one of everything: what the document can add, of the example there."""
    await demo.database.execute(STAGE)
    headers = {"Authorization": f"Bearer {admin}"}
    for path, item in document["paths"].items():
        name = path.removeprefix("/v1/")
        is_one = any(other.startswith(f"{path}/{{") for other in document["paths"])
        if not is_one or "post" not in item or "{" in path or name in STAGED:
            continue
        sequences = "SELECT setval(oid, $1) FROM pg_class WHERE relkind = 'S' AND relname ~ $2"
        await demo.database.execute(sequences, FOREIGN - 1, f"^{name.removesuffix('s')}_id_seq$")
        content = item["post"]["requestBody"]["content"]["application/json"]
        fields = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]["properties"]
        own = {
            "id": FOREIGN,
            "owner": STRANGER,
            "name": MARK,
            "description": MARK,
            "account": STRANGER,
            "enabled": False,
        }
        body = strangers(content["example"]) | {name: value for name, value in own.items() if name in fields}
        added = await house.post(path, json=body, headers=headers)
        assert added.status_code == 201, added.text
        assert added.json()["id"] == FOREIGN


def substituted(body: Any) -> Iterator[tuple[Any, Any]]:
    """The body with one thing in it replaced by the stranger's, and by what is not there."""
    if isinstance(body, dict):
        for name, value in body.items():
            for foreign, absent in [*values_of(name, value), *substituted(value)]:
                yield body | {name: foreign}, body | {name: absent}
    elif isinstance(body, list):
        for place, value in enumerate(body):
            for foreign, absent in substituted(value):
                yield [*body[:place], foreign, *body[place + 1 :]], [*body[:place], absent, *body[place + 1 :]]


def strangers(body: Any) -> Any:
    """The body with the stranger's things in every place of it."""
    if isinstance(body, dict):
        return {
            name: next((foreign for foreign, _ in values_of(name, value)), None) or strangers(value)
            for name, value in body.items()
        }
    return [strangers(each) for each in body] if isinstance(body, list) else body


def values_of(name: str, value: Any) -> Iterator[tuple[Any, Any]]:
    if name in NAMES and not isinstance(value, int | dict | list):
        yield NAMES[name], NOBODY
    if name in IDS and not isinstance(value, str | dict):
        yield ([FOREIGN], [ABSENT]) if isinstance(value, list) else (FOREIGN, ABSENT)


def told(response: httpx.Response) -> tuple[int, str]:
    """An answer without what tells one request from another, and what it was about."""
    text = re.sub(r'"instance": "[^"]+"', "", response.text)
    for name in (STRANGER, NOBODY, str(FOREIGN), str(ABSENT)):
        text = text.replace(name, "IT")
    return response.status_code, text


async def stored(demo: OwnDemo) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    tables = await demo.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    rows: dict[str, list[dict[str, Any]]] = {}
    for (table,) in tables:
        found = await demo.database.fetch(f"SELECT to_jsonb(stored) FROM {table} AS stored ORDER BY to_jsonb(stored)")  # noqa: S608 - ours
        left_out = BY_ITSELF.get(table, set())
        rows[table] = sorted(
            ({name: value for name, value in json.loads(row[0]).items() if name not in left_out} for row in found),
            key=str,
        )
    return rows


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("role", [role for role in ROLES if role != "admin"])
async def test_what_is_somebody_else_s_looks_like_what_is_not_there(
    house: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo, role: str, scope: Scope
) -> None:
    document = (await house.get("/openapi.json")).json()
    await stage(house, document, demo, await make_token())
    headers = {"Authorization": f"Bearer {await make_token(ROLES[role], scope)}"}
    before = await stored(demo)
    sent = 0
    for request in requests(document):
        answers = [
            await house.request(request.method, path, json=body, headers=headers)
            for path, body in (request.foreign, request.absent)
        ]
        sent += len(answers)
        assert told(answers[0]) == told(answers[1]), request
        assert MARK not in answers[0].text, request
        if f"/{FOREIGN}" in request.foreign[0]:
            assert answers[0].status_code in {403, 404, 422}, request
    assert await stored(demo) == before
    # A thousand and more, together.
    assert sent >= 130


async def test_what_is_there_is_there(house: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo) -> None:
    """To an admin, so that the requests above ask for something."""
    document = (await house.get("/openapi.json")).json()
    await stage(house, document, demo, token := await make_token())
    for request in requests(document):
        if request.method == "get":
            response = await house.get(request.foreign[0], headers={"Authorization": f"Bearer {token}"})
            assert response.status_code == 200, request


async def test_every_list_leaves_out_what_is_somebody_else_s(
    house: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo
) -> None:
    document = (await house.get("/openapi.json")).json()
    await stage(house, document, demo, await make_token())
    lists = [
        path
        for path, item in document["paths"].items()
        if path.startswith("/v1/") and "{" not in path and "get" in item and item["get"]["operationId"] not in LEFT_OUT
    ]
    for role, account in ROLES.items():
        headers = {"Authorization": f"Bearer {await make_token(account)}"}
        for path in lists:
            response = await house.get(f"{path}?limit=1000", headers=headers)
            assert response.status_code == (403 if path == "/v1/switches" and role != "admin" else 200), path
            assert (MARK in response.text) == (role == "admin"), (role, path)
