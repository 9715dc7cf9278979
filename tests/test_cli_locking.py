"""The commands for locks, schedules and caller lists, run as a program."""

import asyncio
import json

from pydantic import SecretStr

from postgresql import fetch
from program import run


def test_an_account_is_locked_and_opened_again(own_url: SecretStr) -> None:
    assert run("flow", "set", "200", "busy", "forward", "--to-number", "+37061234567", url=own_url).returncode == 0
    locked = run("lock", "reseller", url=own_url)
    assert (locked.returncode, locked.stdout) == (0, "States that led to numbers and are empty now: 1.\n")
    opened = run("unlock", "reseller", url=own_url)
    assert opened.stdout == "States that are as they were: 1; left alone: 0.\n"
    run("lock", "reseller", url=own_url)
    run("flow", "set", "200", "busy", "voicemail", url=own_url)
    opened = run("unlock", "reseller", url=own_url)
    assert opened.stdout == ("States that are as they were: 0; left alone: 1.\n  device 200 busy: was changed since\n")
    statement = "SELECT DISTINCT face, account_id FROM callflow_history"
    assert [tuple(row) for row in asyncio.run(fetch(own_url, statement))] == [("cli", 1)]


def test_an_account_that_is_not_there_cannot_be_locked(own_url: SecretStr) -> None:
    done = run("lock", "nobody", url=own_url)
    assert (done.returncode, done.stderr) == (1, "callflow-service: There is no account nobody.\n")


def test_schedules_and_caller_lists_are_added_and_listed(own_url: SecretStr) -> None:
    weekly = json.dumps([{"days": ["mon"], "from": "09:00", "to": "17:00"}])
    done = run(
        "schedules", "add", "name=Office", "owner=user1", f"weekly:={weekly}", "holidays.country=LT", url=own_url
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(run("schedules", "list", "--owner", "user1", "--json", url=own_url).stdout)["items"]
    assert [(each["id"], each["name"], each["holidays"]["country"]) for each in shown] == [(1, "Office", "LT")]
    done = run("caller-lists", "add", "name=Family", "owner=user1", "entries=+37061234567, +3706*", url=own_url)
    assert done.returncode == 0, done.stderr
    table = run("caller-lists", "list", url=own_url).stdout.splitlines()
    assert table[0].split() == ["id", "name", "owner", "entries"]
    assert table[1].split() == ["1", "Family", "user1", "+37061234567,", "+3706*"]
    assert run("caller-lists", "delete", "1", url=own_url).stdout == "The caller list 1 is deleted.\n"
