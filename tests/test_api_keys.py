"""API keys at rest: encrypted in the database, read by whoever has the key, and encrypted anew while all goes on."""

import asyncio
import re
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.fernet import Fernet
from pydantic import SecretStr

from callflow_service.credentials.api_keys import Keyring, Undecipherable, new_key
from callflow_service.settings import SettingsError
from callflow_service.storage.connecting import connected
from callflow_service.usecases.key_rotation import Rotation, RotationRefused, rotate_keys
from callflow_service.world.loading import DEMO_FILE, load_world
from clusters import until
from encryption import KEY, KEYS
from mor_requests import GET, UPDATE, StartService, answer, get, got, refused, update, updated
from own_demo import OwnDemo
from program import run

FILE = "encryption.key"
DEMO_KEYS = {
    "admin": "456789",
    "reseller": "reseller-secret",
    "basic": "basic-secret",
    "legacy": "legacy-secret",
    "open": "open-secret",
    "closed": "closed-secret",
}
UNAVAILABLE = refused("Service is temporarily unavailable", 503)


def keyring(*keys: str, folder: Path = Path("nowhere")) -> Keyring:
    return Keyring(SecretStr(",".join(keys)), folder)


def names_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


@pytest.fixture(scope="module")
def loaded(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> SecretStr:
    """The demo data, to be copied."""
    url = create_database(migrated_url)
    asyncio.run(load_world(url, DEMO_FILE, keys=KEYS, demo=True))
    return url


@pytest_asyncio.fixture
async def demo(create_database: Callable[..., SecretStr], loaded: SecretStr) -> AsyncIterator[OwnDemo]:
    url = await asyncio.to_thread(create_database, loaded)
    async with connected(url) as database:
        yield OwnDemo(url, database)


async def stored_keys(demo: OwnDemo) -> dict[str, str]:
    rows = await demo.database.fetch("SELECT username, api_key FROM account WHERE api_key IS NOT NULL")
    return {row["username"]: row["api_key"] for row in rows}


async def make_plain(demo: OwnDemo) -> None:
    """The database as it was before API keys were encrypted."""
    for username, api_key in DEMO_KEYS.items():
        await demo.database.execute("UPDATE account SET api_key = $2 WHERE username = $1", username, api_key)


async def test_who_reads_the_whole_table_finds_no_api_key_and_no_password(demo: OwnDemo) -> None:
    text = "\n".join(row[0] for row in await demo.database.fetch("SELECT account::text FROM account"))
    assert text.count("fernet:") == len(DEMO_KEYS)
    for secret in (*DEMO_KEYS.values(), "admin1", "open-sesame"):
        assert secret not in text


def test_a_stored_api_key_is_another_text_each_time_and_opens_to_the_same() -> None:
    first, second = KEYS.encrypt("sécret"), KEYS.encrypt("sécret")
    assert first != second
    assert (KEYS.decrypt(first), KEYS.decrypt(second)) == ("sécret", "sécret")


@pytest.mark.parametrize("plain", ["456789", "", "gAAAAA", "Fernet:x"])
def test_an_api_key_from_before_encryption_is_taken_as_it_is(plain: str) -> None:
    assert KEYS.decrypt(plain) == plain


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    old, new, foreign = new_key(), new_key(), new_key()
    stored = keyring(old).encrypt("secret")
    both = keyring(new, old)
    assert both.decrypt(stored) == "secret"
    assert keyring(new).decrypt(both.encrypt("secret")) == "secret"
    with pytest.raises(Undecipherable) as caught:
        keyring(new, foreign).decrypt(stored)
    assert str(caught.value) == "An API key cannot be decrypted with CALLFLOW_ENCRYPTION_KEYS."


@pytest.mark.parametrize("token", ["", "é", "gAAAAA", "=" * 200])
def test_what_is_no_token_does_not_open(token: str) -> None:
    with pytest.raises(Undecipherable):
        KEYS.decrypt(f"fernet:{token}")


@pytest.mark.parametrize("text", ["canary", ",", " ", f"{KEY.get_secret_value()},canary", KEY.get_secret_value()[:-4]])
def test_wrong_keys_are_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        keyring(text)
    assert str(caught.value) == (
        "The setting CALLFLOW_ENCRYPTION_KEYS is wrong: not keys such as 'callflow-service new-key' prints, "
        "comma-separated."
    )


def test_the_file_is_made_when_something_is_first_encrypted_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    keys = keyring(folder=folder)
    assert keys.decrypt("456789") == "456789"
    assert not folder.exists()
    stored = keys.encrypt("secret")
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    assert names_in(folder) == [FILE]
    assert keyring(folder=folder).decrypt(stored) == "secret"


def test_of_many_who_make_the_file_at_once_all_have_the_same_key(tmp_path: Path) -> None:
    for turn in range(20):
        folder = tmp_path / str(turn)
        rings = [keyring(folder=folder) for _ in range(8)]
        with ThreadPoolExecutor(8) as threads:
            stored = list(threads.map(lambda ring: ring.encrypt("secret"), rings))
        assert [keyring(folder=folder).decrypt(text) for text in stored] == ["secret"] * 8
        assert names_in(folder) == [FILE]


def test_a_file_that_cannot_be_made_is_told_with_the_setting_that_helps(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no folder")
    with pytest.raises(SettingsError) as caught:
        keyring(folder=tmp_path / "taken" / "data").encrypt("secret")
    assert str(caught.value) == (
        f"CALLFLOW_ENCRYPTION_KEYS is not set, and the file {tmp_path}/taken/data/encryption.key for a key cannot be "
        "written: Not a directory. Set CALLFLOW_ENCRYPTION_KEYS to what 'callflow-service new-key' prints."
    )


def test_a_file_with_something_else_is_told_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("canary")
    with pytest.raises(SettingsError) as caught:
        keyring(folder=tmp_path)
    assert str(caught.value) == (
        f"The file {tmp_path}/encryption.key is wrong: not keys such as 'callflow-service new-key' prints, "
        "comma-separated."
    )


async def test_a_request_whose_api_key_cannot_be_decrypted_is_told_to_come_again(
    start_service: StartService, demo: OwnDemo, caplog: pytest.LogCaptureFixture
) -> None:
    service = await start_service(demo.url, encryption_keys=SecretStr(new_key()))
    for call, values in ((GET, get()), (UPDATE, update()), (GET, get(u="user1"))):
        response = await service.post(call, data=values)
        assert (answer(response), response.headers["retry-after"]) == (UNAVAILABLE, "2")
    lost = "The API key that account '{}' signs with cannot be decrypted with CALLFLOW_ENCRYPTION_KEYS"
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert told == [lost.format("admin"), lost.format("user1")]
    assert "fernet:" not in caplog.text
    assert (await demo.database.fetchval("SELECT count(*) FROM callflow_history")) == 0


async def test_an_account_that_lives_by_its_password_needs_no_api_key_that_can_be_decrypted(
    start_service: StartService, demo: OwnDemo
) -> None:
    service = await start_service(demo.url, encryption_keys=SecretStr(new_key()))
    values = {"u": "open", "p": "open-sesame", "device_id": "4"}
    assert answer(await service.post(GET, data=values, timeout=30)) == refused("Device was not found")
    # Nor does one need it to be told that its password is wrong.
    assert answer(await service.post(GET, data=get() | {"p": "wrong"}, timeout=30)) == refused("User was not found")


async def test_plain_and_encrypted_api_keys_are_served_side_by_side(start_service: StartService, demo: OwnDemo) -> None:
    service = await start_service(demo.url)
    await demo.database.execute("UPDATE account SET api_key = '456789' WHERE username = 'admin'")
    assert answer(await service.post(GET, data=get())) == got()
    reseller = get("200", u="reseller", key="reseller-secret")
    assert answer(await service.post(GET, data=reseller)) == got(user="Test User #2", device="SIP/2001", ring=30)


async def test_rotation_encrypts_plain_and_old_api_keys_with_the_first_key_and_twice_is_as_good_as_once(
    demo: OwnDemo,
) -> None:
    new = new_key()
    both = keyring(new, KEY.get_secret_value())
    await demo.database.execute("UPDATE account SET api_key = '456789' WHERE username = 'admin'")
    told: list[tuple[int, int]] = []
    rotation = await rotate_keys(demo.url, both, progress=lambda done, total: told.append((done, total)))
    assert (rotation, told) == (Rotation(6, 0), [(6, 6)])
    first = await stored_keys(demo)
    assert {username: keyring(new).decrypt(text) for username, text in first.items()} == DEMO_KEYS
    assert await rotate_keys(demo.url, both) == Rotation(0, 6)
    assert await stored_keys(demo) == first


async def test_rotation_encrypts_what_was_answered_to_requests_that_can_come_again(demo: OwnDemo) -> None:
    old, new, lost = KEYS, new_key(), keyring(new_key()).encrypt("lost")
    statement = "INSERT INTO kept_answer (account_id, key, fingerprint, answer) VALUES (1, $1, '', $2)"
    for number in range(250):
        await demo.database.execute(statement, f"key {number}", old.encrypt(f"answer {number}"))
    await demo.database.execute(statement, "lost", lost)
    assert await rotate_keys(demo.url, keyring(new, KEY.get_secret_value())) == Rotation(6, 0)
    rows = dict(await demo.database.fetch("SELECT key, answer FROM kept_answer"))
    assert rows.pop("lost") == lost
    found = {key: keyring(new).decrypt_afresh(answer) for key, answer in rows.items()}
    assert found == {f"key {number}": f"answer {number}" for number in range(250)}


async def test_rotation_goes_through_all_batches(demo: OwnDemo) -> None:
    statement = """
    INSERT INTO account SELECT 1000 + n, 'many' || n, '', 'user', 1, 'key' || n, NULL, NULL, false, true, false
    FROM generate_series(1, 2500) AS n
    """
    await demo.database.execute(statement)
    assert await rotate_keys(demo.url, KEYS) == Rotation(2500, 6)
    expected = DEMO_KEYS | {f"many{number}": f"key{number}" for number in range(1, 2501)}
    assert {username: KEYS.decrypt(text) for username, text in (await stored_keys(demo)).items()} == expected


async def test_rotation_leaves_all_as_it_is_where_one_api_key_cannot_be_decrypted(
    demo: OwnDemo, tmp_path: Path
) -> None:
    foreign = keyring(new_key()).encrypt("lost")
    await demo.database.execute("UPDATE account SET api_key = $1 WHERE username = 'basic'", foreign)
    before = await stored_keys(demo)
    (tmp_path / FILE).write_text(KEY.get_secret_value())
    for keys, source in (
        (keyring(new_key(), KEY.get_secret_value()), "CALLFLOW_ENCRYPTION_KEYS"),
        (keyring(folder=tmp_path), f"the file {tmp_path}/encryption.key"),
    ):
        with pytest.raises(RotationRefused) as caught:
            await rotate_keys(demo.url, keys)
        assert str(caught.value) == (
            f"The API keys of some accounts (basic) were encrypted with a key that is not in {source}: "
            "put that key into CALLFLOW_ENCRYPTION_KEYS, or load these accounts once more. Nothing was changed."
        )
    assert await stored_keys(demo) == before
    assert (tmp_path / FILE).read_text() == KEY.get_secret_value()


async def test_rotation_and_a_load_keep_out_of_each_others_way(demo: OwnDemo) -> None:
    async with connected(demo.url) as connection:
        await connection.execute("SELECT pg_advisory_lock(7101301)")
        with pytest.raises(RotationRefused) as caught:
            await rotate_keys(demo.url, KEYS)
    assert str(caught.value) == "A world file is being loaded, or keys are rotated; try again when that is done."


async def test_rotation_does_not_overwrite_an_api_key_that_was_changed_meanwhile(demo: OwnDemo) -> None:
    new = new_key()
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')"
    async with connected(demo.url) as other:
        change = other.transaction()
        await change.start()
        await other.execute("UPDATE account SET api_key = 'changed meanwhile' WHERE username = 'admin'")
        rotating = asyncio.create_task(rotate_keys(demo.url, keyring(new, KEY.get_secret_value())))

        async def waits() -> bool:
            return bool(await demo.database.fetchval(waiting))

        await until(waits)
        await change.commit()
    await rotating
    keys = {username: keyring(new).decrypt(text) for username, text in (await stored_keys(demo)).items()}
    assert keys == {**DEMO_KEYS, "admin": "changed meanwhile"}


@pytest.mark.parametrize("of_file", [False, True], ids=["keys of the setting", "keys of the file"])
async def test_no_request_is_refused_while_keys_are_rotated(
    start_service: StartService, demo: OwnDemo, tmp_path: Path, *, of_file: bool
) -> None:
    rings = [new_key(), KEY.get_secret_value()]
    (tmp_path / FILE).write_text(KEY.get_secret_value())
    settings = {"encryption_keys": SecretStr("" if of_file else ",".join(rings)), "data_dir": tmp_path}
    service = await start_service(demo.url, **settings)
    await make_plain(demo)
    answers: list[object] = []
    ended = asyncio.Event()

    async def client() -> None:
        while not ended.is_set():
            answers.append(answer(await service.post(UPDATE, data=update())))

    clients = [asyncio.create_task(client()) for _ in range(4)]
    try:
        for turn in range(5):
            keys = keyring(folder=tmp_path) if of_file else keyring(*(rings if turn % 2 else rings[::-1]))
            enough = len(answers) + 8
            assert await rotate_keys(demo.url, keys) == Rotation(6, 0)

            async def answered(enough: int = enough) -> bool:
                return len(answers) >= enough

            await until(answered)
    finally:
        ended.set()
        await asyncio.gather(*clients)
    assert set(map(str, answers)) == {str(updated())}


async def test_rotation_of_the_file_leaves_one_new_key_in_it(demo: OwnDemo, tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.write_text(f"{KEY.get_secret_value()}\n")
    assert await rotate_keys(demo.url, keyring(folder=tmp_path)) == Rotation(6, 0)
    (key,) = file.read_text().split()
    assert key != KEY.get_secret_value()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names_in(tmp_path) == [FILE]
    keys = {username: keyring(key).decrypt(text) for username, text in (await stored_keys(demo)).items()}
    assert keys == DEMO_KEYS


async def test_what_is_loaded_after_a_rotation_is_encrypted_with_the_new_key(demo: OwnDemo, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(KEY.get_secret_value())
    started_before = keyring(folder=tmp_path)
    await rotate_keys(demo.url, keyring(folder=tmp_path))
    await demo.database.execute("UPDATE account SET api_key = NULL")
    await load_world(demo.url, DEMO_FILE, keys=started_before, demo=True)
    (key,) = (tmp_path / FILE).read_text().split()
    keys = {username: keyring(key).decrypt(text) for username, text in (await stored_keys(demo)).items()}
    assert keys == DEMO_KEYS


def test_new_key_prints_a_key() -> None:
    done = run("new-key")
    assert (done.returncode, done.stderr) == (0, "")
    Fernet(done.stdout.removesuffix("\n"))


async def test_keys_are_rotated_from_the_command_line(demo: OwnDemo, tmp_path: Path) -> None:
    new = new_key()

    def rotated(**settings: str) -> subprocess.CompletedProcess[str]:
        return run("rotate-key", url=demo.url, **settings)

    both = f"{new}, {KEY.get_secret_value()}"
    for keys, printed in ((both, "6 encrypted anew, 0 as they were"), (new, "0 encrypted anew, 6 as they were")):
        done = await asyncio.to_thread(rotated, CALLFLOW_ENCRYPTION_KEYS=keys)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"API keys: {printed}\n", "")
    done = await asyncio.to_thread(rotated)
    lost = "callflow-service: The API keys of some accounts (admin, reseller, basic, legacy, open, ...) were encrypted"
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"{re.escape(lost)} with .+ Nothing was changed\.\n", done.stderr)
    await make_plain(demo)
    done = await asyncio.to_thread(rotated, CALLFLOW_ENCRYPTION_KEYS="", CALLFLOW_DATA_DIR=str(tmp_path / "data"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "API keys: 6 encrypted anew, 0 as they were\n", "")
    assert names_in(tmp_path / "data") == [FILE]


async def test_a_service_without_the_right_key_does_not_start(demo: OwnDemo, tmp_path: Path) -> None:
    for settings, source in (
        ({"CALLFLOW_ENCRYPTION_KEYS": new_key()}, "CALLFLOW_ENCRYPTION_KEYS"),
        ({"CALLFLOW_ENCRYPTION_KEYS": "", "CALLFLOW_DATA_DIR": str(tmp_path)}, f"the file {tmp_path}/encryption.key"),
    ):
        done = await asyncio.to_thread(lambda settings=settings: run("serve", "--port", "0", url=demo.url, **settings))
        assert (done.returncode, done.stdout, done.stderr) == (
            1,
            "",
            (
                "callflow-service: The API keys of some accounts (closed, open, legacy, basic, reseller) were "
                f"encrypted with a key that is not in {source}: put that key into CALLFLOW_ENCRYPTION_KEYS, or load "
                "these accounts once more.\n"
            ),
        )
    assert names_in(tmp_path) == []


async def test_wrong_keys_stop_the_start_with_a_sentence(demo: OwnDemo) -> None:
    for command in (["serve", "--port", "0"], ["load", str(DEMO_FILE)]):
        done = await asyncio.to_thread(run, *command, url=demo.url, CALLFLOW_ENCRYPTION_KEYS="canary")
        assert (done.returncode, done.stdout, done.stderr) == (
            1,
            "",
            (
                "callflow-service: The setting CALLFLOW_ENCRYPTION_KEYS is wrong: not keys such as 'callflow-service "
                "new-key' prints, comma-separated.\n"
            ),
        )
