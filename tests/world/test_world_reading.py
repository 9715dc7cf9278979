"""What the reader makes of any text: items with lines, or one sentence."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from callflow_service.domain.dialing import Identity, Rejected
from callflow_service.resources.kept import KeptAccount, KeptSwitch
from callflow_service.resources.models import DeviceItem, DidItem, Item, TrunkItem
from callflow_service.world.errors import WorldError
from callflow_service.world.loading import DEMO_FILE
from callflow_service.world.parsing import parse_item
from callflow_service.world.reading import read_items
from callflow_service.world.source import WorldText

untimed = settings(deadline=None)


def read(file: Path) -> list[Item]:
    with file.open("rb") as stream:
        return [parse_item(raw, file) for raw in read_items(WorldText(stream, file), file)]


def mistake(folder: Path, content: str | bytes, name: str = "world.yaml") -> str:
    """The sentence about a wrong file, without the file's folder."""
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(WorldError) as caught:
        read(file)
    return str(caught.value).removeprefix(f"{folder}/")


def as_json(items: list[Item]) -> dict[str, list[dict[str, object]]]:
    names = {KeptAccount: "accounts", DeviceItem: "devices", DidItem: "dids", KeptSwitch: "switches"}
    world: dict[str, list[dict[str, object]]] = {name: [] for name in names.values()}
    for item in items:
        world[names[type(item)]].append(item.model_dump(mode="json"))
    return world


@pytest.mark.parametrize("indent", [None, 2, "\t"], ids=["minified", "indented", "indented with tabs"])
def test_json_says_what_yaml_says(tmp_path: Path, indent: int | str | None) -> None:
    demo = read(DEMO_FILE)
    file = tmp_path / "world.json"
    separators = (",", ":") if indent is None else (",", ": ")
    file.write_text(json.dumps(as_json(demo), indent=indent, separators=separators))
    assert read(file) == demo


@pytest.mark.parametrize(
    "written",
    [
        r'"Jos\u00e9 \uD83D\uDE00"',
        '"José 😀"',
        r'"Jos\u00E9 \ud83d\ude00"',
    ],
)
def test_an_escaped_character_in_json_is_the_character(tmp_path: Path, written: str) -> None:
    file = tmp_path / "world.json"
    file.write_text(f'{{"accounts": [{{"id": 1, "username": "a", "role": "admin", "name": {written}}}]}}')
    assert [item.name for item in read(file) if isinstance(item, KeptAccount)] == ["José 😀"]


def test_an_escaped_backslash_in_json_starts_no_escape(tmp_path: Path) -> None:
    file = tmp_path / "world.json"
    file.write_text(r'{"accounts": [{"id": 1, "username": "a", "role": "admin", "name": "\\uD83D\\uDE00 \/"}]}')
    assert [item.name for item in read(file) if isinstance(item, KeptAccount)] == [r"\uD83D\uDE00 /"]


@untimed
@given(
    names=st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Zl", "Zp")), min_size=1, max_size=60))
)
def test_any_name_comes_out_of_json_as_it_went_in(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    file = tmp_path_factory.mktemp("json") / "world.json"
    accounts = [{"id": 1, "username": "a", "role": "admin", "name": name} for name in names]
    for ascii_only in (True, False):
        file.write_text(json.dumps({"accounts": accounts}, ensure_ascii=ascii_only))
        assert [item.name for item in read(file) if isinstance(item, KeptAccount)] == names


def test_escapes_are_read_right_wherever_the_file_is_cut_into_pieces(tmp_path: Path) -> None:
    file = tmp_path / "world.json"
    account = {"id": 1, "username": "a", "role": "admin", "name": "😀" * 255}
    for shift in range(12):
        file.write_text(" " * shift + json.dumps({"accounts": [account] * 100}))
        assert {item.name for item in read(file) if isinstance(item, KeptAccount)} == {"😀" * 255}


def test_numbers_are_taken_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "world.yaml"
    file.write_text(
        "accounts:\n"
        "  - { id: 007, username: 1e3, role: admin, api_key: 00456789, password: 0x1F, name: 1_000 }\n"
        "devices:\n"
        "  - { id: 5, technology: sip, name: 0101, owner: 1e3, caller_number: +370600, ring_seconds: 060 }\n"
        "dids:\n"
        "  - { id: 1, number: 0037052000001 }\n"
    )
    assert read(file) == [
        KeptAccount(id=7, username="1e3", role="admin", api_key="00456789", password="0x1F", name="1_000"),
        DeviceItem(id=5, technology="SIP", name="0101", owner="1e3", caller_number="+370600", ring_seconds=60),
        DidItem(id=1, number="0037052000001"),
    ]


def test_a_key_without_a_value_is_as_good_as_none(tmp_path: Path) -> None:
    file = tmp_path / "world.yaml"
    file.write_text(
        "accounts: [{id: 1, username: a, role: admin, owner: ~, blocked: , name: null}]\ndevices:\ndids: []\n"
    )
    assert read(file) == [KeptAccount(id=1, username="a", role="admin")]


def test_sections_may_come_in_any_order_and_words_for_yes_are_yes(tmp_path: Path) -> None:
    file = tmp_path / "world.yaml"
    file.write_text(
        "---\nswitches: [{username: s, password: x, trust_headers: no, rejected: failed, early_media: yes,\n"
        "  trunk: {identity: forwarder, from_host: , headers: []}}]\n"
        "accounts: [{id: 1, username: a, role: admin, blocked: Yes}]\n...\n"
    )
    assert read(file) == [
        KeptSwitch(
            username="s",
            password="x",
            trust_headers=False,
            rejected=Rejected.FAILED,
            early_media=True,
            trunk=TrunkItem(identity=Identity.FORWARDER, headers=[]),
        ),
        KeptAccount(id=1, username="a", role="admin", blocked=True),
    ]


def test_dial_templates_are_kept_by_technology_in_capitals(tmp_path: Path) -> None:
    file = tmp_path / "world.yaml"
    file.write_text(
        "switches:\n"
        "  - username: s\n"
        "    password: x\n"
        "    dial:\n"
        "      sip: 'PJSIP/{name}'\n"
        "      FAX:\n"
        "      IAX2: ''\n"
        "      default: '{technology}/{name}@{domain}'\n"
        "      number: 'PJSIP/{number}@trunk'\n"
        "      voicemail: '{name}'\n"
    )
    (switch,) = read(file)
    assert isinstance(switch, KeptSwitch)
    assert switch.dial == {
        "SIP": "PJSIP/{name}",
        "FAX": None,
        "IAX2": None,
        "default": "{technology}/{name}@{domain}",
        "number": "PJSIP/{number}@trunk",
        "voicemail": "{name}",
    }


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "world.yaml"
    file.write_bytes(b"\xef\xbb\xbfdids: [{id: 1, number: 112}]\r\n")
    assert read(file) == [DidItem(id=1, number="112")]


SECTIONS = "accounts, devices, dids, switches, schedules, caller_lists, flows."
EMPTY = f"the file is empty; it should have at least one of the keys {SECTIONS}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", f"1: {EMPTY}"),
        ("# nothing\n\n", f"1: {EMPTY}"),
        ("---\n", f"1: {EMPTY}"),
        (
            "- id: 1\n",
            f"1: at its top the file must be a mapping with the keys {SECTIONS}",
        ),
        (
            "\nhello\n",
            f"2: at its top the file must be a mapping with the keys {SECTIONS}",
        ),
        (
            "device: []\n",
            f"1: device: is not known; the keys at the top are {SECTIONS}",
        ),
        (
            "s3cret: []\n",
            f"1: a key: is not known; the keys at the top are {SECTIONS}",
        ),
        (
            "[a]: []\n",
            f"1: a key: is not known; the keys at the top are {SECTIONS}",
        ),
        ("dids: []\ndids: []\n", "2: dids: this key is there twice."),
        ("dids: {}\n", "1: dids: must be a list."),
        ("dids: 5\n", "1: dids: must be a list."),
        ("dids:\n  - 5\n", "2: dids[0]: must be a mapping of keys to values."),
        ("dids:\n  - id: 1\n    number: [1]\n", "3: dids[0].number: must be a single value, not a list or a mapping."),
        (
            "dids:\n  - id: 1\n    number: {a: 1}\n",
            "3: dids[0].number: must be a single value, not a list or a mapping.",
        ),
        (
            "dids:\n  - id: 1\n    number: {a: [1]}\n",
            "3: dids[0].number: must be a single value, not a list or a mapping.",
        ),
        ("dids:\n  - id: 1\n    id: 2\n", "3: dids[0].id: a key is there twice."),
        ("dids:\n  - {id: 1, s3cret: 5, s3cret: 6}\n", "2: dids[0]: a key is there twice."),
        ("dids:\n  - [id]: 1\n", "2: dids[0]: a key must be a single word."),
        ("dids: []\n---\ndids: []\n", "2: the file holds a second document; there can be only one."),
        (
            "dids:\n  - &one {id: 1, number: 1}\n  - *one\n",
            "2: a value that starts with & must stand in quotes, for what it means in YAML is not taken.",
        ),
        (
            "dids:\n  - id: 1\n    number: *31#\n",
            "3: this is not YAML: did not find expected alphabetic or numeric character.",
        ),
        (
            "dids:\n  - id: 1\n    number: *31\n",
            "3: a value that starts with * must stand in quotes, for what it means in YAML is not taken.",
        ),
        (
            "dids: !!python/object:os.system []\n",
            "1: a value that starts with ! must stand in quotes, for what it means in YAML is not taken.",
        ),
        ("dids:\n  - id: 1\n    number 5\n    device: 4\n", "3: this is not YAML: could not find expected ':'."),
        ('dids:\n  - id: 1\n    number: "5\n\n\n', "3: this is not YAML: found unexpected end of stream."),
        ("dids:\n\t- id: 1\n", "2: this is not YAML: found character that cannot start any token."),
        (b"dids:\n  - id: 1\n    number: '\xff'\n", "3: the text is not UTF-8."),
        ("dids:\n  - id: 1\n    number: '\x07'\n", "3: the text has a character that cannot stand in it, U+0007."),
        ("dids: []\n".encode("utf-16"), "1: the file is in UTF-16; save it as UTF-8."),
    ],
)
def test_what_is_no_world_file_is_told_with_its_line(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    assert mistake(tmp_path, content) == f"world.yaml:{sentence}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{\n"dids": [\n\t{"id": 1,\n\t"number": "x"}]}', "4: dids[0].number: "),
        ('{\n"dids": [\n\t{"id": 1\n\t"number": "5"}]}', "4: this is not JSON: "),
        ('{"dids": [\n{"id": 1, "number": "\\uD83D"}]}', "2: this is not JSON: "),
        ('{"dids": [\n', "2: this is not JSON: "),
    ],
)
def test_a_mistake_in_json_has_its_line_too(tmp_path: Path, content: str, sentence: str) -> None:
    assert mistake(tmp_path, content, "world.json").startswith(f"world.json:{sentence}")


@pytest.mark.parametrize("name", ["world.yaml", "world.json"])
def test_without_libyaml_the_same_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    demo = read(DEMO_FILE)
    file = tmp_path / name
    file.write_text(DEMO_FILE.read_text() if name.endswith("yaml") else json.dumps(as_json(demo), indent="\t"))
    monkeypatch.setattr("callflow_service.world.reading._LOADER", yaml.SafeLoader)
    assert read(file) == demo


def test_without_libyaml_an_impossible_character_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callflow_service.world.reading._LOADER", yaml.SafeLoader)
    assert mistake(tmp_path, r'dids: ["\UFFFFFFFF"]') == "world.yaml: this is not YAML."


def test_a_deep_nest_is_refused_at_its_first_level(tmp_path: Path) -> None:
    nest = "[" * 100_000
    assert mistake(tmp_path, f"dids: {nest}").endswith("dids[0]: must be a mapping of keys to values.")


ACCOUNT = "accounts:\n  - id: 1\n    username: someone\n"
DEVICE = "devices:\n  - id: 1\n    technology: SIP\n    name: 101\n    owner: someone\n"
SWITCH = "switches:\n  - username: switch\n    password: x\n"
A_USERNAME = "must be 1 to 64 of a-z A-Z 0-9 . _ @ + - and blanks, with no blank at the ends."
A_LINE = "must be 1 to 255 characters, none of them a control character."
A_DEVICE_NAME = "must be 1 to 64 characters, none of them a control character, with no blank at the ends."
A_NUMBER = "must be 1 to 32 of 0-9 * # with a digit among them, with or without a + before them."
AN_ID = "must be a whole number from 0 to 9223372036854775807."
A_NETWORK = "must be addresses, or networks such as 192.0.2.0/24 and 2001:db8::/32."
NETWORKS = "5: accounts[0].allowed_addresses: must be"
NESTED_NETWORKS = "5: accounts[0].allowed_addresses: must be a single value, not a list or a mapping."
A_TEMPLATE = "must be at most 255 of a-z A-Z 0-9 @ : / . ; = _ + & , % ~ * # [ ] ( ) - and the placeholders"
DEVICE_PLACEHOLDERS = "{domain}, {name}, {technology}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (ACCOUNT, "2: accounts[0].role: is missing."),
        (f"{ACCOUNT}    role:\n", "4: accounts[0].role: is missing."),
        (f"{ACCOUNT}    role: boss\n", "4: accounts[0].role: must be admin, reseller, accountant or user."),
        (f"{ACCOUNT}    role: admin\n    owner: x\n", "5: accounts[0].owner: an admin has no owner."),
        (f"{ACCOUNT}    role: user\n", "2: accounts[0].owner: is missing; every account but an admin has an owner."),
        (
            f"{ACCOUNT}    role: admin\n    hash_policy: off\n",
            "5: accounts[0].hash_policy: an account without a password cannot be set to off.",
        ),
        (
            f"{ACCOUNT}    role: admin\n    hash_policy: none\n",
            "5: accounts[0].hash_policy: must be strict, compat or off.",
        ),
        (f"{ACCOUNT}    role: admin\n    blocked: perhaps\n", "5: accounts[0].blocked: must be true or false."),
        (f"{ACCOUNT}    role: admin\n    name: ''\n", f"5: accounts[0].name: {A_LINE}"),
        (f'{ACCOUNT}    role: admin\n    name: "a\\u2028b"\n', f"5: accounts[0].name: {A_LINE}"),
        (f'{ACCOUNT}    role: admin\n    api_key: "s3cret\\t"\n', f"5: accounts[0].api_key: {A_LINE}"),
        (
            f"{ACCOUNT}    role: admin\n    password: {'s3cret' * 200}\n",
            "5: accounts[0].password: must be 1 to 1024 characters.",
        ),
        (
            f"{ACCOUNT}    role: admin\n    colour: red\n",
            (
                "5: accounts[0].colour: is not known here; the keys are id, username, name, role, owner, api_key, "
                "password, hash_policy, pbx_addon, api_enabled, blocked, allowed_addresses, time_zone, country, "
                "number_pattern, targets, password_hash, api_key_encrypted."
            ),
        ),
        (
            f"{ACCOUNT}    role: admin\n    s3cret: red\n",
            (
                "5: accounts[0]: a key is not known here; the keys are id, username, name, role, owner, api_key, "
                "password, hash_policy, pbx_addon, api_enabled, blocked, allowed_addresses, time_zone, country, "
                "number_pattern, targets, password_hash, api_key_encrypted."
            ),
        ),
        (f"{ACCOUNT}    role: admin\n    allowed_addresses: 192.0.2.1\n", f"{NETWORKS} a list."),
        (f"{ACCOUNT}    role: admin\n    allowed_addresses: {{a: b}}\n", f"{NETWORKS} a list."),
        (f"{ACCOUNT}    role: admin\n    allowed_addresses: [192.0.2.1, [::1]]\n", NESTED_NETWORKS),
        (
            f"{ACCOUNT}    role: admin\n    allowed_addresses: [192.0.2.1/24]\n",
            f"5: accounts[0].allowed_addresses: {A_NETWORK}",
        ),
        (
            f"{ACCOUNT}    role: admin\n    allowed_addresses: [192.0.2.256]\n",
            f"5: accounts[0].allowed_addresses: {A_NETWORK}",
        ),
        (
            f"{ACCOUNT}    role: admin\n    allowed_addresses: [example.com]\n",
            f"5: accounts[0].allowed_addresses: {A_NETWORK}",
        ),
        (
            f"{ACCOUNT}    role: admin\n    allowed_addresses: ['fe80::1%eth0']\n",
            f"5: accounts[0].allowed_addresses: {A_NETWORK}",
        ),
        (
            f"{ACCOUNT}    role: admin\n    allowed_addresses: [192.0.2.0/255.255.255.0]\n",
            f"5: accounts[0].allowed_addresses: {A_NETWORK}",
        ),
        (
            f"{ACCOUNT}    role: admin\n    allowed_addresses:\n      - 192.0.2.1\n      -\n",
            f"7: accounts[0].allowed_addresses: {A_NETWORK}",
        ),
        (
            f"{ACCOUNT}    role: admin\n    allowed_addresses: [{'192.0.2.1, ' * 101}]\n",
            f"{NETWORKS} at most 100 addresses and networks.",
        ),
        ("accounts:\n  - username: ' x'\n    role: boss\n    id: y\n", f"2: accounts[0].username: {A_USERNAME}"),
        ("accounts:\n  - {id: 1, username: 'a$b', role: admin}\n", f"2: accounts[0].username: {A_USERNAME}"),
        (f"accounts:\n  - {{id: 1, username: {'a' * 65}, role: admin}}\n", f"2: accounts[0].username: {A_USERNAME}"),
        ("accounts:\n  - {id: -1, username: a, role: admin}\n", f"2: accounts[0].id: {AN_ID}"),
        ("accounts:\n  - {id: 1.0, username: a, role: admin}\n", f"2: accounts[0].id: {AN_ID}"),
        ("accounts:\n  - {id: ٣, username: a, role: admin}\n", f"2: accounts[0].id: {AN_ID}"),
        ("accounts:\n  - {id: '', username: a, role: admin}\n", f"2: accounts[0].id: {AN_ID}"),
        (f"accounts:\n  - {{id: {2**63}, username: a, role: admin}}\n", f"2: accounts[0].id: {AN_ID}"),
        (f"accounts:\n  - {{id: {'9' * 5000}, username: a, role: admin}}\n", f"2: accounts[0].id: {AN_ID}"),
        (f"{DEVICE}    ring_seconds: 0\n", "6: devices[0].ring_seconds: must be a whole number from 1 to 3600."),
        (f"{DEVICE}    ring_seconds: 3601\n", "6: devices[0].ring_seconds: must be a whole number from 1 to 3600."),
        (
            "devices:\n  - {id: 1, technology: S-P, name: x, owner: a}\n",
            "2: devices[0].technology: must be a letter of A-Z and then at most 15 letters or digits.",
        ),
        ("devices:\n  - {id: 1, technology: SIP, name: ' x', owner: a}\n", f"2: devices[0].name: {A_DEVICE_NAME}"),
        ('devices:\n  - {id: 1, technology: SIP, name: "a\\0b", owner: a}\n', f"2: devices[0].name: {A_DEVICE_NAME}"),
        (
            f"devices:\n  - {{id: 1, technology: SIP, name: {'x' * 65}, owner: a}}\n",
            f"2: devices[0].name: {A_DEVICE_NAME}",
        ),
        (
            f"{DEVICE}    caller_number: 3706 000\n",
            (
                "6: devices[0].caller_number: must be 1 to 32 of 0-9 * # with or without a + before them, or 1 to 64 "
                "letters, digits, dots, dashes or underscores."
            ),
        ),
        (
            f'{DEVICE}    caller_name: "a\\nb"\n',
            "6: devices[0].caller_name: must be at most 255 characters, none of them a control character.",
        ),
        ("dids:\n  - {id: 1, number: '*#'}\n", f"2: dids[0].number: {A_NUMBER}"),
        ("dids:\n  - {id: 1, number: 370 5}\n", f"2: dids[0].number: {A_NUMBER}"),
        (f"dids:\n  - {{id: 1, number: {'1' * 33}}}\n", f"2: dids[0].number: {A_NUMBER}"),
        ("dids:\n  - {id: 1, number: 1}\n  - {id: 2, number: 2, device: x}\n", f"3: dids[1].device: {AN_ID}"),
        (f"{SWITCH}    domain: a b\n", "4: switches[0].domain: must be a host, or a host and a port as host:port."),
        (f"{SWITCH}    rejected: never\n", "4: switches[0].rejected: must be busy or failed."),
        (f"{SWITCH}    redirected: busy\n", "4: switches[0].redirected: must be failed or caller."),
        (
            f"{SWITCH}    trunk: x\n",
            "4: switches[0].trunk: must be a mapping with the keys from_host, identity, headers.",
        ),
        (
            f"{SWITCH}    trunk:\n      identity: me\n",
            "5: switches[0].trunk.identity: must be caller or forwarder.",
        ),
        (
            f"{SWITCH}    trunk:\n      headers: [diversion, sip]\n",
            "5: switches[0].trunk.headers: must be diversion or history_info.",
        ),
        (f"{SWITCH}    trunk:\n      headers: diversion\n", "5: switches[0].trunk.headers: must be a list."),
        (
            f"{SWITCH}    trunk:\n      from_host: a b\n",
            "5: switches[0].trunk.from_host: must be a host, or a host and a port as host:port.",
        ),
        (
            f"{SWITCH}    trunk:\n      host: a\n",
            "5: switches[0].trunk.host: is not known here; the keys are from_host, identity, headers.",
        ),
        (f"{SWITCH}    dial: SIP\n", "4: switches[0].dial: must be a mapping of template names to templates."),
        (
            f"{SWITCH}    dial:\n      S-P: x\n",
            (
                "5: switches[0].dial: a template's name must be a technology, such as SIP, or default, number or "
                "voicemail."
            ),
        ),
        (
            f"{SWITCH}    dial:\n      SIP: x\n      sip: y\n",
            "6: switches[0].dial: there is another template for SIP.",
        ),
        (
            f"{SWITCH}    dial:\n      IAX2: x\n      SIP: x y\n",
            f"6: switches[0].dial: the template for SIP {A_TEMPLATE} {DEVICE_PLACEHOLDERS}.",
        ),
        (
            f"{SWITCH}    dial:\n      SIP: '{{name'\n",
            f"5: switches[0].dial: the template for SIP {A_TEMPLATE} {DEVICE_PLACEHOLDERS}.",
        ),
        (
            f"{SWITCH}    dial:\n      SIP: 'x/{{number}}'\n",
            (
                "5: switches[0].dial: the template for SIP has a placeholder that cannot stand there; it may have "
                f"{DEVICE_PLACEHOLDERS}."
            ),
        ),
        (
            f"{SWITCH}    dial:\n      number: 'x/{{name}}'\n",
            (
                "5: switches[0].dial: the template for number has a placeholder that cannot stand there; it may have "
                "{domain}, {number}."
            ),
        ),
    ],
)
def test_what_an_item_cannot_say_is_told_with_its_line(tmp_path: Path, content: str, sentence: str) -> None:
    assert mistake(tmp_path, content) == f"world.yaml:{sentence}"


@pytest.mark.parametrize("sign", [" ", "'", '"', "$", "\\", "`", "\r", "\n", "\t", "|", ">", "<", "!", "?", "^", "é"])
def test_no_dangerous_sign_gets_into_a_template(tmp_path: Path, sign: str) -> None:
    content = json.dumps({"switches": [{"username": "s", "password": "x", "dial": {"SIP": f"a{sign}b"}}]})
    assert A_TEMPLATE in mistake(tmp_path, content, "world.json")


@pytest.mark.parametrize(
    "content",
    [
        "accounts: [{id: 1, username: a, role: admin, api_key: [s3cret]}]",
        "accounts: [{id: 1, username: a, role: admin, api_key:s3cret}]",
        "accounts: [{id: 1, username: a, role: admin, password: {s3cret: x}}]",
        "accounts: [{id: 1, username: a, role: admin, password: 's3cret}]",
        "accounts: [{id: 1, username: a, role: admin, password: @s3cret}]",
        "accounts: [{id: 1, username: a, role: admin, password: *s3cret}]",
        "accounts:\n  - id: 1\n    api_key:s3cret\n    username: a\n",
        "accounts: [{id: 1, password: s3cret, username: ' '}]",
    ],
)
def test_no_message_quotes_a_secret(tmp_path: Path, content: str) -> None:
    assert "s3cret" not in mistake(tmp_path, content)


WORDS = [
    "accounts",
    "devices",
    "id",
    "name",
    "dial",
    ": ",
    ":",
    "- ",
    "\n",
    "  ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    '"',
    "1",
]


@untimed
@given(
    content=st.one_of(
        st.text(), st.lists(st.sampled_from([*WORDS, "&a", "*a", "!", "%", "\\", "|", "\t"])).map("".join)
    )
)
@pytest.mark.parametrize("name", ["world.yaml", "world.json"])
def test_any_text_is_read_or_refused_with_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: str
) -> None:
    file = tmp_path_factory.mktemp("any") / name
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    try:
        read(file)
    except WorldError as error:
        assert re.fullmatch(rf"{re.escape(str(file))}:[0-9]+: .+\.", str(error))  # noqa: PT017 - most texts are wrong
