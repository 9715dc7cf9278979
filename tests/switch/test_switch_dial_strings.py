"""How each switch dials: the templates of its kind, those of the switch user, and what it cannot dial."""

import httpx
import pytest

from switch_questions import FLAT_FACES, Flows, answered, ask, ask_freeswitch, explained, leg

TEMPLATED = ("templated", "switch-secret")
LOCAL = ("local", "switch-secret")
SILENT = ("silent", "switch-secret")

BY_DEFAULT = {
    "asterisk": {500: "PJSIP/5000", 4: "IAX2/1002", 2: "PJSIP/102", 522: "H323/7001", "number": "PJSIP/{}@trunk"},
    "kamailio": {
        500: "sip:5000@127.0.0.1",
        4: "sip:iax2-1002@127.0.0.1",
        2: "sip:fax-102@127.0.0.1",
        522: "sip:h323-7001@127.0.0.1",
        "number": "sip:{}@127.0.0.1",
    },
}
BY_DEFAULT["opensips"] = BY_DEFAULT["kamailio"]


@pytest.mark.parametrize("face", FLAT_FACES)
async def test_each_kind_of_switch_has_templates_of_its_own(
    service: httpx.AsyncClient, flows: Flows, face: str
) -> None:
    for device in (500, 4, 2, 522):
        await flows.set(device, "busy", "voicemail")
        assert (await ask(service, face, device=str(device)))["dial"] == BY_DEFAULT[face][device]
    await flows.forward(4, to="+37069999999")
    assert (await ask(service, face, device="4"))["dial"] == BY_DEFAULT[face]["number"].format("+37069999999")


@pytest.mark.parametrize(
    ("name", "dial"), [("5000", "user/5000@127.0.0.1"), ("1002", "user/1002@127.0.0.1"), ("102", "user/102@127.0.0.1")]
)
async def test_freeswitch_dials_the_users_of_its_directory(
    service: httpx.AsyncClient, flows: Flows, name: str, dial: str
) -> None:
    for device in (500, 4, 2):
        await flows.set(device, "busy", "voicemail")
    actions = await ask_freeswitch(service, name)
    assert actions is not None
    assert leg(actions)[1] == dial


@pytest.mark.parametrize("face", FLAT_FACES)
async def test_a_switch_users_templates_win(service: httpx.AsyncClient, flows: Flows, face: str) -> None:
    await flows.set(500, "busy", "voicemail")
    assert (await ask(service, face, user=TEMPLATED, device="500"))["dial"] == "sip:5000@phones.example:5070"
    await flows.forward(500, to="+37069999999")
    told = await ask(service, face, user=TEMPLATED, device="500")
    assert told["dial"] == "sip:0+37069999999@trunk.example"
    told = await ask(service, face, user=TEMPLATED, path="500_c1", state="busy")
    assert told["dial"] == "sip:vm-sip-5000@pbx.example"


async def test_a_technology_without_a_template_has_the_kinds_own(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(522, "busy", "voicemail")
    assert (await ask(service, user=TEMPLATED, device="522"))["dial"] == "sip:h323-7001@pbx.example"
    assert (await ask(service, "asterisk", user=TEMPLATED, device="522"))["dial"] == "H323/7001"


async def test_a_sign_that_a_uri_cannot_have_is_escaped(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(531, "busy", "voicemail")
    assert (await ask(service, device="531"))["dial"] == "sip:*53%23@127.0.0.1"
    assert (await ask(service, "asterisk", device="531"))["dial"] == "PJSIP/*53#"
    await flows.forward(531, to="*21*37069999999#")
    assert (await ask(service, device="531"))["dial"] == "sip:*21*37069999999%23@127.0.0.1"


async def test_a_device_that_cannot_be_rung_there_is_refused_and_explained(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(500, to=4)
    assert await ask(service, user=TEMPLATED, device="500", explain="1") == answered(
        "ring",
        dial="sip:5000@phones.example:5070",
        ring_seconds="20",
        device="500",
        path="500_c1",
        explain="SIP/5000 before call: forward to IAX2/1002; refused: IAX2/1002 cannot be rung here; "
        "refused: IAX2/1002 can neither be rung nor pass the call on; SIP/5000 rings",
    )


@pytest.mark.parametrize(("state", "cause"), [("no_answer", "480"), ("busy", "486"), ("failed", "503")])
async def test_after_the_call_it_is_as_if_nothing_were_set(
    service: httpx.AsyncClient, flows: Flows, state: str, cause: str
) -> None:
    await flows.forward(500, state, to=4)
    told = await ask(service, user=TEMPLATED, path="500_c1", state=state, explain="1")
    assert told == answered(
        "end",
        cause=cause,
        device="500",
        path="500_c1",
        explain=f"SIP/5000 {state.replace('_', ' ')}: forward to IAX2/1002; refused: IAX2/1002 cannot be rung here; "
        f"refused: IAX2/1002 can neither be rung nor pass the call on; ends with {cause}",
    )


async def test_a_device_that_cannot_be_rung_there_can_still_pass_a_call_on(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(500, to=4)
    await flows.forward(4, to=501)
    told = await ask(service, user=TEMPLATED, device="500")
    assert (told["action"], told["dial"]) == ("forward", "sip:5001@phones.example:5070")


async def test_a_switch_that_dials_no_numbers_refuses_them(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, to="37069999999")
    told = await ask(service, user=LOCAL, device="500", explain="1")
    assert (told["action"], told["dial"]) == ("ring", "sip:5000@pbx.example")
    assert told["explain"] == (
        "SIP/5000 before call: forward to 37069999999; refused: the number cannot be dialled here; SIP/5000 rings"
    )


async def test_a_fax_device_that_cannot_be_rung_there_is_refused(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "before_call", "fax_detect", target=2)
    told = await ask(service, user=LOCAL, device="500", explain="1")
    assert (told["action"], told["dial"], told["fax_dial"]) == ("ring", "sip:5000@pbx.example", "")
    assert told["explain"] == (
        "SIP/5000 before call: fax detection, to FAX/102; refused: FAX/102 cannot be rung here; SIP/5000 rings"
    )


async def test_a_switch_that_can_dial_nothing_carries_on_or_ends(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, to="37069999999")
    await flows.set(501, "busy", "voicemail")
    assert await ask(service, user=SILENT, device="500") == answered("none", device="500")
    assert await ask(service, user=SILENT, device="501") == answered("none", device="501")
    told = await ask(service, user=SILENT, path="501_c1")
    assert told == answered("end", cause="503", device="501", path="501_c1")


async def test_voicemail_needs_no_device_that_can_be_rung(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "before_call", "voicemail")
    assert await ask(service, user=SILENT, device="500") == answered(
        "voicemail", mailbox="5000", device="500", path="500_c1"
    )
    actions = await ask_freeswitch(service, "5000", user=SILENT)
    assert actions is not None
    assert actions[-1] == ("voicemail", "default pbx.example 5000")


@pytest.mark.parametrize("name", ["front desk", "desk/1", "a,b", "a@b", "a&b", "ąčę", "x" * 65])
@pytest.mark.parametrize("face", FLAT_FACES)
async def test_a_name_that_would_mean_more_than_itself_cannot_be_rung(
    service: httpx.AsyncClient, flows: Flows, face: str, name: str
) -> None:
    await flows.forward(4, to=511)
    await flows.connection.execute("UPDATE device SET name = $1 WHERE id = 511", name)
    try:
        told = await ask(service, face, device="4", explain="1")
        assert (told["action"], told["device"]) == ("ring", "4")
        assert "cannot be rung here" in told["explain"]
    finally:
        await flows.connection.execute("UPDATE device SET name = '5011' WHERE id = 511")


async def test_freeswitch_reads_in_its_log_what_could_not_be_dialled(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, to="37069999999")
    actions = await ask_freeswitch(service, "5000", user=LOCAL)
    assert actions is not None
    assert explained(actions) == (
        "SIP/5000 before call: forward to 37069999999; refused: the number cannot be dialled here; SIP/5000 rings"
    )
