"""Somebody has the keys of a user and of its reseller, and wants calls to go to numbers that earn.

What came of it is looked up in the tables, and asked as a switch asks.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio

from api_answers import MakeToken, problem
from mor_requests import UPDATE, update
from own_demo import OwnDemo
from switch_questions import FLAT_FACES, ask

STATES: Final = ("before_call", "no_answer", "busy", "failed")
FLOW: Final = "/v1/devices/200/callflow"
KEY: Final = "reseller-secret"
"""Signs for the user too, who has no key of its own."""

NUMBER: Final = re.compile("[+0-9*#]+")

PREMIUM: Final = (
    "+37090012345",
    "0037090012345",
    "37090012345",
    "090012345",
    "890012345",
    "01137090012345",
    "81019005551234",
    "*31#0037090012345",
    "#31#890012345",
    "*21*090012345#",
    "**090012345",
    "+370 (900) 12-345",
    "+370090012345",
    "+370890012345",
    "+370900123456789",
    "+449098790123",
    "+4990012345678",
    "+19005551234",
    "+33899123456",
    "+882161234567",
    "+97912345678",
    "+87077312345",
    "112",
    "*112#",
    "0112",
    "911",
)
"""Numbers that earn, or must not be called by a machine, as somebody writes them who hopes that nobody looks twice."""


@dataclass(frozen=True, slots=True)
class Attacker:
    """The stolen keys."""

    house: httpx.AsyncClient
    user: dict[str, str]
    reseller: dict[str, str]

    async def put(self, path: str, body: Any, *, headers: dict[str, str] | None = None) -> httpx.Response:
        return await self.house.put(path, headers=headers or self.user, json=body)

    async def post(self, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> httpx.Response:
        return await self.house.post(path, headers=headers or self.user, json=body)

    async def patch(self, path: str, body: Any) -> httpx.Response:
        return await self.house.patch(path, headers=self.reseller, json=body)

    async def add(self, resource: str, **fields: Any) -> int:
        response = await self.post(f"/v1/{resource}", fields)
        assert response.status_code == 201, response.text
        return int(response.json()["id"])


Way = Callable[[Attacker, str], Awaitable[Any]]


def forward(*numbers: str, **more: Any) -> dict[str, Any]:
    return {"action": "forward", "steps": [{"to": {"number": number}} for number in numbers]} | more


def state(number: str, **more: Any) -> dict[str, Any]:
    return {"otherwise": forward(number, **more)}


async def by_mor(attacker: Attacker, number: str) -> None:
    for which in STATES:
        sent = update(KEY, u="user2", device_id="200", state=which, forward_to_device=None, external_number=number)
        await attacker.house.post(UPDATE, data=sent)


async def by_each_state(attacker: Attacker, number: str) -> None:
    for which in STATES:
        await attacker.put(f"{FLOW}/{which}", state(number))


async def by_all_states(attacker: Attacker, number: str) -> None:
    await attacker.put(FLOW, {"states": {which: state(number) for which in STATES}})


async def by_a_later_step(attacker: Attacker, number: str) -> None:
    chain = forward("+37061234567", number, then={"action": "voicemail"})
    chain["steps"][0]["to"] = {"device": 201}
    await attacker.put(f"{FLOW}/before_call", {"otherwise": chain})


async def by_a_rule(attacker: Attacker, number: str) -> None:
    rules = [{"name": "all", "do": forward(number)}]
    await attacker.put(f"{FLOW}/before_call", {"rules": rules, "otherwise": {"action": "empty"}})


async def by_a_rule_of_conditions(attacker: Attacker, number: str) -> None:
    week = [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "24:00"}]
    schedule = await attacker.add("schedules", name="always", owner="user2", weekly=week)
    callers = await attacker.add("caller_lists", name="all", owner="user2", entries=["+370*", "anonymous"])
    rules = [
        {"name": "always", "if": {"schedule": schedule, "caller": {"list": callers}}, "do": forward(number)},
        {"name": "never", "enabled": False, "do": forward(number)},
        {"name": "but", "if": {"caller": {"not_list": callers}}, "do": forward(number)},
    ]
    await attacker.put(f"{FLOW}/before_call", {"rules": rules, "otherwise": {"action": "empty"}})


async def by_what_is_off_at_first(attacker: Attacker, number: str) -> None:
    await attacker.put(f"{FLOW}/before_call", state(number, enabled=False))
    await attacker.put(f"{FLOW}/before_call", state(number, enabled=True))


async def by_what_claims_to_be_held_no_more(attacker: Attacker, number: str) -> None:
    sent = state(number)
    sent["otherwise"]["steps"][0]["held_until"] = "2020-01-01T00:00:00Z"
    await attacker.put(f"{FLOW}/before_call", sent)


async def by_many_at_once(attacker: Attacker, number: str) -> None:
    everything = ({"devices": [200]}, {"owner": "user2"}, {"q": "2001"}, {"all": True})
    for headers in (attacker.user, attacker.reseller):
        for where in everything:
            sent = {"where": where, "set": {which: state(number) for which in STATES}}
            await attacker.post("/v1/bulk", sent, headers=headers)
            await attacker.post("/v1/bulk", sent, headers=headers | {"Idempotency-Key": f"{number} {where}"})


async def by_a_profile(attacker: Attacker, number: str) -> None:
    harmless = {"name": "harmless", "where": {"devices": [200]}, "set": {"before_call": state("+37061234567")}}
    added = await attacker.post("/v1/profiles", harmless | {"set": {"before_call": state(number)}})
    if added.status_code != 201:
        harmless["set"] = {"before_call": {"otherwise": {"action": "voicemail"}}}
        added = await attacker.post("/v1/profiles", harmless)
    profile = f"/v1/profiles/{added.json()['id']}"
    changed = {"set": {"before_call": state(number)}}
    await attacker.house.patch(profile, headers=attacker.user, json=changed)
    for call in ("apply", "withdraw", "apply"):
        await attacker.post(f"{profile}/{call}")


async def by_a_profile_of_the_reseller_s(attacker: Attacker, number: str) -> None:
    sent = {"name": "all", "owner": "reseller", "where": {"all": True}, "set": {"busy": state(number)}}
    added = await attacker.post("/v1/profiles", sent, headers=attacker.reseller)
    if added.status_code == 201:
        await attacker.post(f"/v1/profiles/{added.json()['id']}/apply", headers=attacker.reseller)


async def by_its_own_policy(attacker: Attacker, number: str) -> None:
    wide = {"allow": [], "deny": [], "max_length": None, "max_new_per_day": None, "hold_minutes": 0}
    for account in (10, 21):
        for targets in (None, wide, wide | {"allow": ["+370900", "+3", "+4", "+1", "+8", "+9", "1", "0", "9", "*"]}):
            for headers in (attacker.user, attacker.reseller):
                path = f"/v1/accounts/{account}"
                await attacker.house.patch(path, headers=headers, json={"targets": targets})
        for country in ("LV", "US", "FR"):
            await attacker.patch(f"/v1/accounts/{account}", {"country": country})
            await by_all_states(attacker, number)


async def by_a_device_that_moves(attacker: Attacker, number: str) -> None:
    """Set where it may be, perhaps: on a device of the reseller's own, which changes hands then."""
    fields = {"technology": "SIP", "name": "2009", "owner": "reseller"}
    added = await attacker.post("/v1/devices", fields, headers=attacker.reseller)
    device = added.json()["id"] if added.status_code == 201 else 200
    for which in STATES:
        await attacker.put(f"/v1/devices/{device}/callflow/{which}", state(number), headers=attacker.reseller)
    await attacker.patch(f"/v1/devices/{device}", {"owner": "user2"})
    await attacker.put(
        f"{FLOW}/before_call", {"otherwise": {"action": "forward", "steps": [{"to": {"device": device}}]}}
    )


async def by_a_did(attacker: Attacker, number: str) -> None:
    """A number of our own leads to its device; one that stops being ours would lead out."""
    for headers in (attacker.user, attacker.reseller):
        await attacker.house.patch("/v1/dids/4", headers=headers, json={"number": number})
        await attacker.house.post("/v1/dids", headers=headers, json={"number": number, "device": 200})
        await attacker.put(f"{FLOW}/before_call", state(number), headers=headers)
        await attacker.house.patch("/v1/dids/4", headers=headers, json={"device": None})


async def by_history(attacker: Attacker, number: str) -> None:
    await by_each_state(attacker, number)
    entries = (await attacker.house.get(f"{FLOW}/history", headers=attacker.user)).json()["items"]
    for entry in entries:
        await attacker.post(f"/v1/history/{entry['id']}/undo", {"force": True})
    await attacker.post(f"{FLOW}/restore", {"as_of": "2020-01-01T00:00:00Z", "force": True})


WAYS: Final[Mapping[str, Way]] = {name: way for name, way in globals().items() if name.startswith("by_")}


@pytest_asyncio.fixture
async def attacker(house: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo) -> Attacker:
    """Its country is the operator's word."""
    await demo.database.execute("UPDATE account SET country = 'LT' WHERE id = 10")
    tokens = [{"Authorization": f"Bearer {await make_token(account)}"} for account in (21, 10)]
    return Attacker(house, *tokens)


async def stored(demo: OwnDemo) -> set[str]:
    """Every number that a call flow leads to."""
    rows = await demo.database.fetch(
        "SELECT target_number FROM callflow UNION SELECT target_number FROM callflow_reference"
    )
    return {number for (number,) in rows if number}


async def dialled(attacker: Attacker, demo: OwnDemo) -> set[str]:
    """Every number that a switch is told to dial now, for a call to any device in any state, to its end."""
    devices = dict(await demo.database.fetch("SELECT id, name FROM device"))
    found: set[str] = set()
    for device in devices:
        for which in STATES:
            answer = await ask(attacker.house, "opensips", device=str(device), state=which)
            while answer["action"] in {"forward", "ring"} and answer["path"]:
                found.add(answer["dial"].removeprefix("sip:").partition("@")[0])
                answer = await ask(attacker.house, "opensips", path=answer["path"], state="no_answer")
    return {dialled for dialled in found if NUMBER.fullmatch(dialled)} - set(devices.values())


def international(number: str) -> str:
    return "+" + number.removeprefix("+").removeprefix("00")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_no_number_that_earns_is_reached(attacker: Attacker, demo: OwnDemo, way: Way) -> None:
    # What a number is, is read in one place: each spelling by one call of each face, some of them by every way.
    for number in PREMIUM if way in {by_mor, by_all_states} else PREMIUM[::4]:
        await way(attacker, number)
    assert await stored(demo) <= {"+37061234567"}
    assert await dialled(attacker, demo) <= {"+37061234567"}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_each_way_leads_to_a_number_that_may_be(attacker: Attacker, demo: OwnDemo, way: Way) -> None:
    await way(attacker, "+37061111111")
    set_so = "SELECT count(*) FROM callflow_history WHERE kind = 'callflow' AND after::text LIKE '%+37061111111%'"
    assert await demo.database.fetchval(set_so) > 0


async def test_what_was_once_allowed_comes_back_in_no_way(attacker: Attacker, demo: OwnDemo) -> None:
    await demo.database.execute("""UPDATE account SET targets = '{"allow": ["+370", "+370900"]}' WHERE id = 10""")
    sent = {"name": "old", "where": {"devices": [200]}, "set": {"busy": state("+37090012345")}}
    profile = f"/v1/profiles/{(await attacker.post('/v1/profiles', sent)).json()['id']}"
    assert (await attacker.post(f"{profile}/apply")).status_code == 200
    assert (await attacker.put(f"{FLOW}/before_call", state("+37090012345"))).status_code == 200
    assert await dialled(attacker, demo) == {"+37090012345"}
    await demo.database.execute("UPDATE account SET targets = NULL WHERE id = 10")
    assert await dialled(attacker, demo) == set()
    assert (await attacker.post(f"{profile}/withdraw")).status_code == 200
    assert (await attacker.put(f"{FLOW}/before_call", {"otherwise": {"action": "empty"}})).status_code == 200
    assert await stored(demo) == set()
    newest = (await attacker.house.get(f"{FLOW}/history", headers=attacker.user)).json()["items"][0]
    for refused in (
        await attacker.post(f"/v1/history/{newest['id']}/undo"),
        await attacker.post(f"{FLOW}/restore", {"as_of": newest["at"], "force": True}),
        await attacker.post(f"{profile}/apply"),
    ):
        assert refused.status_code in {200, 422}
        assert refused.status_code == 200 or problem(refused) == (422, "target-refused")
    assert await stored(demo) == set()


EARNING: Final = tuple(f"+3716123456{place}" for place in range(6))
"""Mobile numbers that no plan tells to earn."""


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_of_new_numbers_two_are_reached_and_no_third(attacker: Attacker, demo: OwnDemo, way: Way) -> None:
    await demo.database.execute("""UPDATE account SET targets = '{"max_new_per_day": 2}' WHERE id = 10""")
    for number in EARNING:
        await way(attacker, number)
    await demo.database.execute("DELETE FROM callflow WHERE device_id <> 200")
    reached = {international(number) for number in await stored(demo)} & set(EARNING)
    assert len(reached) <= 2
    taken = await demo.database.fetch("SELECT account_id, count(*) FROM taken_number GROUP BY account_id")
    assert all(count <= 2 for _, count in taken)


async def test_all_ways_together_reach_two_and_no_third(attacker: Attacker, demo: OwnDemo) -> None:
    await demo.database.execute("""UPDATE account SET targets = '{"max_new_per_day": 2}' WHERE id = 10""")
    for way, number in zip(WAYS.values(), EARNING * len(WAYS), strict=False):
        await way(attacker, number)
    taken = await demo.database.fetch("SELECT account_id, count(*) FROM taken_number GROUP BY account_id")
    assert {account: count for account, count in taken if account == 21} == {21: 2}


async def test_at_once_two_are_reached_and_no_third(attacker: Attacker, demo: OwnDemo) -> None:
    await demo.database.execute("""UPDATE account SET targets = '{"max_new_per_hour": 2}' WHERE id = 10""")
    ways = (by_mor, by_each_state, by_all_states, by_a_rule, by_many_at_once, by_what_is_off_at_first)
    await asyncio.gather(*(way(attacker, number) for way, number in zip(ways, EARNING, strict=True)))
    assert len({international(number) for number in await stored(demo)}) <= 2


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_a_hold_is_ended_in_no_way(attacker: Attacker, demo: OwnDemo, way: Way) -> None:
    await demo.database.execute("""UPDATE account SET targets = '{"hold_minutes": 60}' WHERE id = 10""")
    await attacker.put(f"{FLOW}/failed", state(EARNING[0]))
    for number in (EARNING[0], EARNING[1], f"*31#00{EARNING[2][1:]}", f"011{EARNING[3][1:]}"):
        await way(attacker, number)
        await way(attacker, number)
    assert await dialled(attacker, demo) == set()


async def test_a_held_number_that_moves_with_its_device_is_held_there_too(attacker: Attacker, demo: OwnDemo) -> None:
    await demo.database.execute("""UPDATE account SET targets = '{"hold_minutes": 60}' WHERE id = 10""")
    await attacker.put(f"{FLOW}/busy", state(EARNING[0]))
    assert (await attacker.patch("/v1/devices/200", {"owner": "reseller"})).status_code == 200
    for number in EARNING[:2]:
        for which in STATES:
            await attacker.put(f"{FLOW}/{which}", state(number), headers=attacker.reseller)
    assert await dialled(attacker, demo) == set()


async def test_what_a_profile_puts_back_ends_no_hold_where_its_device_moved(attacker: Attacker, demo: OwnDemo) -> None:
    await demo.database.execute("""UPDATE account SET targets = '{"hold_minutes": 60}' WHERE id = 10""")
    await attacker.put(f"{FLOW}/busy", state(EARNING[0]))
    sent = {
        "name": "p",
        "owner": "reseller",
        "where": {"devices": [200]},
        "set": {"busy": {"otherwise": {"action": "empty"}}},
    }
    added = await attacker.post("/v1/profiles", sent, headers=attacker.reseller)
    profile = f"/v1/profiles/{added.json()['id']}"
    assert (await attacker.post(f"{profile}/apply", headers=attacker.reseller)).json()["changed"] == 1
    assert (await attacker.patch("/v1/devices/200", {"owner": "reseller"})).status_code == 200
    assert (await attacker.post(f"{profile}/withdraw", headers=attacker.reseller)).json()["restored"] == 1
    await attacker.put(f"{FLOW}/before_call", state(EARNING[1]), headers=attacker.reseller)
    assert await stored(demo) == set(EARNING[:2])
    assert await dialled(attacker, demo) == set()


async def test_a_device_takes_its_numbers_along_to_an_owner_who_may_have_them(
    attacker: Attacker, demo: OwnDemo
) -> None:
    await attacker.put(f"{FLOW}/busy", {"otherwise": forward(*EARNING[:3])})
    for policy, reason in (
        ('{"deny": ["+371"]}', "denied"),
        ('{"max_new_per_day": 2}', "too-many-new"),
    ):
        await demo.database.execute("UPDATE account SET targets = $1::text::jsonb WHERE id = 10", policy)
        response = await attacker.patch("/v1/devices/200", {"owner": "reseller"})
        assert (problem(response), response.json()["reason"]) == ((422, "target-refused"), reason)
    await demo.database.execute("""UPDATE account SET targets = '{"max_new_per_day": 3}' WHERE id = 10""")
    assert (await attacker.patch("/v1/devices/200", {"owner": "reseller"})).status_code == 200
    taken = await demo.database.fetch("SELECT account_id, number FROM taken_number ORDER BY number")
    assert [tuple(row) for row in taken] == [(10, number) for number in EARNING[:3]]


async def test_refused_targets_are_counted_wherever_they_are_refused(attacker: Attacker, demo: OwnDemo) -> None:
    async def counted() -> dict[str, float]:
        text = (await attacker.house.get("/metrics")).text
        found = re.findall(r'^callflow_targets_refused_total\{reason="(.+)"\} (.+)$', text, re.MULTILINE)
        return {reason: float(number) for reason, number in found}

    before = await counted()
    await attacker.put(f"{FLOW}/busy", state("+37090012345"))
    await by_mor(attacker, "+37090012345")
    await demo.database.execute(
        "INSERT INTO callflow (device_id, state, priority, action, target_number, caller_id) "
        "VALUES (200, 'busy', 1, 'forward', '112', 'device')"
    )
    await ask(attacker.house, "opensips", device="200", state="busy")
    changed = {reason: number - before[reason] for reason, number in (await counted()).items()}
    assert {reason: number for reason, number in changed.items() if number} == {"premium-rate": 5, "emergency": 1}


@pytest.mark.parametrize("face", FLAT_FACES)
async def test_what_stands_in_the_tables_all_the_same_is_dialled_by_no_switch(
    attacker: Attacker, demo: OwnDemo, face: str
) -> None:
    for which in STATES:
        await demo.database.execute(
            "INSERT INTO callflow (device_id, state, priority, action, target_number, caller_id) "
            "VALUES (200, $1, 1, 'forward', '+37090012345', 'device')",
            which,
        )
        answer = await ask(attacker.house, face, device="200", state=which)
        action = "ring" if which == "before_call" else "end"
        assert (answer["action"], "90012345" in answer["dial"]) == (action, False)


async def test_what_is_refused_is_told_of_under_an_idempotency_key_too(
    attacker: Attacker, admin: dict[str, str]
) -> None:
    sent = {"where": {"devices": [200]}, "set": {"busy": state("+37090012345")}}
    key = {"Idempotency-Key": "quiet"}
    for _ in range(2):
        response = await attacker.post("/v1/bulk", sent, headers=attacker.user | key)
        assert (response.status_code, response.json()["type"]) == (422, "/problems/target-refused")
    items = (await attacker.house.get("/v1/alerts", headers=admin)).json()["items"]
    assert [(each["number"], each["account"], each["times"]) for each in items] == [("+37090012345", "user2", 1)]


async def test_alerts_fill_no_disk(attacker: Attacker, demo: OwnDemo) -> None:
    for place in range(110):
        await attacker.put(f"{FLOW}/busy", state(f"+370900{place:05}"))
    rows = await demo.database.fetch("SELECT number, times FROM target_alert ORDER BY id")
    assert (len(rows), rows[0]["times"], rows[-1]["times"]) == (100, 1, 11)
    assert await demo.database.fetchval("SELECT count(*) FROM callflow_history WHERE kind = 'target'") == 100


async def test_an_alert_is_told_by_the_feed(attacker: Attacker, admin: dict[str, str]) -> None:
    for _ in range(2):
        await attacker.put(f"{FLOW}/busy", state("+37090012345"))
    await by_mor(attacker, "112")
    for headers in (admin, attacker.user):
        items = (await attacker.house.get("/v1/changes", headers=headers)).json()["items"]
        told = [(each["kind"], each["device"], each["account"], each["face"]) for each in items]
        assert told == [("target", 200, "user2", "json"), ("target", 200, "user2", "mor")]
        assert [(each["after"]["number"], each["after"]["reason"]) for each in items] == [
            ("+37090012345", "premium-rate"),
            ("112", "emergency"),
        ]


async def test_what_the_history_holds_is_not_new(attacker: Attacker, demo: OwnDemo) -> None:
    for number in EARNING[:3]:
        assert (await attacker.put(f"{FLOW}/busy", state(number))).status_code == 200
    await demo.database.execute("UPDATE callflow_history SET changed_at = changed_at - interval '2 days'")
    await demo.database.execute("""UPDATE account SET targets = '{"max_new_per_day": 0}' WHERE id = 10""")
    for number in EARNING[:3]:
        assert (await attacker.put(f"{FLOW}/busy", state(number))).status_code == 200
    assert problem(await attacker.put(f"{FLOW}/busy", state(EARNING[3]))) == (422, "target-refused")


async def test_what_is_tried_out_or_kept_for_later_takes_up_nothing(attacker: Attacker, demo: OwnDemo) -> None:
    await demo.database.execute(
        """UPDATE account SET targets = '{"max_new_per_day": 1, "hold_minutes": 60}' WHERE id = 10"""
    )
    sent = {"where": {"devices": [200]}, "set": {"busy": state(EARNING[0])}, "dry_run": True}
    assert (await attacker.post("/v1/bulk", sent)).status_code == 200
    sent = {"name": "later", "where": {"devices": [200]}, "set": {"busy": state(EARNING[1])}}
    assert (await attacker.post("/v1/profiles", sent)).status_code == 201
    assert await demo.database.fetchval("SELECT count(*) FROM taken_number") == 0
    assert (await attacker.put(f"{FLOW}/busy", state(EARNING[2]))).status_code == 200
