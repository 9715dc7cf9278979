"""What a leg shows: caller IDs of every kind, privacy, and the addresses of those who diverted."""

import httpx
import pytest

from switch_questions import FLAT_FACES, Flows, answered, ask, ask_freeswitch, leg

CHAIN = ("sip_h_Diversion", "sip_h_History-Info")
PRIVATE = {"caller_number": "37061111111", "caller_name": "Alice", "privacy": "full"}


def shown(told: dict[str, str]) -> tuple[str, str, str]:
    return told["caller_number"], told["caller_name"], told["privacy"]


KINDS = {
    "from the device": ({"caller_id": "device"}, ("37060001002", "Front desk", "off")),
    "as it comes": ({"caller_id": "source"}, ("37061111111", "Alice", "full")),
    "a DID": ({"caller_id": "did", "did": 1}, ("37052000001", "", "off")),
    "a number": ({"caller_id": "custom", "text": "+37065555555"}, ("+37065555555", "", "off")),
    "a quoted name and a number": ({"caller_id": "custom", "text": '"Acme" 3706'}, ("3706", "Acme", "off")),
    "a name and a bracketed number": ({"caller_id": "custom", "text": '"Acme" <3706>'}, ("3706", "Acme", "off")),
    "a name alone": ({"caller_id": "custom", "text": "Acme"}, ("37060001002", "Acme", "off")),
    "the caller's own number": (
        {"caller_id": "custom", "text": '"Acme" 37061111111'},
        ("37061111111", "Acme", "full"),
    ),
    "nothing that may be shown": ({"caller_id": "custom", "text": "${x}"}, ("37060001002", "", "off")),
}


@pytest.mark.parametrize("face", FLAT_FACES)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_caller_id(service: httpx.AsyncClient, flows: Flows, face: str, kind: str) -> None:
    choice, expected = KINDS[kind]
    await flows.forward(4, to="37069999999", **choice)
    assert shown(await ask(service, face, device="4", **PRIVATE)) == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_caller_id_in_freeswitch(service: httpx.AsyncClient, flows: Flows, kind: str) -> None:
    choice, (number, name, privacy) = KINDS[kind]
    await flows.forward(500, to="37069999999", **(choice | ({"did": 10} if "did" in choice else {})))
    hidden = {"Caller-Privacy-Hide-Number": "true", "Caller-Privacy-Hide-Name": "true"}
    actions = await ask_freeswitch(service, "5000", **hidden)
    assert actions is not None
    expected = {
        "from the device": ("37061111111", "Alice", "full"),
        "a DID": ("+37052000010", "", "off"),
        "a name alone": ("37061111111", "Acme", "full"),
        "nothing that may be shown": ("37061111111", "", "full"),
    }.get(kind, (number, name, privacy))
    told, _ = leg(actions)
    told = {name: told[name] for name in told if name.startswith(("origination_", "sip_")) and name not in CHAIN}
    if expected[2] == "full":
        name = f'"{expected[1]}" ' if expected[1] else ""
        assert told == {
            "origination_caller_id_number": "anonymous",
            "origination_caller_id_name": "Anonymous",
            "origination_privacy": "screen",
            "sip_cid_type": "none",
            "sip_force_full_from": '"Anonymous" <sip:anonymous@anonymous.invalid>',
            "sip_h_P-Asserted-Identity": f"{name}<sip:{expected[0]}@127.0.0.1>",
            "sip_h_Privacy": "id",
        }
    else:
        assert told == {
            "origination_caller_id_number": expected[0],
            "origination_caller_id_name": expected[1] or expected[0],
            "origination_privacy": "screen",
            "sip_cid_type": "none",
        }
    assert ("multiunset", "sip_h_identity sip_identity") in actions


async def test_a_device_without_a_caller_id_shows_the_caller_as_he_comes(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(500, to=501, caller_id="device")
    assert shown(await ask(service, device="500", **PRIVATE)) == ("37061111111", "Alice", "full")


async def test_a_device_with_a_name_alone_shows_it_with_the_number_as_it_comes(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(530, to=501, caller_id="device")
    assert shown(await ask(service, device="530", **PRIVATE)) == ("37061111111", "Only a name", "full")


async def test_a_device_with_a_number_alone_shows_no_name(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(100, to=501, caller_id="device")
    assert shown(await ask(service, device="100", **PRIVATE)) == ("101", "", "off")


async def test_caller_ids_fold_from_the_first_diversion_on(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500, caller_id="custom", text='"First" 111')
    await flows.forward(500, "busy", to=5, caller_id="source")
    await flows.forward(5, to=501, caller_id="custom", text="Only a name")
    first = await ask(service, device="4")
    assert shown(first) == ("111", "First", "off")
    assert shown(await ask(service, path=first["path"], state="busy")) == ("37060000101", "Only a name", "off")
    await flows.forward(5, to=501, caller_id="source")
    assert shown(await ask(service, path=first["path"], state="busy")) == ("111", "First", "off")


async def test_a_leg_after_the_first_shows_what_the_flows_say_now(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500, caller_id="custom", text="111")
    await flows.forward(500, "busy", to=501, caller_id="source")
    await flows.set(4, "before_call", "empty")
    assert shown(await ask(service, path="4u.500_c1", state="busy")) == ("37061111111", "Alice", "off")


async def test_towards_a_device_the_diverter_is_told_by_its_name(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    assert (await ask(service, device="4"))["diversion"].startswith("<sip:1002@127.0.0.1>")


@pytest.mark.parametrize(
    ("device", "address"),
    [(4, "37052000001"), (500, "+37052000010"), (100, "101"), (300, "3001"), (531, "*53%23")],
)
async def test_towards_a_number_it_is_told_by_its_did_else_its_number(
    service: httpx.AsyncClient, flows: Flows, device: int, address: str
) -> None:
    await flows.forward(device, to="37069999999")
    told = await ask(service, device=str(device))
    assert told["diversion"] == f"<sip:{address}@127.0.0.1>;reason=unconditional;counter=1;privacy=off"
    assert told["history_info"] == (
        f"<sip:{address}@127.0.0.1?Privacy=none>;index=1, <sip:37069999999@127.0.0.1;cause=302>;index=1.1;mp=1"
    )


async def test_the_chain_that_came_is_continued_and_its_privacy_kept(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    told = await ask(
        service,
        device="4",
        diversion='"Doe, J" <sip:b@far.example>;reason=no-answer;privacy=full, <sip:a@far.example>;reason=user-busy',
    )
    assert told["diversion"] == (
        "<sip:1002@127.0.0.1>;reason=unconditional;counter=1;privacy=off, "
        "<sip:b@far.example>;reason=no-answer;counter=1;privacy=full, "
        "<sip:a@far.example>;reason=user-busy;counter=1;privacy=off"
    )
    assert told["history_info"] == (
        "<sip:a@far.example?Privacy=none>;index=1, "
        "<sip:b@far.example;cause=486?Privacy=history>;index=1.1;mp=1, "
        "<sip:1002@127.0.0.1;cause=408?Privacy=none>;index=1.1.1;mp=1.1, "
        "<sip:5000@127.0.0.1;cause=302>;index=1.1.1.1;mp=1.1.1"
    )
    assert told["leg"] == "2"


async def test_a_chain_that_came_goes_to_a_leg_that_we_do_not_divert(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(4, "busy", "voicemail")
    told = await ask(service, device="4", diversion="<sip:a@far.example>;reason=user-busy;counter=2;privacy=uri")
    assert told == answered(
        "ring",
        dial="sip:iax2-1002@127.0.0.1",
        ring_seconds="60",
        device="4",
        path="4_c1",
        diversion="<sip:a@far.example>;reason=user-busy;counter=2;privacy=uri",
        history_info="<sip:a@far.example?Privacy=history>;index=1, <sip:1002@127.0.0.1;cause=486>;index=1.1;mp=1",
    )


async def test_what_the_path_explains_is_not_repeated(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    await flows.forward(500, "busy", to=501)
    first = await ask(service, device="4")
    # A switch that sends the headers of its leg, and not those of the original call.
    back = {"diversion": first["diversion"], "history_info": first["history_info"]}
    plain = await ask(service, path=first["path"], state="busy")
    assert await ask(service, path=first["path"], state="busy", **back) == plain


async def test_headers_that_make_no_sense_do_no_harm(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    plain = await ask(service, device="4")
    for header in ("nonsense", ",,,", "<", "<sip:>;reason=x", "<sip:a b@h>", '"' * 1000, "<" * 10_000, "\x00\r\n"):
        assert await ask(service, device="4", diversion=header, history_info=header) == plain


async def test_the_headers_of_a_leg_name_the_switchs_own_domain(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    told = await ask(service, device="4", user=("local", "switch-secret"))
    assert told["dial"] == "sip:5000@pbx.example"
    assert told["diversion"] == "<sip:1002@pbx.example>;reason=unconditional;counter=1;privacy=off"


async def test_the_payer_is_the_owner_of_the_last_device_that_diverted(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(4, to=200)
    await flows.forward(200, to=400)
    await flows.forward(400, "busy", to="37069999999")
    first = await ask(service, device="4")
    assert (first["payer"], first["payer_device"]) == ("user2", "200")
    last = await ask(service, path=first["path"], state="busy")
    assert (last["payer"], last["payer_device"]) == ("legacy", "400")


async def test_a_leg_that_nobody_diverted_has_no_payer_of_ours(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(4, "busy", "voicemail")
    told = await ask(service, device="4")
    assert (told["payer"], told["payer_device"], told["reason"], told["leg"]) == ("", "", "", "1")
