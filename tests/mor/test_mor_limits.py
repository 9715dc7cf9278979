"""What SECURITY.md says that MOR's signature does not stop, it does not stop."""

import httpx
import pytest

from mor_requests import ADMIN_KEY, GET, UPDATE, answer, get, got, refused, sha1_hex, update, updated

pytestmark = pytest.mark.usefixtures("untouched")


async def test_a_request_that_was_seen_can_be_sent_again_later(demo_service: httpx.AsyncClient) -> None:
    seen = update()
    await demo_service.post(UPDATE, data=seen)
    emptied = update(callflow_action="empty", forward_to_device=None)
    assert answer(await demo_service.post(UPDATE, data=emptied)) == updated(action="", data="")
    assert answer(await demo_service.post(UPDATE, data=seen)) == updated()


async def test_a_signed_number_can_be_cut_short_and_its_rest_hidden(demo_service: httpx.AsyncClient) -> None:
    seen = update(forward_to_device=None, external_number="+37060000000")
    changed = seen | {"external_number": "+3706", "voicemail": "0000000"}
    assert answer(await demo_service.post(UPDATE, data=changed)) == updated(data="+3706")


async def test_a_signed_target_can_become_another_kind_of_target(demo_service: httpx.AsyncClient) -> None:
    seen = update(forward_to_device="100")
    number = update(forward_to_device=None, external_number="100") | {"hash": seen["hash"]}
    assert answer(await demo_service.post(UPDATE, data=number)) == updated(data="100")
    seen = update(forward_to_device="52")
    device = seen | {"forward_to_device": "5", "external_number": "2"}
    assert answer(await demo_service.post(UPDATE, data=device)) == updated(data="IAX2/101")


@pytest.mark.parametrize(
    "changes", [{"device_id": "5"}, {"state": "busy"}, {"callflow_action": "empty"}, {"forward_to_device": "2"}]
)
async def test_device_state_action_and_target_cannot_be_changed(
    demo_service: httpx.AsyncClient, changes: dict[str, str]
) -> None:
    assert answer(await demo_service.post(UPDATE, data=update() | changes)) == refused("Incorrect hash")


async def test_a_key_that_ends_another_key_shares_signatures_with_it(demo_service: httpx.AsyncClient) -> None:
    of_longer_key = get("1", key="00" + ADMIN_KEY)
    changed = of_longer_key | {"device_id": "100"}
    assert answer(await demo_service.post(GET, data=changed)) == got(device="SIP/101")


async def test_under_compat_the_hash_of_a_get_changes_everything_of_its_device(demo_service: httpx.AsyncClient) -> None:
    seen = sha1_hex("400", "legacy-secret")
    values = {"u": "legacy", "device_id": "400", "callflow_action": "forward", "state": "busy", "hash": seen}
    for number in ("190012345", "190067890"):
        assert answer(await demo_service.post(UPDATE, data=values | {"external_number": number})) == updated(
            user="Legacy Reseller", device="SIP/4001", state="Busy", data=number
        )
