"""An export is a world file: `load` takes it back unchanged, and nobody reads a secret in it."""

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from callflow_service.credentials.api_keys import new_key
from postgresql import execute, fetch
from program import run

# Everything that is odd in a name, a dial string or a list.
ODD = """
UPDATE account SET name = 'Ž "q" \\ {x}: #1 ☎🙂 '' %', allowed_addresses = '{192.0.2.0/24,2001:db8::1/128}'
    WHERE id = 20;
UPDATE device SET caller_name = '*&![null, ~', caller_number = '+370' WHERE id = 4;
UPDATE device SET name = 'null' WHERE id = 300;
UPDATE switch_user SET dial = '{"SIP": "PJSIP/{name}", "FAX": null}', early_media = true,
    trunk = '{"from_host": null, "identity": "forwarder", "headers": []}';
INSERT INTO schedule VALUES
    (3, 'office: hours', 20, 'Europe/Vilnius', '[{"days": ["mon", "fri"], "from": "22:00", "to": "06:00"}]',
    '{"country": "LT", "region": null, "open": false}',
    '[{"from": "2026-12-24", "to": "2026-12-26", "open": true, "hours": [{"from": "10:00", "to": "14:00"}]}]');
INSERT INTO caller_list VALUES (7, 'friends', 20, '{+37061234567,3706*,anonymous}');
UPDATE account SET time_zone = 'Europe/Vilnius', country = 'LT', number_pattern = '[+]370[0-9]{8}',
    targets = '{"allow": ["+370"], "deny": ["+370900"], "max_length": 15, "max_new_per_hour": null,
    "max_new_per_day": null, "hold_minutes": 0}' WHERE id = 20;
"""
TABLES = ("account", "device", "did", "switch_user", "schedule", "caller_list", "caller_list_entry", "callflow")


FLOWS = """
flows:
- device: 4
  states:
    before_call: {otherwise: {action: fax_detect, to: {device: 2}}}
    no_answer:
      rules:
      - name: "after hours: ☎"
        if: {not_schedule: 3, caller: {not_list: 7}, called: [+37052000001]}
        do:
          action: forward
          steps:
          - {to: {device: 5}, ring_seconds: 15, caller_id: {kind: source}}
          - to: {number: +37062699289}
            ring_seconds: 20
            caller_id: {kind: did, did: 1}
            held_until: "2026-11-27T10:00:00Z"
          then: {action: voicemail, of: {device: 4}}
      - {name: strangers, enabled: false, if: {caller: anonymous}, do: {action: end, cause: 603}}
      otherwise: {action: forward, enabled: false, steps: [{to: {device: 5}}]}
    busy: {otherwise: {action: voicemail}}
- device: 5
  states:
    failed: {otherwise: {action: forward, steps: [{to: {number: 112}, caller_id: {kind: custom, text: '"x" <1>'}}]}}
"""


@pytest.fixture
def odd_url(own_url: SecretStr, tmp_path_factory: pytest.TempPathFactory) -> SecretStr:
    asyncio.run(execute(own_url, ODD))
    file = tmp_path_factory.mktemp("flows") / "flows.yaml"
    file.write_text(FLOWS)
    assert run("load", str(file), url=own_url).stdout.endswith("flows: 4 added, 0 changed, 0 unchanged\n")
    return own_url


def rows(url: SecretStr) -> dict[str, list[str]]:
    """Everything that the tables hold, without API keys, which are another text each time that they are encrypted."""
    shown = "SELECT to_jsonb(stored) - 'api_key' FROM {} AS stored ORDER BY 1"
    return {table: [row[0] for row in asyncio.run(fetch(url, shown.format(table)))] for table in TABLES}


def changes(output: str) -> list[str]:
    return [line for line in output.splitlines() if " 0 added, 0 changed, " not in line]


@pytest.mark.parametrize("name", ["world.json", "world.yaml"])
def test_an_export_changes_nothing_where_it_came_from_and_makes_the_same_elsewhere(
    odd_url: SecretStr,
    create_database: Callable[..., SecretStr],
    migrated_url: SecretStr,
    tmp_path: Path,
    name: str,
) -> None:
    file = tmp_path / name
    done = run("export", str(file), url=odd_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
    assert changes(run("load", str(file), url=odd_url).stdout) == []
    elsewhere = create_database(migrated_url)
    assert run("load", str(file), url=elsewhere).returncode == 0
    assert rows(elsewhere) == rows(odd_url)
    assert changes(run("load", str(file), url=elsewhere).stdout) == []
    again = json.loads(run("export", url=elsewhere).stdout)
    first = json.loads(file.read_text("utf-8"))
    for document in (again, first):
        for account in document["accounts"]:
            account.pop("api_key_encrypted", None)
    assert again == first


def test_an_export_tells_no_secret(odd_url: SecretStr) -> None:
    printed = run("export", url=odd_url).stdout
    for secret in ("456789", "reseller-secret", "admin1", "open-sesame", "switch-secret"):
        assert f'"{secret}"' not in printed
    account = json.loads(printed)["accounts"][0]
    assert account["api_key_encrypted"].startswith("fernet:")
    assert account["password_hash"].startswith("$argon2id$")


def test_with_other_encryption_keys_an_export_is_neither_made_nor_loaded(
    own_url: SecretStr, create_database: Callable[..., SecretStr], migrated_url: SecretStr, tmp_path: Path
) -> None:
    other = {"CALLFLOW_ENCRYPTION_KEYS": new_key()}
    file = tmp_path / "world.json"
    refused = run("export", str(file), url=own_url, **other)
    assert refused.returncode == 1
    assert refused.stderr == (
        "callflow-service: The API key of account admin cannot be decrypted with CALLFLOW_ENCRYPTION_KEYS, so nobody "
        "could load the file.\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert run("export", str(file), url=own_url).returncode == 0
    elsewhere = create_database(migrated_url)
    refused = run("load", str(file), url=elsewhere, **other)
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        f"callflow-service: {file}:3: accounts[0].api_key_encrypted: cannot be decrypted with CALLFLOW_ENCRYPTION_KEYS;"
    )
    assert rows(elsewhere) == {table: [] for table in TABLES}


def test_a_key_from_before_encryption_leaves_encrypted(own_url: SecretStr) -> None:
    asyncio.run(execute(own_url, "UPDATE account SET api_key = 'plain-as-it-was' WHERE id = 1"))
    printed = run("export", url=own_url).stdout
    assert "plain-as-it-was" not in printed
    assert json.loads(printed)["accounts"][0]["api_key_encrypted"].startswith("fernet:")


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (
            "accounts: [{id: 1, username: a, role: admin, password: x, password_hash: $argon2id$v}]",
            "accounts[0].password: cannot stand beside password_hash, for only one of them counts.",
        ),
        (
            "accounts: [{id: 1, username: a, role: admin, api_key: x, api_key_encrypted: 'fernet:x'}]",
            "accounts[0].api_key: cannot stand beside api_key_encrypted, for only one of them counts.",
        ),
        (
            "accounts: [{id: 1, username: a, role: admin, password_hash: plain}]",
            "accounts[0].password_hash: must be the hash of a password, as export prints it.",
        ),
        ("switches: [{username: a}]", "switches[0].password: is missing."),
    ],
)
def test_a_secret_is_there_once_and_in_its_form(own_url: SecretStr, tmp_path: Path, item: str, sentence: str) -> None:
    file = tmp_path / "world.yaml"
    file.write_text(item)
    done = run("load", str(file), url=own_url)
    assert (done.returncode, done.stderr) == (1, f"callflow-service: {file}:1: {sentence}\n")


def test_where_the_file_cannot_be_written_it_is_said(own_url: SecretStr, tmp_path: Path) -> None:
    done = run("export", str(tmp_path / "nowhere/world.json"), url=own_url)
    assert (done.returncode, done.stderr) == (
        1,
        f"callflow-service: {tmp_path}/nowhere/world.json cannot be written: No such file or directory.\n",
    )


BUSY = "flows: [{{device: 4, states: {{busy: {{otherwise: {}}}}}}}]"


@pytest.mark.parametrize(
    ("file_text", "sentence"),
    [
        ("flows: [{device: 99, states: {}}]", "flows[0].device: there is no device 99."),
        (
            "flows: [{device: 4, states: {}}, {device: 4, states: {}}]",
            "flows[1].device: there is another call flow of device 4.",
        ),
        (
            BUSY.format("{action: sing}"),
            "flows[0].states.busy.otherwise: must be one of empty, forward, voicemail, fax_detect, end.",
        ),
        (
            BUSY.format("{action: forward, steps: [{to: {device: 77}}]}"),
            "flows[0].states.busy.otherwise.steps.0.to.device: there is no device 77.",
        ),
        (
            BUSY.format("{action: forward, steps: [{to: {device: 5}, colour: red}]}"),
            "flows[0].states.busy.otherwise.steps.0.colour: is not known here.",
        ),
        (
            BUSY.format("{action: forward, steps: [{to: {device: 5}, caller_id: {kind: did, did: 2}}]}"),
            "flows[0].states.busy.otherwise.steps.0.caller_id.did: DID 2 is not assigned to device 4.",
        ),
        (
            BUSY.format("{action: fax_detect, to: {device: 2}}"),
            "flows[0].states: cannot have fax_detect in busy; it goes with before_call alone.",
        ),
        (
            BUSY.format("{action: forward, steps: [{to: {}}]}"),
            "flows[0].states: must name a device or a number in each step of busy, and not both.",
        ),
        (
            BUSY.replace("busy", "before_call").format("{action: fax_detect, to: {device: 5}}"),
            "flows[0].states.before_call.otherwise.to.device: device 5 is not a FAX device.",
        ),
    ],
)
def test_what_a_call_flow_cannot_be_is_told_with_its_place(
    own_url: SecretStr, tmp_path: Path, file_text: str, sentence: str
) -> None:
    file = tmp_path / "world.yaml"
    file.write_text(file_text)
    done = run("load", str(file), url=own_url)
    assert (done.returncode, done.stderr) == (1, f"callflow-service: {file}:1: {sentence}\n")


def test_a_state_that_a_call_flow_does_not_name_is_emptied_and_the_history_knows_of_it(
    odd_url: SecretStr, tmp_path: Path
) -> None:
    file = tmp_path / "world.yaml"
    file.write_text("flows: [{device: 4, states: {busy: {otherwise: {action: empty}}}}]")
    shown = run("load", "--dry-run", str(file), url=odd_url).stdout
    assert '~ callflow 4 busy action: "voicemail" -> "empty"' in shown
    asyncio.run(execute(odd_url, "TRUNCATE callflow_history"))
    done = run("load", str(file), url=odd_url).stdout
    assert done.endswith("flows: 0 added, 3 changed, 0 unchanged\n")
    told = asyncio.run(fetch(odd_url, "SELECT kind, face, device_id, state FROM callflow_history ORDER BY state"))
    assert [tuple(row) for row in told] == [
        ("callflow", "world", 4, state) for state in ("before_call", "busy", "no_answer")
    ]
