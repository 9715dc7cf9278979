"""From what a caller asks for and what there is, the call flow that shall be."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callflow_service.domain.access import Account, OwnedDevice, Role
from callflow_service.domain.callflow import (
    NAMES_NOTHING,
    Action,
    AsItComes,
    CallerId,
    CallFlow,
    Custom,
    Device,
    Empty,
    FaxDetect,
    Forward,
    FromDevice,
    FromDid,
    State,
    Voicemail,
)
from callflow_service.domain.changing import AssignedDid, Change, ChangeFacts, WantedChange, decide
from callflow_service.domain.errors import (
    ActionUnknown,
    ChangeRefused,
    DestinationMissing,
    DeviceNotFound,
    DidNotFound,
    ExternalNumberInvalid,
    FaxDeviceNotFound,
    LocalDeviceNotFound,
    StateUnknown,
)

USER = Account(
    id=20,
    username="user1",
    role=Role.USER,
    blocked=False,
    api_enabled=True,
    pbx_addon=False,
    hash_policy=None,
    api_key="key",
    password_hash=None,
)
DESK = OwnedDevice(Device(4, "IAX2", "1002"), owner_id=20, owner_name="Test User #1", reseller_id=1, ring_seconds=60)
OFFICE = replace(DESK, device=Device(5, "IAX2", "101"))
FAX = replace(DESK, device=Device(2, "FAX", "102"))
FOREIGN = replace(OFFICE, owner_id=21)
FOREIGN_FAX = replace(FAX, owner_id=21)
OWN_DID = AssignedDid(1, "37052000001", 4)
OTHER_DID = AssignedDid(2, "37052000002", 5)
FREE_DID = AssignedDid(3, "37052000003", None)

FACTS = ChangeFacts(account=USER, device=DESK, forward_device=OFFICE, fax_device=FAX, did=OWN_DID)
FORWARD = WantedChange(4, State.BUSY, Action.FORWARD, forward_to_device=5)
DETECT = WantedChange(4, State.BEFORE_CALL, Action.FAX_DETECT, fax_device=2)
VOICEMAIL = WantedChange(4, State.NO_ANSWER, Action.VOICEMAIL)
EMPTY = WantedChange(4, State.FAILED, Action.EMPTY)


@pytest.mark.parametrize(
    ("wanted", "flow"),
    [
        (FORWARD, Forward.to(OFFICE.device, FromDevice())),
        (replace(FORWARD, external_number="no number"), Forward.to(OFFICE.device, FromDevice())),
        (replace(FORWARD, forward_to_device=None, external_number="+370"), Forward.to("+370", FromDevice())),
        (DETECT, FaxDetect(FAX.device)),
        (replace(VOICEMAIL, forward_to_device=NAMES_NOTHING, fax_device=NAMES_NOTHING), Voicemail()),
        (replace(EMPTY, external_number="no number", custom="kept out"), Empty()),
    ],
)
def test_what_can_be_had_is_had(wanted: WantedChange, flow: CallFlow) -> None:
    assert wanted.state is not None
    assert decide(USER, FACTS, wanted, lambda *_: None) == Change(DESK, wanted.state, flow)


def test_a_fax_device_may_be_forwarded_to_and_so_may_the_device_itself() -> None:
    for target in (FAX, DESK):
        change = decide(USER, replace(FACTS, forward_device=target), FORWARD, lambda *_: None)
        assert change == Change(DESK, State.BUSY, Forward.to(target.device, FromDevice()))


@pytest.mark.parametrize("wanted", [FORWARD, DETECT, VOICEMAIL, EMPTY], ids=lambda wanted: wanted.action.value)
@pytest.mark.parametrize(
    ("facts", "change", "error"),
    [
        ({"device": None}, {}, DeviceNotFound),
        ({"device": FOREIGN}, {}, DeviceNotFound),
        ({}, {"state": None}, StateUnknown),
        ({}, {"action": None}, ActionUnknown),
        ({"did": None}, {"did_id": 9}, DidNotFound),
        ({"did": None}, {"did_id": NAMES_NOTHING}, DidNotFound),
        ({"did": OTHER_DID}, {"did_id": 2}, DidNotFound),
        ({"did": FREE_DID}, {"did_id": 3}, DidNotFound),
    ],
)
def test_every_action_is_refused(
    wanted: WantedChange, facts: dict[str, object], change: dict[str, object], error: type[ChangeRefused]
) -> None:
    with pytest.raises(error):
        decide(USER, replace(FACTS, **facts), replace(wanted, **change), lambda *_: None)


@pytest.mark.parametrize(
    ("facts", "wanted", "error"),
    [
        (FACTS, replace(FORWARD, forward_to_device=None), DestinationMissing),
        (replace(FACTS, forward_device=None), FORWARD, LocalDeviceNotFound),
        (replace(FACTS, forward_device=None), replace(FORWARD, external_number="1"), LocalDeviceNotFound),
        (replace(FACTS, forward_device=FOREIGN), FORWARD, LocalDeviceNotFound),
        (FACTS, replace(FORWARD, forward_to_device=None, external_number="1a"), ExternalNumberInvalid),
        (replace(FACTS, fax_device=None), replace(DETECT, fax_device=None), FaxDeviceNotFound),
        (replace(FACTS, fax_device=OFFICE), DETECT, FaxDeviceNotFound),
        (replace(FACTS, fax_device=FOREIGN_FAX), DETECT, FaxDeviceNotFound),
        (FACTS, replace(DETECT, state=State.BUSY), ActionUnknown),
        (FACTS, replace(DETECT, state=State.NO_ANSWER), ActionUnknown),
        (FACTS, replace(DETECT, state=State.FAILED), ActionUnknown),
    ],
)
def test_one_action_is_refused(facts: ChangeFacts, wanted: WantedChange, error: type[ChangeRefused]) -> None:
    with pytest.raises(error):
        decide(USER, facts, wanted, lambda *_: None)


@settings(deadline=None, max_examples=100)
@given(device=st.booleans(), source=st.booleans(), did=st.booleans(), custom=st.booleans())
def test_the_first_caller_id_that_is_set_wins(*, device: bool, source: bool, did: bool, custom: bool) -> None:
    wanted = replace(
        FORWARD,
        device_caller_id=device,
        source_caller_id=source,
        did_id=1 if did else None,
        custom="Front desk" if custom else None,
    )
    expected: CallerId = FromDevice()
    if custom:
        expected = Custom("Front desk")
    if did:
        expected = FromDid(1, "37052000001")
    if source:
        expected = AsItComes()
    if device:
        expected = FromDevice()
    assert decide(USER, FACTS, wanted, lambda *_: None).flow == Forward.to(OFFICE.device, expected)
