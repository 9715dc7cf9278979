"""Schedules, caller lists and policies in a world file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from callflow_service.intake.applying import Counts
from callflow_service.resources.models import Section
from callflow_service.world.errors import WorldError
from callflow_service.world.loading import LoadReport, load_world
from encryption import KEYS
from postgresql import asyncpg_url

WORLD = """
accounts:
  - { id: 1, username: admin, role: admin, country: LT, time_zone: Europe/Vilnius }
  - id: 20
    username: user1
    role: user
    owner: admin
    number_pattern: '\\+370\\d{8}|1\\d{2}'
    targets:
      allow: [+370, 1]
      deny:
        - +370700
      max_new_per_day: 20
schedules:
  - id: 3
    name: Office
    owner: user1
    weekly:
      - { days: [mon, tue], from: "09:00", to: 17:00 }
      - days:
          - sat
        from: 22:00
        to: 06:00
    holidays: { country: LT }
    exceptions:
      - { from: 2026-12-24, to: 2026-12-26, open: false }
      - { from: 2026-12-31, open: true, hours: [{ from: 10:00, to: 14:00 }] }
  - { id: 4, name: Never, owner: admin }
caller_lists:
  - { id: 7, name: Family, owner: user1, entries: [+37061234567, '+370 6*', anonymous] }
  - { id: 8, name: Nobody, owner: admin }
"""
TARGETS = ("allow", "deny", "max_length", "max_new_per_hour", "max_new_per_day", "hold_minutes")
ENTRY = "must be a number such as +37061234567, a prefix such as +3706*, or anonymous"


@pytest.fixture
def url(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> SecretStr:
    return create_database(template=migrated_url)


async def load(url: SecretStr, folder: Path, text: str, *, dry_run: bool = False) -> LoadReport:
    file = folder / "world.yaml"
    file.write_text(text)
    return await load_world(url, file, keys=KEYS, dry_run=dry_run)


async def mistake(url: SecretStr, folder: Path, text: str) -> str:
    with pytest.raises(WorldError) as caught:
        await load(url, folder, text)
    return str(caught.value).removeprefix(f"{folder}/world.yaml:")


async def rows(url: SecretStr, statement: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(asyncpg_url(url))
    try:
        found = await connection.fetch(f"SELECT to_jsonb(found) FROM ({statement}) AS found")  # noqa: S608 - constants
        return [json.loads(row[0]) for row in found]
    finally:
        await connection.close()


async def test_what_a_file_says_is_stored_whole(url: SecretStr, tmp_path: Path) -> None:
    await load(url, tmp_path, WORLD)
    assert await rows(url, "SELECT time_zone, country, number_pattern, targets FROM account ORDER BY id") == [
        {"time_zone": "Europe/Vilnius", "country": "LT", "number_pattern": None, "targets": None},
        {
            "time_zone": None,
            "country": None,
            "number_pattern": r"\+370\d{8}|1\d{2}",
            "targets": {
                "allow": ["+370", "1"],
                "deny": ["+370700"],
                "max_length": None,
                "max_new_per_hour": None,
                "max_new_per_day": 20,
                "hold_minutes": 0,
            },
        },
    ]
    assert await rows(url, "SELECT * FROM schedule ORDER BY id") == [
        {
            "id": 3,
            "name": "Office",
            "owner_id": 20,
            "time_zone": None,
            "weekly": [
                {"days": ["mon", "tue"], "from": "09:00", "to": "17:00"},
                {"days": ["sat"], "from": "22:00", "to": "06:00"},
            ],
            "holidays": {"country": "LT", "region": None, "open": False},
            "exceptions": [
                {"from": "2026-12-24", "to": "2026-12-26", "open": False, "hours": []},
                {
                    "from": "2026-12-31",
                    "to": "2026-12-31",
                    "open": True,
                    "hours": [{"from": "10:00", "to": "14:00"}],
                },
            ],
        },
        {
            "id": 4,
            "name": "Never",
            "owner_id": 1,
            "time_zone": None,
            "weekly": [],
            "holidays": None,
            "exceptions": [],
        },
    ]
    assert await rows(url, "SELECT id, owner_id, entries FROM caller_list ORDER BY id") == [
        {"id": 7, "owner_id": 20, "entries": ["+37061234567", "+3706*", "anonymous"]},
        {"id": 8, "owner_id": 1, "entries": []},
    ]
    assert await rows(url, "SELECT * FROM caller_list_entry ORDER BY entry") == [
        {"list_id": 7, "entry": "3706*"},
        {"list_id": 7, "entry": "37061234567"},
        {"list_id": 7, "entry": "anonymous"},
    ]


async def test_loading_it_again_changes_nothing(url: SecretStr, tmp_path: Path) -> None:
    await load(url, tmp_path, WORLD)
    report = await load(url, tmp_path, WORLD)
    counts = [report.counts[section] for section in (Section.ACCOUNTS, Section.SCHEDULES, Section.CALLER_LISTS)]
    assert counts == [Counts(0, 0, 2)] * 3


async def test_a_dry_run_tells_what_would_change(url: SecretStr, tmp_path: Path) -> None:
    await load(url, tmp_path, WORLD)
    changed = (
        WORLD.replace("country: LT, time", "country: LV, time")
        .replace("name: Never, owner: admin", "name: Never, owner: user1, time_zone: UTC")
        .replace("[+37061234567, ", "[+371*, 101, ")
    )
    report = await load(url, tmp_path, changed + "  - { id: 9, name: New, owner: admin }\n", dry_run=True)
    assert report.differences == [
        '~ account 1 country: "LT" -> "LV"',
        '~ schedule 4 owner: "admin" -> "user1", time_zone: nothing -> "UTC"',
        "~ caller list 7 entries: 2 added, 1 removed",
        "+ caller list 9 New",
    ]
    assert (await load(url, tmp_path, WORLD)).counts[Section.SCHEDULES] == Counts(0, 0, 2)


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ("country: LT,", "country: Lt,", "3: accounts[0].country: must be a country's ISO code such as LT."),
        (
            "time_zone: Europe/Vilnius",
            "time_zone: Vilnius",
            "3: accounts[0].time_zone: must be a time zone such as Europe/Vilnius.",
        ),
        (
            "      allow: [+370, 1]",
            "      allow: [+370, 1x]",
            "10: accounts[1].targets.allow: must be a + and up to 15 digits, or 1 to 15 of 0-9 * #.",
        ),
        (
            "      max_new_per_day: 20",
            "      max_new_per_day: many",
            "13: accounts[1].targets.max_new_per_day: must be a whole number.",
        ),
        (
            "      max_new_per_day: 20",
            "      max_new_per_week: 20",
            f"13: accounts[1].targets.max_new_per_week: is not known here; the keys are {', '.join(TARGETS)}.",
        ),
        (
            "        from: 22:00\n",
            "        from: 25:00\n",
            "22: schedules[0].weekly.1.from: must be a time of day such as 08:30.",
        ),
        (
            "          - sat\n",
            "          - sam\n",
            "21: schedules[0].weekly.1.days.0: must be mon, tue, wed, thu, fri, sat or sun.",
        ),
        (
            "        to: 06:00\n",
            "        to: 22:00\n",
            "20: schedules[0].weekly.1: a window must end at another time than it begins; all day is 00:00 to 24:00.",
        ),
        (
            "        to: 06:00\n",
            "        until: 06:00\n",
            "20: schedules[0].weekly.1.to: is missing.",
        ),
        (
            "holidays: { country: LT }",
            "holidays: { country: LT, region: X }",
            "24: schedules[0].holidays: the holidays of LT are the same everywhere; leave the region out.",
        ),
        (
            "holidays: { country: LT }",
            "holidays: LT",
            "24: schedules[0].holidays: must be a mapping with the keys country, region, open.",
        ),
        (
            "      - { from: 2026-12-24, to: 2026-12-26, open: false }",
            "      - { from: 2026-12-24, to: 2026-12-23, open: false }",
            "26: schedules[0].exceptions.0: must not end before it begins.",
        ),
        (
            "hours: [{ from: 10:00, to: 14:00 }]",
            "hours: [{ from: 10:00, to: 14 }]",
            "27: schedules[0].exceptions.1.hours.0.to: must be a time of day such as 08:30.",
        ),
        (
            "hours: [{ from: 10:00, to: 14:00 }]",
            "hours: [[[[[]]]]]",
            "27: schedules[0].exceptions.1.hours.0.0: must be a single value, not a list or a mapping.",
        ),
        (
            "    owner: user1\n    weekly",
            "    owner: nobody\n    weekly",
            "17: schedules[0].owner: there is no account nobody.",
        ),
        ("id: 4, name: Never", "id: 3, name: Never", "28: schedules[1].id: is the same as on line 15."),
        (
            "[+37061234567,",
            "[alice,",
            f"30: caller_lists[0].entries: {ENTRY}.",
        ),
        (
            "name: Nobody, owner: admin",
            "name: Nobody, owner: none",
            "31: caller_lists[1].owner: there is no account none.",
        ),
    ],
)
async def test_what_is_wrong_is_told_with_its_line_and_changes_nothing(
    url: SecretStr, tmp_path: Path, right: str, wrong: str, sentence: str
) -> None:
    assert right in WORLD
    assert await mistake(url, tmp_path, WORLD.replace(right, wrong)) == sentence
    assert await rows(url, "SELECT id FROM account") == []
