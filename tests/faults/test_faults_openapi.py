"""The OpenAPI document is true: schemathesis asks what it describes, and is answered as it says."""

import asyncio
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from pydantic import SecretStr

from callflow_service.domain.tokens import new_token, token_hash
from mor_requests import StartService
from own_demo import open_own_demo
from switch_questions import SWITCH

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

# Left out: what asks that bad data be answered with 4xx, for MOR's errors have status 200 and a switch is told to carry
# on; and what follows links, of which there are none.
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "positive_data_acceptance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
ROLES: Final = {
    "admin": ("NULL", "SELECT"),
    "reseller": ("1", "UPDATE account SET owner_id = 987654321 WHERE username = 'user1'"),
    "user": ("1", "UPDATE device SET owner_id = 987654321 WHERE owner_id = 20"),
    "accountant": ("1", "SELECT"),
}
"""Who asks, and has or sees what the examples name."""

HERE: Final = Path(__file__).parent

# A body that is well formed can name what is not there, and a state's address takes more methods than its neighbours'.
JSON_CHECKS: Final = tuple(
    each
    for each in CHECKS
    if each not in {"positive_data_acceptance", "unsupported_method", "allow_header_conformance"}
)


async def ask(url: str, checks: Sequence[str], options: Sequence[str], folder: Path) -> tuple[int | None, str]:
    """Have schemathesis ask what the document describes: its exit status, and what it tells."""
    usual = ("--phases", "examples,coverage,fuzzing", "--seed", "5", "--generation-database", "none", "--no-color")
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("st")),
        "run",
        f"{url}/openapi.json",
        "--checks",
        ",".join(checks),
        *usual,
        *options,
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": f"{HERE}:{HERE.parent / 'helpers'}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told = (await process.communicate())[0].decode()
    return process.returncode, told


async def test_every_call_answers_as_the_document_says(
    start_service: StartService,
    create_database: Callable[..., SecretStr],
    migrated_url: SecretStr,
    tmp_path: Path,
    figure: "Figure",
) -> None:
    async with open_own_demo(create_database, migrated_url) as demo:
        service = await start_service(demo.url, allow_get=True)
        options = ("--exclude-path-regex", "^/v1/", "--auth", ":".join(SWITCH), "--max-examples", "40")
        status, told = await ask(str(service.base_url), CHECKS, options, tmp_path)
        changes = await demo.database.fetchval("SELECT count(*) FROM callflow_history")
    assert status == 0, told
    cases = re.search(r"([0-9,]+) generated", told)
    figure("cases made from the OpenAPI document", cases[1] if cases else told)
    figure("updates among them that succeeded", changes)
    assert "Tested: 14" in told, told
    assert changes > 0


@pytest.mark.parametrize("role", [*ROLES, "nobody"])
async def test_every_call_of_the_json_api_answers_as_the_document_says_for_each_role(  # noqa: PLR0917 - fixtures
    start_service: StartService,
    create_database: Callable[..., SecretStr],
    migrated_url: SecretStr,
    tmp_path: Path,
    figure: "Figure",
    role: str,
) -> None:
    async with open_own_demo(create_database, migrated_url) as demo:
        service = await start_service(demo.url)
        # A stream has no end that could be waited for.
        options = ["--include-path-regex", "^/v1/", "--exclude-path-regex", "^/v1/changes/stream$"]
        options += ["--max-examples", "10"]
        if role in {"reseller", "user", "accountant"}:
            # What is wrong with a request is looked at before its caller's role: the admin's cases cover that.
            options += ["--phases", "examples,fuzzing"]
        if role in ROLES:
            token = new_token()
            owner, stage = ROLES[role]
            # An account and a token with ids that are not hit upon, or the requests would lock themselves out.
            await demo.database.execute(
                "INSERT INTO account (id, username, name, role, owner_id, pbx_addon, api_enabled, blocked)"  # noqa: S608 - ours
                f" VALUES (987654321, 'asking', 'Asking', '{role}', {owner}, true, true, false); {stage}"
            )
            await demo.database.execute(
                "INSERT INTO token (id, account_id, name, scope, token_hash) OVERRIDING SYSTEM VALUE"
                " VALUES (987654321, 987654321, 'test', 'write', $1)",
                token_hash(token),
            )
            options += ["-H", f"Authorization: Bearer {token}"]
        status, told = await ask(str(service.base_url), JSON_CHECKS, options, tmp_path)
        paths = (await service.get("/openapi.json")).json()["paths"]
    assert status == 0, told
    cases = re.search(r"([0-9,]+) generated", told)
    figure(f"cases made from the OpenAPI document of the JSON API, for {role}", cases[1] if cases else told)
    calls = sum(len(item) for path, item in paths.items() if path.startswith("/v1/"))
    assert f"Tested: {calls - 1}\n" in told, told
