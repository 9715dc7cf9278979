"""The command line, run as a program."""

import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from pydantic import SecretStr

from mor_requests import ADMIN_KEY, GET, UPDATE, get, got, sha1_hex, update
from program import PROGRAM, environment, run

DEAD = SecretStr("postgresql://postgres:canary@127.0.0.1:1/callflow")


def test_sign_prints_the_signed_string_the_hash_and_the_request() -> None:
    values = ["u=admin", "device_id=4", "action=forward", "state=busy", "foward_to_device=5", "custom=it's [b]"]
    done = run("sign", "device_callflow_update", *values, "--key", ADMIN_KEY)
    digest = sha1_hex("4forwardbusy5it's [b]")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0] == "signed string: 4forwardbusy5it's [b]"
    assert lines[1] == f"hash:          {digest}"
    assert lines[2].startswith(f"curl http://127.0.0.1:8000{UPDATE} --data-urlencode u=admin ")
    assert lines[2].endswith(f" -d hash={digest}")
    assert ADMIN_KEY not in done.stdout


def test_sign_prints_every_character_of_a_value() -> None:
    done = run("sign", "device_callflow_update", "device_id=4", "custom=:smile:\t\b\x1b[1m", "--key", ADMIN_KEY)
    digest = sha1_hex("4:smile:\t\b\x1b[1m")
    assert done.stdout == (
        f"signed string: 4:smile:\t\b\x1b[1m\nhash:          {digest}\n"
        f"curl http://127.0.0.1:8000{UPDATE} --data-urlencode device_id=4 "
        f"--data-urlencode 'custom=:smile:\t\b\x1b[1m' -d hash={digest}\n"
    )


def test_sign_signs_an_old_name_whose_name_is_empty() -> None:
    values = ["device_id=4", "callflow_action=", "action=empty", "state=busy"]
    done = run("sign", "device_callflow_update", *values, "--key", ADMIN_KEY)
    assert done.stdout.startswith(f"signed string: 4emptybusy\nhash:          {sha1_hex('4emptybusy')}\n")


def test_sign_refuses_what_it_does_not_know() -> None:
    assert run("sign", "user_details_get", "u=admin", "--key", "k").returncode == 2
    assert run("sign", "device_callflow_get", "device_id", "--key", "k").returncode == 2


def test_what_the_operator_can_mend_is_told_in_one_sentence(
    create_database: Callable[..., SecretStr], demo_url: SecretStr
) -> None:
    empty = create_database()
    missing = SecretStr(re.sub(r"callflow_test_\w+", "callflow_test_missing", demo_url.get_secret_value()))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failures = [
            (run("serve", "--port", port, url=demo_url), f"Cannot serve on 127.0.0.1 port {port}: Address already"),
            (run("serve", "--port", "0", url=empty), "The database has no tables yet; run 'callflow-service migrate'."),
            (run("serve", "--port", "0", url=missing), "The database cannot be used: "),
            (run("serve", "--port", "0", url=DEAD), "The database cannot be used: "),
            (run("migrate", url=DEAD), "The database cannot be used: "),
            (run("serve", url=demo_url, CALLFLOW_PORT="canary"), "The setting CALLFLOW_PORT is wrong: "),
            (run("serve", url=demo_url, CALLFLOW_PROT="canary"), "Unknown setting CALLFLOW_PROT; "),
        ]
    for done, sentence in failures:
        assert done.returncode == 1
        assert done.stderr.startswith(f"callflow-service: {sentence}")
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr + done.stdout
        assert "canary" not in done.stderr + done.stdout


def test_a_database_is_migrated_and_loaded_from_the_command_line(
    create_database: Callable[..., SecretStr], tmp_path: Path
) -> None:
    url = create_database()
    assert run("migrate", url=url).stdout.startswith("The database is at revision 0")
    file = tmp_path / "world.yaml"
    file.write_text("accounts:\n- {id: 1, username: admin, role: admin, api_key: '0123456789abcdef'}\n", "utf-8")
    for arguments in (["--dry-run"], []):
        done = run("load", *arguments, str(file), url=url)
        assert done.returncode == 0
        assert (done.stdout.splitlines()[-1] == "Nothing was changed.") == bool(arguments)
        assert "0123456789abcdef" not in done.stdout + done.stderr
    file.write_text("accounts:\n- {id: x}\n", "utf-8")
    done = run("load", str(file), url=url)
    assert (done.returncode, "world.yaml:2: " in done.stderr) == (1, True)


def test_the_demo_is_served_and_its_printed_request_works_in_a_shell(
    create_database: Callable[..., SecretStr], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("w") as out:
        service = subprocess.Popen(
            [*PROGRAM, "serve", "--demo", "--port", "0"], env=environment(create_database(), {}), stdout=out, stderr=out
        )
    try:
        while not (found := re.search(r"^Try: (.+)$", log.read_text(), re.MULTILINE)):
            assert service.poll() is None
            time.sleep(0.1)
        shell = subprocess.run(
            ["sh", "-c", f"{found[1]} --silent --retry 9 --retry-connrefused"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert shell.stdout == got(device="SIP/101")[2]
        address = re.search(r"http://[\d.:]+", found[1])
        assert address
        secrets = {"p": "canary-password", "API_Secret_Key": "canary-key"}
        httpx.post(f"{address[0]}{GET}", params={**get(), **secrets})
        httpx.post(f"{address[0]}{UPDATE}", data={**update(), **secrets})
    finally:
        service.terminate()
        assert service.wait(30) == 0
    lines = log.read_text()
    assert lines.count('"event":"request"') == 3
    for secret in ("canary", get()["hash"], update()["hash"]):
        assert secret not in lines
