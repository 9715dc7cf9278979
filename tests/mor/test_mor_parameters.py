"""Every parameter, in every encoding that clients use."""

import json
from collections.abc import Mapping
from urllib.parse import urlencode

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from mor_requests import (
    ERRORS,
    GET,
    GOOD,
    UPDATE,
    StartService,
    answer,
    get,
    got,
    refused,
    sha1_hex,
    signed,
    update,
    updated,
)

pytestmark = pytest.mark.usefixtures("untouched")

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MULTIPART = "multipart/form-data; boundary=b"


def multipart(values: Mapping[str, str]) -> bytes:
    header = "--b\r\nContent-Disposition: form-data; name="
    parts = (f'{header}"{name}"\r\n\r\n{value}\r\n' for name, value in values.items())
    return "".join([*parts, "--b--\r\n"]).encode()


def escaped(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


ENCODED = {
    "query": lambda values: (urlencode(values), "", b""),
    "query beside an empty form": lambda values: (urlencode(values), FORM, b""),
    "query beside an empty JSON body": lambda values: (urlencode(values), JSON, b""),
    "query beside an empty multipart body": lambda values: (urlencode(values), "multipart/form-data", b""),
    "query beside an empty body of any type": lambda values: (urlencode(values), "text/plain", b""),
    "query beside an empty JSON list": lambda values: (urlencode(values), JSON, b"[]"),
    "query beside an empty JSON object": lambda values: (urlencode(values), JSON, b" {} "),
    "form": lambda values: ("", FORM, urlencode(values).encode()),
    "form that names its character set": lambda values: ("", f"{FORM}; charset=UTF-8", urlencode(values).encode()),
    "JSON under a form's type": lambda values: ("", FORM, json.dumps(values).encode()),
    "JSON of no type": lambda values: ("", "", b" " + json.dumps(values).encode()),
    "JSON under a multipart form's type": lambda values: ("", "multipart/form-data", json.dumps(values).encode()),
    "form of no type": lambda values: ("", "", urlencode(values).encode()),
    "form of a type in capitals": lambda values: ("", FORM.upper(), urlencode(values).encode()),
    "form escaped throughout": lambda values: (
        "",
        FORM,
        "&".join(f"{escaped(name)}={escaped(value)}" for name, value in values.items()).encode(),
    ),
    "multipart": lambda values: ("", MULTIPART, multipart(values)),
    "JSON": lambda values: ("", JSON, json.dumps(values).encode()),
    "JSON that names its character set": lambda values: ("", f"{JSON}; charset=utf-8", json.dumps(values).encode()),
    "JSON after a byte order mark, with a Latin-1 value in it": lambda values: (
        "",
        JSON,
        b'\xef\xbb\xbf{"unknown":"\xfc",' + json.dumps(values).encode()[1:],
    ),
    "JSON after a byte order mark": lambda values: ("", JSON, b"\xef\xbb\xbf" + json.dumps(values).encode()),
    "JSON with numbers": lambda values: (
        "",
        JSON,
        json.dumps({name: int(v) if v.isdecimal() else v for name, v in values.items()}).encode(),
    ),
    "half query, half form": lambda values: (
        urlencode(dict(list(values.items())[:3])),
        FORM,
        urlencode(dict(list(values.items())[3:])).encode(),
    ),
    "half query, half JSON": lambda values: (
        urlencode(dict(list(values.items())[3:])),
        JSON,
        json.dumps(dict(list(values.items())[:3])).encode(),
    ),
}


async def post(service: httpx.AsyncClient, call: str, query: str, content_type: str, body: bytes) -> httpx.Response:
    headers = {"Content-Type": content_type} if content_type else {}
    return await service.post(f"{call}?{query}", content=body, headers=headers)


@pytest.mark.parametrize("encoding", ENCODED)
async def test_both_calls_may_be_encoded_in_any_way(demo_service: httpx.AsyncClient, encoding: str) -> None:
    values = update(did_id="1", custom="a=b&c+d é", src_callerid="")
    response = await post(demo_service, UPDATE, *ENCODED[encoding](values))
    assert answer(response) == updated(callerid_type="From DID", callerid_data="37052000001")
    response = await post(demo_service, GET, *ENCODED[encoding](get()))
    assert answer(response) == got(before_call=("Forward", "IAX2/101", "local", "3", "1"))


async def test_a_get_query_is_one_of_the_encodings(start_service: StartService, demo_url: SecretStr) -> None:
    service = await start_service(demo_url, allow_get=True)
    assert answer(await service.get(UPDATE, params=update(custom="é"))) == updated(
        callerid_type="Custom", callerid_data="é"
    )


@pytest.mark.parametrize("content_type", [FORM, JSON, MULTIPART])
async def test_the_body_wins_over_the_query(demo_service: httpx.AsyncClient, content_type: str) -> None:
    body = {FORM: b"state=busy", JSON: b'{"state": "busy"}', MULTIPART: multipart({"state": "busy"})}[content_type]
    query = urlencode({**update(state="busy"), "state": "failed"})
    assert answer(await post(demo_service, UPDATE, query, content_type, body)) == updated(state="Busy")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, b"state=failed&state=nowhere&state=busy"),
        (JSON, b'{"state": "failed", "state": 7, "state": "busy"}'),
        (JSON, b'{"state": "busy", "state": null}'),
        (JSON, b'{"state": "busy", "state": ["failed"]}'),
        (MULTIPART, multipart({"state": "failed"}).removesuffix(b"--b--\r\n") + multipart({"state": "busy"})),
    ],
)
async def test_the_last_of_a_repeated_name_wins(
    demo_service: httpx.AsyncClient, content_type: str, body: bytes
) -> None:
    query = urlencode(update(state="busy") | {"state": "failed"})
    assert answer(await post(demo_service, UPDATE, query, content_type, body)) == updated(state="Busy")


@pytest.mark.parametrize(
    ("sent", "digits"),
    [("5", "5"), ("5.0", "5.0"), ("5e0", "5e0"), ("-5", "-5"), ("1" * 5000, "1" * 5000)],
    ids=["an integer", "a fraction", "an exponent", "a negative one", "a very long one"],
)
async def test_a_json_number_counts_as_the_digits_sent(demo_service: httpx.AsyncClient, sent: str, digits: str) -> None:
    body = json.dumps(update(forward_to_device=digits)).replace(f'"{digits}"', sent)
    response = await post(demo_service, UPDATE, "", JSON, body.encode())
    assert answer(response) == (updated() if sent == "5" else refused(ERRORS[10]))


@pytest.mark.parametrize("value", ["null", "{}", '{"a": "1"}', "[]", '["9"]', "[[[]]]", '[{"device_id": "9"}]'])
async def test_a_null_or_nested_value_is_as_not_there(demo_service: httpx.AsyncClient, value: str) -> None:
    body = json.dumps(update()).removesuffix("}") + f', "did_id": {value}, "custom": {value}}}'
    assert answer(await post(demo_service, UPDATE, "", JSON, body.encode())) == updated()


@pytest.mark.parametrize(
    "disposition",
    [
        'form-data; name="custom"; filename="a.txt"',
        'form-data; name="custom"; filename=""',
        "form-data; name=custom; filename=a",
        "form-data; name=\"custom\"; filename*=UTF-8''%c3%a9.txt",
        "form-data",
        'form-data; x="custom"',
    ],
)
async def test_a_file_part_or_one_without_a_name_is_as_not_there(
    demo_service: httpx.AsyncClient, disposition: str
) -> None:
    file = f"--b\r\nContent-Disposition: {disposition}\r\nContent-Type: text/plain\r\n\r\nfile\r\n".encode()
    assert answer(await post(demo_service, UPDATE, "", MULTIPART, file + multipart(update()))) == updated()


async def test_the_headers_of_a_part_may_be_in_any_case_and_order(demo_service: httpx.AsyncClient) -> None:
    body = multipart(update()).replace(
        b'Content-Disposition: form-data; name="state"',
        b"Content-Type: text/plain; charset=UTF-8\r\nCONTENT-DISPOSITION: form-data; name=state\r\nX-More: 1",
    )
    assert answer(await post(demo_service, UPDATE, "", MULTIPART, body)) == updated()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, b"custom=%E9"),
        (FORM, b"custom=\xe9"),
        (JSON, b'{"custom": "\xe9"}'),
        (MULTIPART, multipart({"custom": "E"}).replace(b"E", b"\xe9")),
    ],
)
async def test_a_value_that_is_not_utf8_is_read_as_latin1(
    demo_service: httpx.AsyncClient, content_type: str, body: bytes
) -> None:
    query = urlencode(update(custom="é"))
    response = await post(demo_service, UPDATE, query, content_type, body)
    assert answer(response) == updated(callerid_type="Custom", callerid_data="é")


async def test_each_value_is_read_by_itself_as_utf8_or_latin1(demo_service: httpx.AsyncClient) -> None:
    hash_ = signed({**GOOD, "voicemail": "é", "custom": "Žé"})["hash"].encode()
    for content_type, body in (
        (FORM, b"voicemail=%E9&custom=%C5%BD%C3%A9&hash=" + hash_),
        (JSON, b'{"voicemail": "\xe9", "custom": "\xc5\xbd\xc3\xa9", "hash": "' + hash_ + b'"}'),
        (JSON, b'{"x": "\xe9\\ud800", "voicemail": "\xe9", "custom": "\xc5\xbd\\u00e9", "hash": "' + hash_ + b'"}'),
    ):
        response = await post(demo_service, UPDATE, urlencode(GOOD), content_type, body)
        assert answer(response) == updated(callerid_type="Custom", callerid_data="Žé")


@pytest.mark.parametrize("encoding", ["query", "form", "multipart", "JSON"])
async def test_a_leading_space_of_a_number_is_a_plus_that_was_not_escaped(
    demo_service: httpx.AsyncClient, encoding: str
) -> None:
    values = update(forward_to_device=None, external_number="+37060000000") | {"external_number": " 37060000000"}
    assert answer(await post(demo_service, UPDATE, *ENCODED[encoding](values))) == updated(data="+37060000000")


@pytest.mark.parametrize("number", ["+", "37 06", "3706 ", "++1", "1" * 33, "*#", "1a", "٣", "1\x00", "tel:1", "-1"])
async def test_what_is_no_number_is_not_found(demo_service: httpx.AsyncClient, number: str) -> None:
    values = update(forward_to_device=None, external_number=number)
    assert answer(await demo_service.post(UPDATE, data=values)) == refused(ERRORS[11])


IDS = {"device_id": 6, "forward_to_device": 10, "fax_device": 12, "did_id": 13}
RIGHT_IDS = {"device_id": "4", "forward_to_device": "5", "fax_device": "2", "did_id": "1"}
NO_IDS = [
    "0",
    "999",
    "-5",
    "+5",
    "5.0",
    "5x",
    " 5",
    "5 ",
    "0x5",
    "\u0665",
    "²",
    "5\x00",
    "9" * 19,
    str(2**63),
    "9" * 5000,
]


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("id_", NO_IDS, ids=lambda id_: ascii(id_)[:24])
async def test_what_is_no_id_is_not_found(demo_service: httpx.AsyncClient, name: str, id_: str) -> None:
    action = "fax_detect" if name == "fax_device" else "forward"
    response = await demo_service.post(UPDATE, data=update(callflow_action=action, **{name: id_}))
    assert answer(response) == refused(ERRORS[IDS[name]])


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("zeros", [1, 30])
async def test_an_id_may_have_leading_zeros(demo_service: httpx.AsyncClient, name: str, zeros: int) -> None:
    action = "fax_detect" if name == "fax_device" else "forward"
    values = update(callflow_action=action, **{name: "0" * zeros + RIGHT_IDS[name]})
    assert "Callflow was successfully updated" in (await demo_service.post(UPDATE, data=values)).text


@pytest.mark.parametrize("id_", [0, 2**63 - 1])
async def test_the_least_and_the_largest_id_name_what_they_are(
    demo_service: httpx.AsyncClient, demo_database: asyncpg.Connection, id_: int
) -> None:
    new = "INSERT INTO device SELECT $1, technology, name || $1, owner_id, '', '', 60 FROM device WHERE id = 4"
    await demo_database.execute(new.replace("name || $1", f"'edge{id_}'"), id_)
    try:
        response = await demo_service.post(GET, data=get(str(id_)))
        assert answer(response) == got(device=f"IAX2/edge{id_}")
    finally:
        await demo_database.execute("DELETE FROM device WHERE id = $1", id_)


@pytest.mark.parametrize("state", [None, "", "Busy", "busy ", "answered", "busy\x00", "before call", "1"])
async def test_a_state_is_one_of_four_words(demo_service: httpx.AsyncClient, state: str | None) -> None:
    assert answer(await demo_service.post(UPDATE, data=update(state=state))) == refused(ERRORS[7])


@pytest.mark.parametrize("action", [None, "", "Forward", "forward ", "hangup", "forward\x00", "true"])
@pytest.mark.parametrize("name", ["callflow_action", "action"])
async def test_an_action_is_one_of_four_words(demo_service: httpx.AsyncClient, name: str, action: str | None) -> None:
    values = signed({**update(callflow_action=action)}) if action else update(callflow_action=None)
    if name == "action" and action:
        values[name] = values.pop("callflow_action")
    assert answer(await demo_service.post(UPDATE, data=values)) == refused(ERRORS[8])


@pytest.mark.parametrize("state", ["no_answer", "failed", "busy"])
async def test_a_fax_is_detected_before_the_call_alone(demo_service: httpx.AsyncClient, state: str) -> None:
    values = update(callflow_action="fax_detect", fax_device="2", state=state)
    assert answer(await demo_service.post(UPDATE, data=values)) == refused(ERRORS[8])


@pytest.mark.parametrize(("name", "alias"), [("callflow_action", "action"), ("forward_to_device", "foward_to_device")])
async def test_an_old_name_counts_where_the_name_is_absent_or_empty(
    demo_service: httpx.AsyncClient, name: str, alias: str
) -> None:
    values = update()
    right = values[name]
    for sent, page in (
        ({alias: right}, updated()),
        ({alias: right, name: ""}, updated()),
        ({name: "", alias: right}, updated()),
        ({alias: "9", name: right}, updated()),
        ({name: right, alias: "9"}, updated()),
    ):
        others = {other: value for other, value in values.items() if other != name}
        assert answer(await demo_service.post(UPDATE, data=others | sent)) == page


async def test_a_device_to_forward_to_wins_over_a_number(demo_service: httpx.AsyncClient) -> None:
    for number in ("37060000000", "no number"):
        assert answer(await demo_service.post(UPDATE, data=update(external_number=number))) == updated()


@pytest.mark.parametrize("action", ["empty", "voicemail", "fax_detect"])
async def test_a_target_is_looked_at_for_its_own_action_alone(demo_service: httpx.AsyncClient, action: str) -> None:
    values = {
        "forward_to_device": "999",
        "external_number": "no number",
        "fax_device": "999",
        "callflow_action": action,
    }
    if action == "fax_detect":
        values["fax_device"] = "2"
    assert "Callflow was successfully updated" in (await demo_service.post(UPDATE, data=update(**values))).text
    assert answer(await demo_service.post(UPDATE, data=update(fax_device="999"))) == updated()


@pytest.mark.parametrize(("flag", "shown"), [("device_callerid", "From Device"), ("src_callerid", "Same as comes")])
@pytest.mark.parametrize(
    ("value", "is_set"),
    [
        *((value, True) for value in ("true", "TRUE", "True", "tRuE", "1")),
        *((value, False) for value in ("false", "0", "yes", "on", "11", " true", "true\x00", "")),
    ],
)
async def test_a_flag_is_set_by_true_or_1(
    demo_service: httpx.AsyncClient, flag: str, shown: str, value: str, *, is_set: bool
) -> None:
    response = await demo_service.post(UPDATE, data=update(custom="Me", **{flag: value}))
    expected = updated(callerid_type=shown) if is_set else updated(callerid_type="Custom", callerid_data="Me")
    assert answer(response) == expected


@pytest.mark.parametrize("flag", [True, False, 1, 0])
async def test_a_flag_may_be_a_truth_value_or_a_number_of_json(
    demo_service: httpx.AsyncClient, *, flag: bool | int
) -> None:
    hash_ = sha1_hex(f"4forwardbefore_call5{json.dumps(flag)}")
    response = await demo_service.post(UPDATE, json={**GOOD, "src_callerid": flag, "hash": hash_})
    assert answer(response) == updated(callerid_type="Same as comes" if flag else "From Device")


async def test_the_first_caller_id_of_the_table_wins(demo_service: httpx.AsyncClient) -> None:
    sent = {"custom": "Me", "did_id": "1", "src_callerid": "true", "device_callerid": "true"}
    shown = [
        ("From Device", ""),
        ("Same as comes", ""),
        ("From DID", "37052000001"),
        ("Custom", "Me"),
        ("From Device", ""),
    ]
    for callerid_type, callerid_data in shown:
        response = await demo_service.post(UPDATE, data=update(**sent))
        assert answer(response) == updated(callerid_type=callerid_type, callerid_data=callerid_data)
        if sent:
            sent.popitem()


@pytest.mark.parametrize("action", ["forward", "empty", "voicemail", "fax_detect"])
@pytest.mark.parametrize("did", ["2", "3", "999", "x"])
async def test_a_did_must_be_assigned_to_the_device_whatever_else_is_sent(
    demo_service: httpx.AsyncClient, action: str, did: str
) -> None:
    values = update(callflow_action=action, fax_device="2", device_callerid="true", custom="Me", did_id=did)
    assert answer(await demo_service.post(UPDATE, data=values)) == refused(ERRORS[13])


async def test_the_voicemail_parameter_carries_nothing(demo_service: httpx.AsyncClient) -> None:
    for action in ("forward", "voicemail"):
        for value in ("true", "0", "anything"):
            values = update(callflow_action=action, voicemail=value)
            page = updated() if action == "forward" else updated(action="Voicemail", data="")
            assert answer(await demo_service.post(UPDATE, data=values)) == page


async def test_an_empty_value_is_as_absent(demo_service: httpx.AsyncClient) -> None:
    empty = dict.fromkeys(("external_number", "fax_device", "voicemail", "did_id", "custom", "src_callerid", "p"), "")
    assert answer(await demo_service.post(UPDATE, data=update() | empty)) == updated()
    assert answer(await demo_service.post(UPDATE, data=update(forward_to_device=""))) == refused(ERRORS[9])


async def test_unknown_parameters_are_ignored(demo_service: httpx.AsyncClient) -> None:
    unknown = {"": "x", "State": "failed", "state[]": "failed", "a" * 500: "b" * 500, "\x00": "\x00"}
    assert answer(await demo_service.post(UPDATE, data=update() | unknown)) == updated()


@pytest.mark.parametrize(
    "prefix", ["/billing/api", "/api", "//billing/api", "/billing//api", "///api", "/billing/api/"]
)
@pytest.mark.parametrize("slashes", ["", "/", "//"])
async def test_a_doubled_or_a_trailing_slash_is_tolerated(
    demo_service: httpx.AsyncClient, prefix: str, slashes: str
) -> None:
    for name, values, page in (
        ("device_callflow_update", update(), updated()),
        ("device_callflow_get", get("5"), got(device="IAX2/101")),
    ):
        url = f"{str(demo_service.base_url).rstrip('/')}{prefix}/{name}{slashes}"
        assert answer(await demo_service.post(url, data=values)) == page


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
async def test_an_encoded_body_is_refused_by_name(demo_service: httpx.AsyncClient, encoding: str) -> None:
    response = await demo_service.post(UPDATE, data=signed(GOOD), headers={"content-encoding": encoding})
    _, *rest = refused("Request body is encoded; send it as it is, without Content-Encoding")
    assert answer(response) == (415, *rest)
    plain = await demo_service.post(UPDATE, data=signed(GOOD), headers={"content-encoding": "Identity"})
    assert plain.status_code == 200
