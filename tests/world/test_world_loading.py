"""A world file in the database: all of it or nothing, and once is as good as twice."""

import asyncio
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from callflow_service.credentials.api_keys import Keyring, new_key
from callflow_service.credentials.passwords import is_password
from callflow_service.credentials.switch_passwords import is_switch_password
from callflow_service.domain.errors import StorageUnavailable
from callflow_service.intake.applying import MAX_DIFFERENCES, Counts
from callflow_service.resources.models import Section
from callflow_service.settings import driver_url
from callflow_service.world.errors import WorldError
from callflow_service.world.loading import DEMO_FILE, is_empty, load_world
from encryption import KEYS
from postgresql import asyncpg_url

TABLES = ("account", "device", "did", "switch_user")
NOTHING = Counts(0, 0, 0)
CONDITIONS = {Section.SCHEDULES: NOTHING, Section.CALLER_LISTS: NOTHING, Section.FLOWS: NOTHING}


@pytest.fixture
def url(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> SecretStr:
    """An empty database of the test's own."""
    return create_database(migrated_url)


@pytest.fixture(scope="module")
def loaded_template(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> SecretStr:
    """The demo's world, to be copied."""
    template = create_database(migrated_url)
    asyncio.run(load_world(template, DEMO_FILE, keys=KEYS, demo=True))
    return template


@pytest.fixture
def loaded_url(create_database: Callable[..., SecretStr], loaded_template: SecretStr) -> SecretStr:
    """A database of the test's own with the demo's world."""
    return create_database(loaded_template)


async def fetch(url: SecretStr, statement: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(asyncpg_url(url))
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def contents(url: SecretStr) -> dict[str, list[tuple[Any, ...]]]:
    connection = await asyncpg.connect(asyncpg_url(url))
    try:
        rows = {table: await connection.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in TABLES}  # noqa: S608 - constants
    finally:
        await connection.close()
    return {table: [tuple(row) for row in found] for table, found in rows.items()}


def write(folder: Path, text: str, name: str = "world.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


async def mistake(url: SecretStr, file: Path) -> str:
    """The sentence about a wrong file, without the file's folder; nothing has changed."""
    before = await contents(url)
    with pytest.raises(WorldError) as caught:
        await load_world(url, file, keys=KEYS)
    assert await contents(url) == before
    return str(caught.value).removeprefix(f"{file.parent}/")


async def test_the_demo_is_the_world_of_the_contract(loaded_url: SecretStr) -> None:
    found = await contents(loaded_url)
    secrets = {row[1]: (row[5], row[6]) for row in found["account"]}
    assert {row[12:] for row in found["account"]} == {(None, None, None, None)}
    assert [(*row[:5], *row[7:12]) for row in found["account"]] == [
        (1, "admin", "System Admin", "admin", None, None, False, True, False, None),
        (10, "reseller", "Good Reseller", "reseller", 1, None, True, True, False, None),
        (11, "basic", "Basic Reseller", "reseller", 1, None, False, True, False, None),
        (12, "accountant", "The Accountant", "accountant", 1, None, False, True, False, None),
        (13, "legacy", "Legacy Reseller", "reseller", 1, "compat", True, True, False, None),
        (14, "open", "Open Reseller", "reseller", 1, "off", True, True, False, None),
        (15, "closed", "Closed Reseller", "reseller", 1, None, True, False, False, None),
        (20, "user1", "Test User #1", "user", 1, None, False, True, False, None),
        (21, "user2", "Test User #2", "user", 10, None, False, True, False, None),
        (22, "user3", "Test User #3", "user", 11, None, False, True, False, None),
        (23, "blocked", "Blocked User", "user", 1, None, False, True, True, None),
    ]
    assert all(key.startswith("fernet:") for key, _ in secrets.values() if key)
    assert {username: KEYS.decrypt(key) for username, (key, _) in secrets.items() if key} == {
        "admin": "456789",
        "reseller": "reseller-secret",
        "basic": "basic-secret",
        "legacy": "legacy-secret",
        "open": "open-secret",
        "closed": "closed-secret",
    }
    hashes = {username: password_hash for username, (_, password_hash) in secrets.items() if password_hash}
    assert set(hashes) == {"admin", "open"}
    assert is_password("admin1", hashes["admin"])
    assert is_password("open-sesame", hashes["open"])
    assert found["device"] == [
        (2, "FAX", "102", 20, "102", "", 60),
        (4, "IAX2", "1002", 20, "37060001002", "Front desk", 60),
        (5, "IAX2", "101", 20, "37060000101", "Back office", 60),
        (100, "SIP", "101", 20, "101", "", 60),
        (200, "SIP", "2001", 21, "37060002001", "", 30),
        (201, "FAX", "2002", 21, "", "", 30),
        (300, "SIP", "3001", 22, "", "", 60),
        (400, "SIP", "4001", 13, "37060004001", "", 60),
        (410, "SIP", "4101", 14, "37060004101", "", 60),
        (420, "SIP", "4201", 15, "37060004201", "", 60),
    ]
    assert found["did"] == [
        (1, "37052000001", 4),
        (2, "37052000002", 5),
        (3, "37052000003", None),
        (4, "37052000004", 200),
    ]
    ((username, password_hash, *rest),) = found["switch_user"]
    assert (username, *rest) == ("switch", "127.0.0.1", True, "{}", "busy", "failed", False, None)
    assert is_switch_password("switch-secret", password_hash)


async def test_a_database_is_empty_until_it_holds_an_account(url: SecretStr, loaded_url: SecretStr) -> None:
    assert await is_empty(url)
    assert not await is_empty(loaded_url)


async def test_the_first_load_adds_and_the_second_changes_nothing(url: SecretStr) -> None:
    report = await load_world(url, DEMO_FILE, keys=KEYS, demo=True)
    assert report.counts == CONDITIONS | {
        Section.ACCOUNTS: Counts(11, 0, 0),
        Section.DEVICES: Counts(10, 0, 0),
        Section.DIDS: Counts(4, 0, 0),
        Section.SWITCHES: Counts(1, 0, 0),
    }
    first = await contents(url)
    versions = await fetch(url, "SELECT xmin, xmax FROM account UNION ALL SELECT xmin, xmax FROM device")
    report = await load_world(url, DEMO_FILE, keys=KEYS, demo=True)
    assert report.counts == CONDITIONS | {
        Section.ACCOUNTS: Counts(0, 0, 11),
        Section.DEVICES: Counts(0, 0, 10),
        Section.DIDS: Counts(0, 0, 4),
        Section.SWITCHES: Counts(0, 0, 1),
    }
    assert await contents(url) == first
    assert await fetch(url, "SELECT xmin, xmax FROM account UNION ALL SELECT xmin, xmax FROM device") == versions


async def test_a_dry_run_tells_the_difference_and_changes_nothing(loaded_url: SecretStr, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
accounts:
  - { id: 1, username: admin, name: System Admin, role: admin, api_key: another-key-that-is-long }
  - { id: 20, username: user1, name: "Test User #1", role: user, owner: admin, password: s3cret, blocked: true }
  - { id: 22, username: renamed, name: "Test User #3", role: user, owner: basic }
  - { id: 30, username: user4, role: user, owner: reseller }
devices:
  - { id: 4, technology: IAX2, name: 1002, owner: user1, caller_name: Front desk, caller_number: 37060001002,
      ring_seconds: 30 }
  - { id: 5, technology: IAX2, name: 101, owner: user4, caller_number: 37060000101 }
  - { id: 6, technology: IAX2, name: 103, owner: renamed }
dids:
  - { id: 3, number: 37052000003, device: 6 }
  - { id: 4, number: 37052000004 }
switches:
  - { username: switch, password: s3cret-s3cret-s3cret, domain: 127.0.0.1, dial: { SIP: "PJSIP/{name}", FAX: } }
""",
    )
    before = await contents(loaded_url)
    report = await load_world(loaded_url, file, keys=KEYS, dry_run=True)
    assert await contents(loaded_url) == before
    assert report.differences == [
        "~ account 1 api_key: changed, password: removed",
        "~ account 20 password: added, blocked: false -> true",
        '~ account 22 username: "user3" -> "renamed"',
        "+ account 30 user4",
        "~ device 4 ring_seconds: 60 -> 30",
        '~ device 5 owner: "user1" -> "user4", caller_name: "Back office" -> ""',
        "+ device 6 IAX2/103",
        "~ DID 3 device: nothing -> 6",
        "~ DID 4 device: 200 -> nothing",
        '~ switch switch password: changed, dial: {} -> {"FAX": null, "SIP": "PJSIP/{name}"}',
    ]
    assert report.counts == CONDITIONS | {
        Section.ACCOUNTS: Counts(1, 3, 0),
        Section.DEVICES: Counts(1, 2, 0),
        Section.DIDS: Counts(0, 2, 0),
        Section.SWITCHES: Counts(0, 1, 0),
    }
    applied = await load_world(loaded_url, file, keys=KEYS)
    assert applied.counts == report.counts
    assert applied.differences == []
    assert (await load_world(loaded_url, file, keys=KEYS, dry_run=True)).differences == []


async def test_what_the_file_does_not_name_stays(loaded_url: SecretStr, tmp_path: Path) -> None:
    before = await contents(loaded_url)
    await load_world(loaded_url, write(tmp_path, "dids: [{id: 9, number: 112, device: 300}]"), keys=KEYS)
    after = await contents(loaded_url)
    assert after == {**before, "did": [*before["did"], (9, "112", 300)]}


async def test_json_loads_what_yaml_loads(loaded_url: SecretStr, tmp_path: Path) -> None:
    device = {"id": 4, "technology": "IAX2", "name": "1002", "owner": "user1", "caller_name": "Zoë 😀"}
    file = write(tmp_path, json.dumps({"devices": [device]}, indent="\t"), "world.json")
    await load_world(loaded_url, file, keys=KEYS)
    assert (await contents(loaded_url))["device"][1] == (4, "IAX2", "1002", 20, "", "Zoë 😀", 60)


async def test_usernames_and_numbers_can_be_swapped(loaded_url: SecretStr, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
accounts:
  - { id: 20, username: user2, name: "Test User #1", role: user, owner: admin }
  - { id: 21, username: user1, name: "Test User #2", role: user, owner: reseller }
dids:
  - { id: 1, number: +37052000002, device: 4 }
  - { id: 2, number: 37052000001, device: 5 }
devices:
  - { id: 300, technology: SIP, name: 3001, owner: user1 }
""",
    )
    report = await load_world(loaded_url, file, keys=KEYS)
    assert report.counts == CONDITIONS | {
        Section.ACCOUNTS: Counts(0, 2, 0),
        Section.DEVICES: Counts(0, 1, 0),
        Section.DIDS: Counts(0, 2, 0),
        Section.SWITCHES: NOTHING,
    }
    after = await contents(loaded_url)
    assert [row[:2] for row in after["account"] if row[0] in {20, 21}] == [(20, "user2"), (21, "user1")]
    assert after["did"][:2] == [(1, "+37052000002", 4), (2, "37052000001", 5)]
    assert [row[3] for row in after["device"] if row[0] == 300] == [21]


async def test_an_owner_may_stand_below_those_whom_it_owns(url: SecretStr, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
devices: [{ id: 1, technology: SIP, name: 1, owner: last }]
accounts:
  - { id: 3, username: last, role: user, owner: middle }
  - { id: 2, username: middle, role: reseller, owner: first }
  - { id: 1, username: first, role: admin }
""",
    )
    await load_world(url, file, keys=KEYS)
    assert await fetch(url, "SELECT id, owner_id FROM account ORDER BY id") == [(1, None), (2, 1), (3, 2)]


async def test_an_account_keeps_its_hash_until_its_password_changes(loaded_url: SecretStr, tmp_path: Path) -> None:
    hashes = "SELECT password_hash FROM account WHERE username = 'admin'"
    text = "accounts: [{{id: 1, username: admin, name: System Admin, role: admin, password: {}}}]"
    before = await fetch(loaded_url, hashes)
    await load_world(loaded_url, write(tmp_path, text.format("admin1")), keys=KEYS)
    assert await fetch(loaded_url, hashes) == before
    await load_world(loaded_url, write(tmp_path, text.format("admin2")), keys=KEYS)
    ((after,),) = await fetch(loaded_url, hashes)
    assert is_password("admin2", after)


async def test_an_api_key_is_encrypted_and_stays_as_it_is_until_it_changes(
    loaded_url: SecretStr, tmp_path: Path
) -> None:
    stored = "SELECT api_key FROM account WHERE username = 'admin'"
    text = "accounts: [{{id: 1, username: admin, name: System Admin, role: admin, password: admin1, api_key: {}}}]"
    before = await fetch(loaded_url, stored)
    same = await load_world(loaded_url, write(tmp_path, text.format("456789")), keys=KEYS, dry_run=True)
    assert (same.counts[Section.ACCOUNTS], same.differences) == (Counts(0, 0, 1), [])
    assert await fetch(loaded_url, stored) == before
    await load_world(loaded_url, write(tmp_path, text.format("another-key")), keys=KEYS)
    ((after,),) = await fetch(loaded_url, stored)
    assert after.startswith("fernet:")
    assert KEYS.decrypt(after) == "another-key"


async def test_an_api_key_from_before_encryption_counts_as_unchanged(loaded_url: SecretStr) -> None:
    await fetch(loaded_url, "UPDATE account SET api_key = '456789' WHERE username = 'admin'")
    report = await load_world(loaded_url, DEMO_FILE, keys=KEYS, demo=True)
    assert report.counts[Section.ACCOUNTS] == Counts(0, 0, 11)
    assert await fetch(loaded_url, "SELECT api_key FROM account WHERE username = 'admin'") == [("456789",)]


async def test_an_api_key_that_cannot_be_decrypted_any_more_is_loaded_anew(loaded_url: SecretStr) -> None:
    others = Keyring(SecretStr(new_key()), Path("nowhere"))
    report = await load_world(loaded_url, DEMO_FILE, keys=others, dry_run=True, demo=True)
    assert report.differences[0] == "~ account 1 api_key: changed"
    await load_world(loaded_url, DEMO_FILE, keys=others, demo=True)
    ((stored,),) = await fetch(loaded_url, "SELECT api_key FROM account WHERE username = 'admin'")
    assert others.decrypt(stored) == "456789"
    again = await load_world(loaded_url, DEMO_FILE, keys=others, demo=True)
    assert again.counts[Section.ACCOUNTS] == Counts(0, 0, 11)


async def test_allowed_addresses_are_addresses_and_networks_in_the_order_of_the_file(
    loaded_url: SecretStr, tmp_path: Path
) -> None:
    stored = "SELECT allowed_addresses::text[] FROM account WHERE username = 'user3'"
    text = (
        "accounts:\n  - id: 22\n    username: user3\n    name: 'Test User #3'\n    role: user\n    owner: basic\n"
        "    allowed_addresses: {}\n"
    )
    networks = write(
        tmp_path, text.format("[192.0.2.0/24, 2001:db8::/32, 198.51.100.7, '::ffff:203.0.113.0/120', '::1']")
    )
    wanted = '["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32", "203.0.113.0/24", "::1/128"]'
    report = await load_world(loaded_url, networks, keys=KEYS, dry_run=True)
    assert report.differences == [f"~ account 22 allowed_addresses: nothing -> {wanted}"]
    await load_world(loaded_url, networks, keys=KEYS)
    assert await fetch(loaded_url, stored) == [(json.loads(wanted),)]
    assert (await load_world(loaded_url, networks, keys=KEYS)).counts[Section.ACCOUNTS] == Counts(0, 0, 1)
    for anywhere in ("[]", ""):
        await load_world(loaded_url, write(tmp_path, text.format(anywhere)), keys=KEYS)
        assert await fetch(loaded_url, stored) == [(None,)]


async def test_progress_ends_at_the_whole_file(loaded_url: SecretStr) -> None:
    told: list[tuple[int, int]] = []
    await load_world(loaded_url, DEMO_FILE, keys=KEYS, progress=lambda read, total: told.append((read, total)))
    size = DEMO_FILE.stat().st_size
    assert told[-1] == (size, size)
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "accounts:\n  - {id: 50, username: a, role: admin}\n  - {id: 50, username: b, role: admin}\n",
            "3: accounts[1].id: is the same as on line 2.",
        ),
        (
            "accounts:\n  - {id: 50, username: a, role: admin}\n  - {id: 51, username: a, role: admin}\n",
            "3: accounts[1].username: is the same as on line 2.",
        ),
        (
            "accounts:\n  - id: 50\n    username: user1\n    role: admin\n",
            "3: accounts[0].username: user1 is the username of account 20 already.",
        ),
        (
            "accounts:\n  - id: 50\n    username: a\n    role: user\n    owner: nobody\n",
            "5: accounts[0].owner: there is no account nobody.",
        ),
        (
            (
                "accounts:\n  - {id: 20, username: was1, role: user, owner: admin}\n"
                "  - {id: 50, username: a, role: user, owner: user1}\n"
            ),
            "3: accounts[1].owner: there is no account user1.",
        ),
        (
            "accounts:\n  - {id: 50, username: a, role: user, owner: a}\n",
            (
                "2: accounts[0].owner: a is of the role user; the owner of a user is a reseller or an "
                "admin, any other's an admin."
            ),
        ),
        (
            "accounts:\n  - {id: 50, username: a, role: reseller, owner: reseller}\n",
            (
                "2: accounts[0].owner: reseller is of the role reseller; the owner of a user is a reseller or "
                "an admin, any other's an admin."
            ),
        ),
        (
            "accounts:\n  - {id: 50, username: a, role: user, owner: accountant}\n",
            (
                "2: accounts[0].owner: accountant is of the role accountant; the owner of a user is a reseller "
                "or an admin, any other's an admin."
            ),
        ),
        (
            "accounts:\n  - id: 10\n    username: reseller\n    role: user\n    owner: admin\n",
            (
                "4: accounts[0].role: cannot be this, because account user2, which this file does not change, has "
                "this one for its owner."
            ),
        ),
        (
            (
                "devices:\n  - {id: 4, technology: SIP, name: 1, owner: user1}\n"
                "  - {id: 4, technology: SIP, name: 2, owner: user1}\n"
            ),
            "3: devices[1].id: is the same as on line 2.",
        ),
        (
            "devices:\n  - {id: 4, technology: SIP, name: 1, owner: nobody}\n",
            "2: devices[0].owner: there is no account nobody.",
        ),
        (
            "dids:\n  - {id: 1, number: 37052000001}\n  - {id: 1, number: 5}\n",
            "3: dids[1].id: is the same as on line 2.",
        ),
        (
            "dids:\n  - {id: 8, number: +5}\n  - {id: 9, number: 5}\n",
            "3: dids[1].number: is the same as on line 2.",
        ),
        (
            "dids:\n  - id: 9\n    number: +37052000004\n",
            "3: dids[0].number: +37052000004 is the number of DID 4 already.",
        ),
        ("dids:\n  - id: 9\n    number: 5\n    device: 77\n", "4: dids[0].device: there is no device 77."),
        (
            "switches:\n  - {username: switch, password: x}\n  - {username: switch, password: y}\n",
            "3: switches[1].username: is the same as on line 2.",
        ),
    ],
)
async def test_what_does_not_fit_together_is_told_with_its_line_and_changes_nothing(
    loaded_template: SecretStr, tmp_path: Path, text: str, sentence: str
) -> None:
    assert await mistake(loaded_template, write(tmp_path, text)) == f"world.yaml:{sentence}"


async def test_one_wrong_item_keeps_out_all_the_others(loaded_template: SecretStr, tmp_path: Path) -> None:
    text = DEMO_FILE.read_text().replace("ring_seconds: 30", "ring_seconds: 31") + "    domains: nothing\n"
    lines = text.count("\n")
    assert await mistake(loaded_template, write(tmp_path, text)) == (
        f"world.yaml:{lines}: switches[0].domains: is not known here; the keys are username, password, domain, "
        "trust_headers, dial, rejected, redirected, early_media, trunk, password_hash."
    )


async def test_a_did_that_a_call_flow_shows_cannot_leave_its_device(loaded_url: SecretStr, tmp_path: Path) -> None:
    await fetch(
        loaded_url,
        (
            "INSERT INTO callflow (device_id, state, priority, action, target_number, caller_id, caller_id_did_id) "
            "VALUES (4, 'busy', 1, 'forward', '112', 'did', 1)"
        ),
    )
    file = write(tmp_path, "dids:\n  - id: 1\n    number: 37052000001\n    device: 5\n")
    assert await mistake(loaded_url, file) == (
        "world.yaml:4: dids[0].device: must stay device 4, because a call flow of that device shows this DID as caller "
        "ID."
    )
    renumbered = write(tmp_path, "dids: [{id: 1, number: 37052000009, device: 4}]")
    assert (await load_world(loaded_url, renumbered, keys=KEYS)).counts[Section.DIDS] == Counts(0, 1, 0)


async def test_a_device_that_takes_faxes_for_another_stays_a_fax(loaded_url: SecretStr, tmp_path: Path) -> None:
    await fetch(
        loaded_url,
        (
            "INSERT INTO callflow (device_id, state, priority, action, target_device_id) "
            "VALUES (4, 'before_call', 1, 'fax_detect', 2)"
        ),
    )
    file = write(tmp_path, "devices:\n  - id: 2\n    technology: SIP\n    name: 102\n    owner: user1\n")
    assert await mistake(loaded_url, file) == (
        "world.yaml:3: devices[0].technology: must stay FAX, because the call flow of device 4 detects faxes for this "
        "one."
    )
    renamed = write(tmp_path, "devices: [{id: 2, technology: fax, name: 103, owner: user1, caller_number: 102}]")
    assert (await load_world(loaded_url, renamed, keys=KEYS)).counts[Section.DEVICES] == Counts(0, 1, 0)


async def test_a_file_that_cannot_be_read_is_told_so(loaded_template: SecretStr, tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert await mistake(loaded_template, missing) == "missing.yaml: cannot be read: No such file or directory."
    folder = tmp_path / "folder"
    folder.mkdir()
    assert await mistake(loaded_template, folder) == "folder: cannot be read: Is a directory."


async def test_two_loads_at_once_do_not_mix(loaded_url: SecretStr) -> None:
    connection = await asyncpg.connect(asyncpg_url(loaded_url))
    try:
        await connection.execute("SELECT pg_advisory_lock(7101301)")
        assert await mistake(loaded_url, DEMO_FILE) == (
            "demo.yaml: another file is being loaded; try again when that is done."
        )
    finally:
        await connection.close()


async def test_a_change_that_comes_in_between_is_told_and_changes_nothing(
    loaded_url: SecretStr, tmp_path: Path
) -> None:
    # A constraint that the load knows nothing of stands for whatever came in after its checks.
    await fetch(loaded_url, "ALTER TABLE device ADD CONSTRAINT ck_device_short CHECK (char_length(name) < 5)")
    file = write(tmp_path, "devices: [{id: 4, technology: SIP, name: 10000, owner: user1}]")
    assert await mistake(loaded_url, file) == (
        "world.yaml: somebody else has changed the database meanwhile, and something that stands against it "
        "(ck_device_short) is in the way; try again."
    )


INHERITING = (
    "Accounts that sign with an inherited key, 5 (accountant, user1, user2, user3, blocked): who signs with it is as "
    "powerful as its owner, so give each an api_key of its own."
)
SHORT_KEYS = (
    "Accounts with an api_key of fewer than 16 characters, 6 (admin, reseller, basic, legacy, open, ...): it can be "
    "guessed."
)
SHORT_PASSWORDS = (
    "Switches with a password of fewer than 16 characters, 1 (switch): it is stored as a fast hash, so it should be "
    "long and random."
)


async def test_an_unwise_world_is_loaded_with_warnings(url: SecretStr) -> None:
    assert (await load_world(url, DEMO_FILE, keys=KEYS)).warnings == [
        INHERITING,
        SHORT_KEYS,
        SHORT_PASSWORDS,
    ]


async def test_a_device_that_no_switch_can_ring_is_loaded_with_a_warning(loaded_url: SecretStr, tmp_path: Path) -> None:
    names = ("front desk", "café", "100.a_b+c*#-", "a/b")
    devices = "".join(
        f'  - {{ id: {number}, technology: SIP, name: "{name}", owner: user1 }}\n'
        for number, name in enumerate(names, 900)
    )
    report = await load_world(loaded_url, write(tmp_path, f"devices:\n{devices}"), keys=KEYS, demo=True)
    warning = (
        "Devices with a name that no dial string can hold, 3 (front desk, café, a/b): no switch can ring them; a name "
        "that can be dialled has letters of A-Z and a-z, digits and . _ + * # - alone."
    )
    assert report.warnings == [warning]


async def test_a_staged_value_goes_by_its_name_and_not_by_its_place(url: SecretStr, loaded_url: SecretStr) -> None:
    await fetch(url, "ALTER TABLE account DROP COLUMN name")
    await fetch(url, "ALTER TABLE account ADD COLUMN name text NOT NULL")
    await load_world(url, DEMO_FILE, keys=KEYS)
    names = "SELECT id, username, name, role FROM account ORDER BY id"
    assert await fetch(url, names) == await fetch(loaded_url, names)


async def test_the_demo_is_not_warned_of_its_short_secrets(url: SecretStr) -> None:
    assert (await load_world(url, DEMO_FILE, keys=KEYS, demo=True)).warnings == [
        INHERITING,
    ]


async def test_accounts_that_sign_with_nothing_or_their_own_are_no_reason_to_warn(
    url: SecretStr, tmp_path: Path
) -> None:
    file = write(
        tmp_path,
        """
accounts:
  - { id: 1, username: keyless, role: admin }
  - { id: 2, username: reseller, role: reseller, owner: keyless, api_key: 0123456789abcdef }
  - { id: 3, username: own, role: user, owner: reseller, api_key: 0123456789abcdef }
  - { id: 4, username: open, role: user, owner: reseller, hash_policy: off, password: s3cret }
  - { id: 5, username: nothing, role: user, owner: keyless }
switches:
  - { username: switch, password: 0123456789abcdef }
""",
    )
    assert (await load_world(url, file, keys=KEYS)).warnings == []


async def test_a_large_file_loads_in_flat_memory(url: SecretStr, tmp_path: Path) -> None:
    file = tmp_path / "world.json"
    devices = ",".join(
        f'{{"id":{number},"technology":"SIP","name":"{number}","owner":"admin","caller_name":"Zo\\u00eb {number}"}}'
        for number in range(20_000)
    )
    file.write_text(f'{{"accounts":[{{"id":1,"username":"admin","role":"admin"}}],"devices":[{devices}]}}')
    tracemalloc.start()
    try:
        report = await load_world(url, file, keys=KEYS, dry_run=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.counts[Section.DEVICES] == Counts(20_000, 0, 0)
    assert len(report.differences) == MAX_DIFFERENCES + 1
    assert report.differences[-1] == f"... and {20_001 - MAX_DIFFERENCES} more"
    # All items at once take twice as much.
    assert peak < 24_000_000


async def test_a_database_out_of_reach_is_no_fault_of_the_file(postgresql: SecretStr) -> None:
    nowhere = SecretStr("postgresql://nobody:secret@127.0.0.1:1/nothing")
    missing = driver_url(postgresql).set(database="missing").render_as_string(hide_password=False)
    for url in (nowhere, SecretStr(missing)):
        with pytest.raises(StorageUnavailable):
            await load_world(url, DEMO_FILE, keys=KEYS)
        with pytest.raises(StorageUnavailable):
            await is_empty(url)


def test_a_database_without_tables_asks_for_the_migration(create_database: Callable[..., SecretStr]) -> None:
    bare = create_database()
    for asked in (is_empty(bare), load_world(bare, DEMO_FILE, keys=KEYS)):
        with pytest.raises(StorageUnavailable) as caught:
            asyncio.run(asked)
        assert str(caught.value) == "The database has no tables yet; run 'callflow-service migrate'."


async def test_what_a_load_changes_is_in_the_history_and_no_secret_is(loaded_url: SecretStr, tmp_path: Path) -> None:
    text = """
accounts:
  - {id: 1, username: admin, name: Chief, role: admin, password: admin1, api_key: a-new-secret-key-for-the-admin}
  - {id: 24, username: user4, role: user, owner: admin, password: a-new-password}
devices:
  - {id: 2, technology: FAX, name: 102, owner: user1, caller_number: 102}
  - {id: 100, technology: SIP, name: 101, owner: user1, caller_number: 101, ring_seconds: 20}
dids:
  - {id: 1, number: 37052000002, device: 4}
  - {id: 2, number: 37052000001, device: 5}
switches:
  - {username: switch, password: another-switch-secret, domain: 127.0.0.1}
"""
    file = write(tmp_path, text)
    await load_world(loaded_url, file, keys=KEYS, dry_run=True)
    history = "SELECT kind, resource, device_id, before, after FROM callflow_history ORDER BY kind, resource"
    assert await fetch(loaded_url, history) == []
    listening, heard = await asyncpg.connect(asyncpg_url(loaded_url)), asyncio.Event()
    await listening.add_listener("callflow_changes", lambda *_: heard.set())
    await load_world(loaded_url, file, keys=KEYS)
    await asyncio.wait_for(heard.wait(), 60)
    await listening.close()
    rows = await fetch(loaded_url, history)
    told = []
    for kind, resource, device, before, after in rows:
        was, is_now = json.loads(before or "{}"), json.loads(after)
        told.append((kind, resource, device, {name: is_now[name] for name in is_now if is_now[name] != was.get(name)}))
    new_user = told[1][3]
    assert told == [
        ("account", "1", None, {"name": "Chief", "api_key_changed": True}),
        ("account", "24", None, new_user),
        ("device", "100", 100, {"ring_seconds": 20}),
        ("did", "1", 4, {"number": "37052000002"}),
        ("did", "2", 5, {"number": "37052000001"}),
        ("switch_user", "switch", None, {"password_hash_changed": True}),
    ]
    assert (new_user["username"], new_user["has_password"]) == ("user4", True)
    assert json.loads(rows[3][3])["number"] == "37052000001"
    for secret in ("fernet:", "argon2", "sha256$", "secret", "new-password"):
        assert secret not in str(rows)
    origins = await fetch(
        loaded_url,
        "SELECT DISTINCT account_id, face, address, request_id <> '', turn IS NOT NULL FROM callflow_history",
    )
    assert origins == [(None, "world", None, True, True)]
    await load_world(loaded_url, file, keys=KEYS)
    assert await fetch(loaded_url, history) == rows
