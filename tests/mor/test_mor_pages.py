"""The pages of both calls, whole, for all that can be set."""

import xml.etree.ElementTree as ET

import httpx
import pytest

from mor_requests import GET, UPDATE, answer, get, got, page, update, updated

pytestmark = pytest.mark.usefixtures("untouched")

STATES = {"before_call": "Before call", "no_answer": "No answer", "failed": "Failed", "busy": "Busy"}

CALLER_IDS = {
    "none sent": ({}, ("From Device", ""), ("1", "")),
    "from device": ({"device_callerid": "true"}, ("From Device", ""), ("1", "")),
    "as it comes": ({"src_callerid": "true"}, ("Same as comes", ""), ("2", "")),
    "a DID": ({"did_id": "1"}, ("From DID", "37052000001"), ("3", "1")),
    "a text": ({"custom": '<"A & B"> 1'}, ("Custom", '<"A & B"> 1'), ("4", '<"A & B"> 1')),
}
TARGETS = {
    "a device": ({"forward_to_device": "5"}, "IAX2/101", "local"),
    "a FAX device": ({"forward_to_device": "2"}, "FAX/102", "local"),
    "itself": ({"forward_to_device": "4"}, "IAX2/1002", "local"),
    "a number": ({"forward_to_device": None, "external_number": "+*37060000000#"}, "+*37060000000#", "external"),
}
OTHER_SHOWN = {"empty": ("", ""), "voicemail": ("Voicemail", ""), "fax_detect": ("Fax detect", "FAX/102")}
OTHER_ACTIONS = [
    ("fax_detect", "before_call"),
    *((action, state) for action in ("empty", "voicemail") for state in STATES),
]


async def test_the_success_page_is_the_documented_one_byte_for_byte(demo_service: httpx.AsyncClient) -> None:
    response = await demo_service.post(UPDATE, data=update())
    assert answer(response) == page(
        """\
<?xml version="1.0" encoding="UTF-8"?>
<page>
  <status>Callflow was successfully updated</status>
  <user>Test User #1</user>
  <device>IAX2/1002</device>
  <callflow>
    <state>Before call</state>
    <priority>1</priority>
    <action>Forward</action>
    <data>IAX2/101</data>
    <callerid_type>From Device</callerid_type>
    <callerid_data/>
  </callflow>
</page>
"""
    )


async def test_the_documented_get_works_word_for_word(demo_service: httpx.AsyncClient) -> None:
    response = await demo_service.post(
        "/billing/api/device_callflow_get?u=admin&device_id=100&hash=71516eea4850f7e0300ac86adf9fb64bca845aa7"
    )
    empty_row = "<action/>\n    <data/>\n    <data2/>\n    <data3>1</data3>\n    <data4/>\n    <data5/>"
    assert answer(response) == page(
        f"""\
<?xml version="1.0" encoding="UTF-8"?>
<page>
  <user>Test User #1</user>
  <device>SIP/101</device>
  <callflow>
    <state>Before call</state>
    <priority>1</priority>
    {empty_row}
  </callflow>
  <callflow>
    <state>Call</state>
    <priority>1</priority>
    <action>Dial</action>
    <data>SIP/101|60</data>
    <data2/>
    <data3>1</data3>
    <data4/>
    <data5/>
  </callflow>
  <callflow>
    <state>Answered</state>
    <priority>1</priority>
    <action>Hangup</action>
    <data/>
    <data2/>
    <data3>1</data3>
    <data4/>
    <data5/>
  </callflow>
  <callflow>
    <state>No answer</state>
    <priority>1</priority>
    {empty_row}
  </callflow>
  <callflow>
    <state>Busy</state>
    <priority>1</priority>
    {empty_row}
  </callflow>
  <callflow>
    <state>Failed</state>
    <priority>1</priority>
    {empty_row}
  </callflow>
</page>
"""
    )


async def test_a_get_shows_the_ring_time_of_the_device(demo_service: httpx.AsyncClient) -> None:
    response = await demo_service.post(GET, data=get("200"))
    assert answer(response) == got(user="Test User #2", device="SIP/2001", ring=30)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("caller_id", CALLER_IDS)
async def test_a_forward_is_answered_and_shown(
    demo_service: httpx.AsyncClient, state: str, target: str, caller_id: str
) -> None:
    to, data, data2 = TARGETS[target]
    shown, (callerid_type, callerid_data), (data3, data4) = CALLER_IDS[caller_id]
    response = await demo_service.post(UPDATE, data=update(state=state, **to, **shown))
    assert answer(response) == updated(
        state=STATES[state], data=data, callerid_type=callerid_type, callerid_data=callerid_data
    )
    response = await demo_service.post(GET, data=get())
    assert answer(response) == got(**{state: ("Forward", data, data2, data3, data4)})


@pytest.mark.parametrize("caller_id", CALLER_IDS)
@pytest.mark.parametrize(("action", "state"), OTHER_ACTIONS)
async def test_any_other_action_is_answered_and_shown_without_a_caller_id(
    demo_service: httpx.AsyncClient, action: str, state: str, caller_id: str
) -> None:
    shown, data = OTHER_SHOWN[action]
    values = {"callflow_action": action, "state": state, "fax_device": "2", **CALLER_IDS[caller_id][0]}
    response = await demo_service.post(UPDATE, data=update(**values))
    assert answer(response) == updated(state=STATES[state], action=shown, data=data)
    response = await demo_service.post(GET, data=get())
    assert answer(response) == got(**{state: (shown, data, "", "1", "")})


async def test_the_states_are_set_apart_and_the_last_update_of_each_counts(demo_service: httpx.AsyncClient) -> None:
    for values in (
        update(),
        update(state="busy", custom="1"),
        update(state="busy", callflow_action="voicemail"),
        update(state="failed", callflow_action="empty"),
        update(state="no_answer", did_id="1", forward_to_device=None, external_number="370"),
    ):
        assert (await demo_service.post(UPDATE, data=values)).text.startswith("<?xml")
    response = await demo_service.post(GET, data=get())
    assert answer(response) == got(
        before_call=("Forward", "IAX2/101", "local", "1", ""),
        no_answer=("Forward", "370", "external", "3", "1"),
        busy=("Voicemail", "", "", "1", ""),
    )
    assert answer(await demo_service.post(GET, data=get("5"))) == got(device="IAX2/101")


@pytest.mark.parametrize(
    ("custom", "shown"),
    [
        pytest.param(" ", " ", id="a blank"),
        pytest.param("  two  ", "  two  ", id="blanks at the ends"),
        pytest.param("a\tb\nc\rd\r\n", "a\tb\nc\rd\r\n", id="white space"),
        pytest.param("]]> <!-- & &amp; ' \"", "]]> <!-- & &amp; ' \"", id="what XML has a use for"),
        pytest.param("\x00\x01a\x0b\x1f\ufffe\uffffb\x7f\x85", "ab\x7f\x85", id="what XML cannot carry"),
        pytest.param("Žalia 😀 ٣ é", "Žalia 😀 ٣ é", id="any script"),
        pytest.param("😀" * 255, "😀" * 255, id="255 characters"),
    ],
)
async def test_a_custom_text_comes_back_as_it_was_sent(
    demo_service: httpx.AsyncClient, custom: str, shown: str
) -> None:
    response = await demo_service.post(UPDATE, data=update(custom=custom))
    assert ET.fromstring(response.content).findtext("callflow/callerid_data") == shown  # noqa: S314 - our own page
    response = await demo_service.post(GET, data=get())
    assert ET.fromstring(response.content).findtext("callflow/data4") == shown  # noqa: S314 - our own page


async def test_a_custom_text_of_which_nothing_is_left_is_as_not_sent(demo_service: httpx.AsyncClient) -> None:
    response = await demo_service.post(UPDATE, data=update(custom="\x00\x01"))
    assert answer(response) == updated()
