"""The requests of the benchmark: made and signed once, so that every program gets the same."""

import base64
import random
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from callflow_service.domain.signature import UPDATE_ORDER
from world import ADMIN_KEY, FIRST_DID, SWITCH

UPDATE_PATH: Final = "/billing/api/device_callflow_update"
LOOKUP_PATH: Final = "/switch/kamailio"

_SEED: Final = 20_240_601
_BASIC: Final = base64.b64encode(":".join(SWITCH).encode()).decode()
_STATES: Final = ("before_call", "no_answer", "failed", "busy")


def write_updates(file: Path, *, devices: int, count: int) -> None:
    """Write signed updates of odd devices, all over the world and in all states; a line is path, nothing, form."""
    chance = random.Random(_SEED)
    with file.open("w") as lines:
        for _ in range(count):
            values = _update(chance, devices)
            signed = "".join(values.get(name, "") for name in UPDATE_ORDER) + ADMIN_KEY
            digest = sha1(signed.encode(), usedforsecurity=False).hexdigest()
            lines.write(f"{UPDATE_PATH}\t\t{urlencode({'u': 'admin', **values, 'hash': digest})}\n")


def write_lookups(file: Path, *, devices: int, count: int) -> None:
    """Write questions of a switch about even devices; a line is path, Authorization, form."""
    chance = random.Random(_SEED)
    with file.open("w") as lines:
        for _ in range(count):
            lines.write(f"{LOOKUP_PATH}\tBasic {_BASIC}\t{urlencode(_question(chance, devices))}\n")


def write_forwarded(file: Path, *, devices: int, count: int, with_rules: bool) -> None:
    """Likewise about devices that forward before the call: those with ten rules, or those without any."""
    chance = random.Random(_SEED)
    first = 0 if with_rules else 12
    with file.open("w") as lines:
        for _ in range(count):
            device = chance.randrange(first, devices - 23, 24) + chance.choice((2, 6))
            lines.write(f"{LOOKUP_PATH}\tBasic {_BASIC}\t{urlencode(_call(chance) | {'device': str(device)})}\n")


def read(file: Path) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """The requests of a file: path, headers, body."""
    for line in file.read_text().splitlines():
        path, authorization, form = line.split("\t")
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        yield path, headers | ({"Authorization": authorization} if authorization else {}), form.encode()


def _update(chance: random.Random, devices: int) -> dict[str, str]:
    device = chance.randrange(1, devices, 2)
    target, number = chance.randint(1, devices), f"+3706{chance.randrange(10**7):07}"
    forward = {"device_id": str(device), "callflow_action": "forward", "state": chance.choice(_STATES)}
    fax = chance.randrange(5, devices, 10)
    changes: tuple[dict[str, str], ...] = (
        {"forward_to_device": str(target)},
        {"forward_to_device": str(target)},
        {"forward_to_device": str(target), "src_callerid": "true"},
        {"external_number": number, "custom": f"Front desk <{target}>"},
        {"external_number": number, "did_id": str(device)},
        {"callflow_action": "fax_detect", "state": "before_call", "fax_device": str(fax)},
        {"callflow_action": "voicemail"},
        {"callflow_action": "empty"},
    )
    return forward | chance.choice(changes)


def _call(chance: random.Random) -> dict[str, str]:
    return {
        "call_id": f"{chance.getrandbits(64):016x}-bench",
        "caller_number": f"3705{chance.randrange(10**7):07}",
        "caller_name": "Caller",
    }


def _question(chance: random.Random, devices: int) -> dict[str, str]:
    twelve = chance.randrange(0, devices - 11, 12)
    call = _call(chance)
    asked: tuple[dict[str, str], ...] = (
        {"device": str(twelve + 2)},
        {"device": str(twelve + 2)},
        {"called": str(FIRST_DID + twelve + 1)},
        {"device": str(twelve + 6)},
        {"device": str(twelve + 6)},
        {"device": str(twelve + 4), "state": "no_answer"},
        {"device": str(twelve + 8)},
        {"device": str(twelve + 8)},
    )
    return call | chance.choice(asked)
