"""Which hashes each account may send."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlencode

import asyncpg
import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from mor_requests import (
    ADMIN_KEY,
    ERRORS,
    GET,
    GET_ERRORS,
    GOOD,
    UPDATE,
    StartService,
    answer,
    get,
    got,
    refused,
    sha1_hex,
    update,
    updated,
    with_changes,
)

pytestmark = pytest.mark.usefixtures("untouched")

WRONG = refused("Incorrect hash")


async def send(service: httpx.AsyncClient, values: Mapping[str, str], signed_string: str, key: str = ADMIN_KEY) -> str:
    """The error text of an update with its values in the order given, `updated` where there is none."""
    response = await service.post(UPDATE, data={**values, "hash": sha1_hex(signed_string, key)})
    if answer(response) == WRONG:
        return "Incorrect hash"
    assert response.text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<page>\n  <status>Callflow was')
    return "updated"


ALL = {
    "device_id": "4",
    "callflow_action": "forward",
    "state": "busy",
    "forward_to_device": "5",
    "external_number": "+370",
    "fax_device": "2",
    "voicemail": "v",
    "device_callerid": "False",
    "src_callerid": "no",
    "did_id": "1",
    "custom": "Me",
}
STATE_FIRST = "4busyforward5+3702vFalseno1Me"


@pytest.mark.parametrize(
    "string",
    [
        pytest.param("4forwardbusy5+3702vFalseno1Me", id="the documented order"),
        pytest.param(STATE_FIRST, id="the state first"),
    ],
)
@pytest.mark.parametrize("order", [list(ALL), list(reversed(ALL))], ids=["in order", "reversed"])
async def test_every_parameter_is_signed_whatever_its_place_in_the_request(
    demo_service: httpx.AsyncClient, order: list[str], string: str
) -> None:
    values = {"u": "admin"} | {name: ALL[name] for name in order}
    assert await send(demo_service, values, string) == "updated"


@pytest.mark.parametrize("left_out", [name for name in ALL if name not in {"device_id", "callflow_action", "state"}])
async def test_a_parameter_that_was_not_sent_is_not_signed(demo_service: httpx.AsyncClient, left_out: str) -> None:
    values = {"u": "admin"} | {name: value for name, value in ALL.items() if name != left_out}
    assert await send(demo_service, values, "".join(values.values()).removeprefix("admin")) == "updated"
    assert await send(demo_service, values, STATE_FIRST) == "Incorrect hash"


@pytest.mark.parametrize("name", ALL)
async def test_every_parameter_that_was_sent_must_be_signed(demo_service: httpx.AsyncClient, name: str) -> None:
    string = "".join(value for other, value in ALL.items() if other != name)
    assert await send(demo_service, {"u": "admin", **ALL}, string) == "Incorrect hash"


@pytest.mark.parametrize("name", ALL)
async def test_a_value_that_was_changed_on_its_way_is_refused(demo_service: httpx.AsyncClient, name: str) -> None:
    values = {"u": "admin", **ALL, name: ALL[name] + "0"}
    assert await send(demo_service, values, "".join(ALL.values())) == "Incorrect hash"


async def test_the_order_of_the_request_may_be_signed_where_the_device_comes_first(
    demo_service: httpx.AsyncClient,
) -> None:
    for string in ("4", "4before_call5forward"):
        values = {"device_id": "4", "state": "before_call", "forward_to_device": "5", "callflow_action": "forward"}
        expected = "updated" if string == "".join(values.values()) else "Incorrect hash"
        assert await send(demo_service, {"u": "admin", **values}, string) == expected
        assert await send(demo_service, {**values, "u": "admin", "test": "1"}, string) == expected


async def test_the_order_of_the_request_may_not_be_signed_where_another_value_comes_first(
    demo_service: httpx.AsyncClient,
) -> None:
    values = {"state": "before_call", "device_id": "4", "forward_to_device": "5", "callflow_action": "forward"}
    assert await send(demo_service, {"u": "admin", **values}, "".join(values.values())) == "Incorrect hash"


async def test_the_order_of_the_request_is_the_query_then_the_body_with_the_last_of_a_name_where_it_stood(
    demo_service: httpx.AsyncClient,
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    forward = "forward_to_device=5&callflow_action=forward"
    for query, body, string in [
        ("device_id=4&state=busy", forward, "4busy5forward"),
        ("device_id=4&state=busy&custom=x", f"state=failed&{forward}", "4xfailed5forward"),
        ("device_id=4&forward_to_device=2&state=busy&forward_to_device=5&action=forward", "", "4busy5forward"),
    ]:
        content = f"{body}&hash={sha1_hex(string)}"
        response = await demo_service.post(f"{UPDATE}?u=admin&{query}", content=content, headers=headers)
        assert "Callflow was successfully updated" in response.text
    query = "u=admin&device_id=9&state=busy"
    content = f"forward_to_device=5&device_id=4&callflow_action=forward&hash={sha1_hex('busy54forward')}"
    assert answer(await demo_service.post(f"{UPDATE}?{query}", content=content, headers=headers)) == WRONG


async def test_one_hash_does_not_fit_a_second_request_with_the_values_swapped(demo_service: httpx.AsyncClient) -> None:
    string = "4forwardbusy5"
    seen = {"u": "admin", "device_id": "4", "callflow_action": "forward", "state": "busy", "forward_to_device": "5"}
    forged = {"u": "admin", "forward_to_device": "4", "callflow_action": "forward", "state": "busy", "device_id": "5"}
    assert await send(demo_service, seen, string) == "updated"
    assert await send(demo_service, forged, string) == "Incorrect hash"


@pytest.mark.parametrize(
    ("sent", "string"),
    [
        ({"device_id": "4", "action": "forward", "state": "busy", "forward_to_device": "5"}, "4forwardbusy5"),
        ({"device_id": "4", "state": "busy", "foward_to_device": "5", "action": "forward"}, "4forwardbusy5"),
        ({"device_id": "4", "state": "busy", "foward_to_device": "5", "action": "forward"}, "4busyforward5"),
        ({"device_id": "4", "state": "busy", "foward_to_device": "5", "action": "forward"}, "4busy5forward"),
        ({**ALL, "action": "nothing", "foward_to_device": "9"}, "".join(ALL.values())),
        ({"action": "nothing", "foward_to_device": "9", **ALL}, "".join(ALL.values())),
        ({**ALL, "callflow_action": "", "action": "forward"}, "".join(ALL.values())),
    ],
)
async def test_an_alias_is_signed_in_the_place_of_its_name_where_the_name_did_not_come(
    demo_service: httpx.AsyncClient, sent: dict[str, str], string: str
) -> None:
    assert await send(demo_service, {"u": "admin", **sent}, string) == "updated"


@pytest.mark.parametrize("unsigned", ["u", "p", "hash", "test", "API_Secret_Key", "anything"])
async def test_what_is_not_in_the_table_is_not_signed(demo_service: httpx.AsyncClient, unsigned: str) -> None:
    values = {"test": "1", "API_Secret_Key": ADMIN_KEY, "anything": "x", "p": "admin1", **GOOD}
    assert await send(demo_service, values, "4forwardbefore_call5") == "updated"
    value = {**values, "hash": "x"}[unsigned]
    assert await send(demo_service, values, f"4forwardbefore_call5{value}") == "Incorrect hash"


@pytest.mark.parametrize("call", [UPDATE, GET])
async def test_a_hash_may_be_in_upper_case_but_must_be_there_and_whole(
    demo_service: httpx.AsyncClient, call: str
) -> None:
    values, right = (update(), updated()) if call == UPDATE else (get(), got())
    good = values["hash"]
    for sent, expected in (
        (good.upper(), right),
        (good[:20].upper() + good[20:], right),
        (good[:-1], WRONG),
        (good + "0", WRONG),
        (f" {good}", WRONG),
        ("", WRONG),
        (None, WRONG),
        ("é" * 40, WRONG),
        (sha1_hex("", ""), WRONG),
    ):
        assert answer(await demo_service.post(call, data=with_changes(values, {"hash": sent}))) == expected


@pytest.mark.parametrize(
    ("device", "hash_"),
    [
        ("100", "71516eea4850f7e0300ac86adf9fb64bca845aa7"),
        ("5", "65fd575c441513bd114b84c7dbdb01e0f2716d27"),
    ],
)
async def test_the_documented_hashes_of_a_get_are_right(
    demo_service: httpx.AsyncClient, device: str, hash_: str
) -> None:
    response = await demo_service.post(GET, data={"u": "admin", "device_id": device, "hash": hash_})
    assert answer(response) == got(device={"100": "SIP/101", "5": "IAX2/101"}[device])


async def test_a_get_is_signed_over_the_device_as_it_was_sent_and_nothing_else(demo_service: httpx.AsyncClient) -> None:
    assert answer(await demo_service.post(GET, data={**get("0004"), "state": "busy"})) == got()
    assert answer(await demo_service.post(GET, data={**get("4"), "device_id": "04"})) == WRONG


@pytest.mark.parametrize("custom", ["Jānis", "é", "naïve ÿ", "\x00\x01", "\ud800", "😀"])
async def test_any_text_can_be_signed_as_it_was_sent(demo_service: httpx.AsyncClient, custom: str) -> None:
    string = f"4forwardbefore_call5{custom}{ADMIN_KEY}".encode("utf-8", "surrogatepass")
    values = {**GOOD, "custom": custom, "hash": sha1_hex("", string.decode("latin-1"), encoding="latin-1")}
    response = await demo_service.post(UPDATE, content=json.dumps(values), headers={"Content-Type": "application/json"})
    assert "Callflow was successfully updated" in response.text


@pytest.mark.parametrize("sent_as", ["utf-8", "latin-1"])
@pytest.mark.parametrize("signed_as", ["utf-8", "latin-1"])
async def test_a_text_may_be_sent_and_signed_as_utf8_or_latin1(
    demo_service: httpx.AsyncClient, sent_as: str, signed_as: str
) -> None:
    hash_ = sha1_hex("4forwardbefore_call5Zoë", encoding=signed_as)
    content = urlencode({**GOOD, "custom": "Zoë", "hash": hash_}, encoding=sent_as)
    response = await demo_service.post(f"{UPDATE}?{content}")
    assert answer(response) == updated(callerid_type="Custom", callerid_data="Zoë")


@pytest.mark.parametrize("name", ["device_callerid", "src_callerid", "custom"])
@pytest.mark.parametrize(("signed_as", "expected"), [("true", "updated"), ("1", "updated"), ("True", "Incorrect hash")])
async def test_a_true_of_json_is_signed_as_true_or_as_php_writes_it(
    demo_service: httpx.AsyncClient, name: str, signed_as: str, expected: str
) -> None:
    body = {**GOOD, name: True, "hash": sha1_hex(f"4forwardbefore_call5{signed_as}")}
    response = await demo_service.post(UPDATE, json=body)
    assert ("Callflow was successfully updated" in response.text) == (expected == "updated")


@pytest.mark.parametrize(("signed_as", "expected"), [("false", 200), ("", 200), ("0", 0)])
async def test_a_false_of_json_sets_nothing_and_is_signed_as_false_or_as_php_writes_it(
    demo_service: httpx.AsyncClient, signed_as: str, expected: int
) -> None:
    signature = sha1_hex(f"4forwardbefore_call5{signed_as}{signed_as}")
    values = {**GOOD, "device_callerid": False, "did_id": False, "hash": signature}
    response = await demo_service.post(UPDATE, json=values)
    assert answer(response) == (updated() if expected else refused("Incorrect hash"))


async def test_a_true_in_a_form_is_signed_as_sent(demo_service: httpx.AsyncClient) -> None:
    values = {**GOOD, "src_callerid": "true"}
    assert await send(demo_service, values, "4forwardbefore_call5true") == "updated"
    assert await send(demo_service, values, "4forwardbefore_call51") == "Incorrect hash"


FIELD = [
    pytest.param("4", id="the device alone"),
    pytest.param("4before_callforward", id="the device, the state and the action"),
]


@pytest.mark.parametrize("string", FIELD)
async def test_a_compat_account_may_leave_the_target_out(demo_service: httpx.AsyncClient, string: str) -> None:
    values = {**GOOD, "u": "legacy", "device_id": "400", "forward_to_device": "400"}
    assert await send(demo_service, values, string.replace("4", "400", 1), "legacy-secret") == "updated"
    assert await send(demo_service, values, "400forwardbefore_call400", "legacy-secret") == "updated"
    assert await send(demo_service, values, "400before_call", "legacy-secret") == "Incorrect hash"
    assert await send(demo_service, values, string, "legacy-secret") == "Incorrect hash"


@pytest.mark.parametrize("string", FIELD)
async def test_a_strict_account_may_not_and_the_operator_is_told(
    demo_service: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, string: str
) -> None:
    assert await send(demo_service, GOOD, string) == "Incorrect hash"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == (
        "Account 'admin' signs only part of its requests; they pass only where its hash_policy is 'compat'"
    )


@pytest.mark.parametrize("username", ["admin", "legacy"])
async def test_a_hash_that_no_policy_takes_is_not_worth_a_word(
    demo_service: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, username: str
) -> None:
    assert await send(demo_service, {**GOOD, "u": username}, "4", "another key") == "Incorrect hash"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_the_setting_decides_for_accounts_without_a_policy(
    start_service: StartService, demo_url: SecretStr
) -> None:
    compat = await start_service(demo_url, hash_policy="compat")
    assert await send(compat, GOOD, "4") == "updated"
    off = await start_service(demo_url, hash_policy="off")
    unsigned = {**GOOD, "p": "admin1"}
    assert answer(await off.post(UPDATE, data=unsigned)) == updated()
    assert answer(await off.post(UPDATE, data=GOOD)) == refused(ERRORS[3])
    assert answer(await off.post(UPDATE, data=update(u="user1", p="any"))) == refused(ERRORS[3])
    legacy = {**GOOD, "u": "legacy", "device_id": "400", "forward_to_device": "400"}
    assert await send(off, legacy, "400", "legacy-secret") == "updated"


@pytest.mark.parametrize("call", [UPDATE, GET])
async def test_an_account_without_hash_checking_needs_its_password(demo_service: httpx.AsyncClient, call: str) -> None:
    values = {"u": "open", "device_id": "410"}
    page = got(user="Open Reseller", device="SIP/4101")
    if call == UPDATE:
        values = {**GOOD, **values, "forward_to_device": "410"}
        page = updated(user="Open Reseller", device="SIP/4101", data="SIP/4101")
    failed = refused((ERRORS if call == UPDATE else GET_ERRORS)[3])
    key = "open-secret"
    right_hash = {"hash": sha1_hex("410" if call == GET else "410forwardbefore_call410", key)}
    for more, expected in (
        ({"p": "open-sesame"}, page),
        ({"p": "open-sesame", "hash": "wrong"}, page),
        ({"p": "wrong"}, failed),
        ({"p": ""}, failed),
        ({}, failed),
        (right_hash, failed),
    ):
        assert answer(await demo_service.post(call, data={**values, **more})) == expected


@pytest.mark.parametrize(
    ("username", "device", "right", "wrong"),
    [
        ("user1", "4", ADMIN_KEY, "reseller-secret"),
        ("user2", "200", "reseller-secret", ADMIN_KEY),
        ("user3", "300", "basic-secret", ADMIN_KEY),
        ("legacy", "400", "legacy-secret", ADMIN_KEY),
    ],
)
async def test_the_nearest_key_up_the_owners_counts(
    demo_service: httpx.AsyncClient, username: str, device: str, right: str, wrong: str
) -> None:
    values = {**GOOD, "u": username, "device_id": device, "forward_to_device": device}
    string = f"{device}forwardbefore_call{device}"
    assert await send(demo_service, values, string, right) == "updated"
    assert await send(demo_service, values, string, wrong) == "Incorrect hash"


@pytest_asyncio.fixture
async def set_keys(demo_database: asyncpg.Connection) -> AsyncIterator[None]:
    """The reseller of user2 has no key of its own; where `admin` is set, its owner has none either."""
    await demo_database.execute("UPDATE account SET api_key = NULL WHERE username = 'reseller'")
    yield
    await demo_database.execute("UPDATE account SET api_key = 'reseller-secret' WHERE username = 'reseller'")
    await demo_database.execute("UPDATE account SET api_key = $1 WHERE username = 'admin'", ADMIN_KEY)


@pytest.mark.usefixtures("set_keys")
async def test_a_key_is_inherited_over_two_owners_and_where_there_is_none_every_hash_is_wrong(
    demo_service: httpx.AsyncClient, demo_database: asyncpg.Connection
) -> None:
    page = got(user="Test User #2", device="SIP/2001", ring=30)
    assert answer(await demo_service.post(GET, data=get("200", u="user2", key=ADMIN_KEY))) == page
    await demo_database.execute("UPDATE account SET api_key = NULL WHERE username = 'admin'")
    for key in (ADMIN_KEY, ""):
        for username in ("user2", "reseller", "admin"):
            assert answer(await demo_service.post(GET, data=get("200", u=username, key=key))) == WRONG
            values = update(key, u=username, device_id="200", forward_to_device="200")
            assert answer(await demo_service.post(UPDATE, data=values)) == WRONG


@pytest.mark.usefixtures("set_keys")
async def test_an_empty_key_is_no_key(demo_service: httpx.AsyncClient, demo_database: asyncpg.Connection) -> None:
    await demo_database.execute("UPDATE account SET api_key = '' WHERE username = 'admin'")
    assert answer(await demo_service.post(GET, data=get(key=""))) == WRONG


@pytest.mark.parametrize(
    ("custom", "arrives"),
    [("+37060000001", " 37060000001"), ('"Acme" <+370>', '"Acme" < 370>'), ('"Acme" +370', '"Acme"  370')],
)
async def test_a_custom_whose_plus_was_not_escaped_is_stored_as_it_was_signed(
    demo_service: httpx.AsyncClient, custom: str, arrives: str
) -> None:
    values = {"u": "admin", "device_id": "4", "callflow_action": "forward", "state": "busy", "forward_to_device": "5"}
    for meant in (custom, arrives):
        string = f"4forwardbusy5{meant}"
        response = await demo_service.post(
            UPDATE, data={**values, "custom": arrives, "hash": sha1_hex(string, ADMIN_KEY)}
        )
        assert answer(response) == updated(
            callerid_type="Custom", callerid_data=meant, state="Busy", action="Forward", data="IAX2/101"
        )
    assert await send(demo_service, {**values, "custom": arrives}, "4forwardbusy5+") == "Incorrect hash"


@pytest.mark.parametrize("name", ["device_callerid", "src_callerid", "voicemail"])
async def test_false_that_came_as_0_may_be_signed_as_nothing(demo_service: httpx.AsyncClient, name: str) -> None:
    values = {"u": "admin", "device_id": "4", "callflow_action": "empty", "state": "busy", name: "0"}
    assert await send(demo_service, values, "4emptybusy") == "updated"
    assert await send(demo_service, values, "4emptybusy0") == "updated"
    assert await send(demo_service, {**values, name: "1"}, "4emptybusy") == "Incorrect hash"


async def test_a_0_that_is_an_id_is_signed_as_it_is(demo_service: httpx.AsyncClient) -> None:
    values = {"u": "admin", "device_id": "4", "callflow_action": "empty", "state": "busy", "fax_device": "0"}
    assert await send(demo_service, values, "4emptybusy") == "Incorrect hash"
