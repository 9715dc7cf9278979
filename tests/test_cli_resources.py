"""The commands for resources, run as a program: what they print, change and refuse is the JSON API's."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from postgresql import fetch
from program import run

ADDED = """\
id             421
technology     SIP
name           103
label          SIP/103
owner          user1
caller_number
caller_name
ring_seconds   60
dids
"""


def told(text: str) -> str:
    """What is printed, without the blanks that end a line."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def history(url: SecretStr) -> list[Any]:
    statement = "SELECT face, kind, resource, address, account_id FROM callflow_history ORDER BY id"
    rows = asyncio.run(fetch(url, statement))
    return [tuple(row) for row in rows]


def test_a_device_is_added_changed_and_deleted_and_the_history_knows_the_command(own_url: SecretStr) -> None:
    added = run("devices", "add", "technology=SIP", "name=103", "owner=user1", url=own_url)
    assert (added.returncode, told(added.stdout), added.stderr) == (0, ADDED, "")
    changed = run("devices", "set", "421", "ring_seconds=20", "caller_name=Hall", "--json", url=own_url)
    document = json.loads(changed.stdout)
    assert document.pop("etag")
    assert document == {
        "id": 421,
        "technology": "SIP",
        "name": "103",
        "label": "SIP/103",
        "owner": "user1",
        "caller_number": "",
        "caller_name": "Hall",
        "ring_seconds": 20,
        "dids": [],
    }
    emptied = run("devices", "set", "421", "caller_name=", url=own_url)
    assert "caller_name\n" in told(emptied.stdout)
    deleted = run("devices", "delete", "421", url=own_url)
    assert (deleted.returncode, deleted.stdout) == (0, "The device 421 is deleted.\n")
    assert history(own_url) == [("cli", "device", "421", None, 1)] * 4


def test_every_wrong_field_is_told_on_a_line_of_its_own(own_url: SecretStr) -> None:
    done = run("devices", "add", "technology=S?", "owner=nobody", "colour=red", url=own_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "callflow-service: The request says something that cannot be.",
        "  technology: must be a letter of A-Z and then at most 15 letters or digits",
        "  name: field required",
        "  colour: is not known here",
    ]
    used = run("devices", "delete", "4", url=own_url)
    assert (used.returncode, used.stderr.splitlines()[1:]) == (1, ["  DID 1"])
    assert run("devices", "delete", "4", "--cascade", url=own_url).returncode == 0
    assert json.loads(run("dids", "show", "1", "--json", url=own_url).stdout)["device"] is None
    assert run("accounts", "show", "999", url=own_url).returncode == 1
    assert run("devices", "add", "technology", url=own_url).returncode == 2
    assert {row[0] for row in history(own_url)} == {"cli"}


def test_a_list_is_a_table_or_one_document_and_goes_through_every_page(own_url: SecretStr) -> None:
    numbered = "SELECT 1000 + n, 'SIP', 'bulk' || n, 20, '', '', 60 FROM generate_series(1, 2500) AS n"
    asyncio.run(fetch(own_url, f"INSERT INTO device {numbered}"))
    listed = json.loads(run("devices", "list", "--q", "SIP/bulk", "--json", url=own_url).stdout)
    assert [item["id"] for item in listed["items"]] == list(range(1001, 3501))
    assert listed["next"] is None
    some = json.loads(run("devices", "list", "--q", "SIP/bulk", "--limit", "1500", "--json", url=own_url).stdout)
    assert [item["id"] for item in some["items"]] == list(range(1001, 2501))
    assert some["next"].startswith("/v1/devices?")
    table = run("devices", "list", "--q", "SIP/bulk", "--descending", url=own_url).stdout.splitlines()
    assert table[0].split() == ["id", "label", "owner", "caller_number", "caller_name", "ring_seconds", "dids"]
    assert [line.split()[0] for line in table[1:]] == [str(id_) for id_ in range(3500, 1000, -1)]


def test_lists_are_narrowed_by_options(own_url: SecretStr) -> None:
    def ids(*arguments: str) -> list[Any]:
        return [item["id"] for item in json.loads(run(*arguments, "--json", url=own_url).stdout)["items"]]

    assert ids("devices", "list", "--owner", "user2", "--technology", "fax") == [201]
    assert ids("devices", "list", "--forwarding") == []
    assert ids("accounts", "list", "--role", "accountant") == [12]
    assert ids("dids", "list", "--device", "4") == [1]
    assert ids("switches", "list", "--q", "wit") == ["switch"]


def test_objects_lists_and_json_are_written_as_pairs(own_url: SecretStr) -> None:
    pairs = ["trunk.identity=forwarder", "trunk.headers=history_info", "dial.SIP=PJSIP/{name}", "early_media=true"]
    shown = json.loads(run("switches", "set", "switch", *pairs, "dial.FAX:=null", "--json", url=own_url).stdout)
    assert shown["trunk"] == {"from_host": None, "identity": "forwarder", "headers": ["history_info"]}
    assert (shown["dial"], shown["early_media"]) == ({"SIP": "PJSIP/{name}"}, True)
    shown = json.loads(
        run("accounts", "set", "20", "allowed_addresses=192.0.2.0/24, 2001:db8::/32", "--json", url=own_url).stdout
    )
    assert shown["allowed_addresses"] == ["192.0.2.0/24", "2001:db8::/32"]
    assert run("accounts", "set", "20", "blocked:=maybe", url=own_url).returncode == 2
    assert run("accounts", "set", "20", "name=a", "name=b", url=own_url).returncode == 2


def test_a_secret_comes_from_standard_input_and_is_shown_by_nothing(own_url: SecretStr) -> None:
    pairs = ["username=pbx2", "password=-", "domain=192.0.2.7"]
    done = run("switches", "add", *pairs, url=own_url, stdin="a-long-and-random-secret\n")
    assert done.returncode == 0
    wrong = run("switches", "add", *pairs, "colour=red", url=own_url, stdin="a-long-and-random-secret\n")
    assert wrong.returncode == 1
    for output in (done.stdout, done.stderr, wrong.stdout, wrong.stderr):
        assert "random-secret" not in output
    stored = asyncio.run(fetch(own_url, "SELECT password_hash FROM switch_user WHERE username = 'pbx2'"))
    assert stored[0]["password_hash"]


def test_a_command_speaks_for_an_admin_and_nobody_else(own_url: SecretStr) -> None:
    asyncio.run(
        fetch(
            own_url,
            "INSERT INTO account SELECT 30, 'second', 'Second', role, owner_id, NULL, NULL, NULL, false, false, true, "
            "NULL FROM account WHERE id = 1",
        )
    )
    for account in ("reseller", "nobody"):
        done = run("dids", "set", "3", "device=5", "--account", account, url=own_url)
        assert (done.returncode, done.stderr) == (1, f"callflow-service: There is no admin account {account}.\n")
    # The operator's own command goes on where the account's requests are refused.
    assert run("dids", "set", "3", "device=5", "--account", "second", url=own_url).returncode == 0
    assert history(own_url) == [("cli", "did", "3", None, 30)]


def test_a_database_without_an_admin_or_without_tables_is_told_of(
    migrated_url: SecretStr, create_database: Callable[..., SecretStr]
) -> None:
    bare = run("devices", "list", url=create_database())
    assert (bare.returncode, bare.stderr) == (
        1,
        "callflow-service: The database has no tables yet; run 'callflow-service migrate'.\n",
    )
    done = run("devices", "list", url=migrated_url)
    assert (done.returncode, done.stderr) == (1, "callflow-service: There is no admin account; load one first.\n")
