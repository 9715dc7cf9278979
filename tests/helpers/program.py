"""The service's program, with an environment of its own."""

import os
import subprocess
import sys

from pydantic import SecretStr

from encryption import KEY

PROGRAM = [sys.executable, "-m", "callflow_service.cli"]


def environment(url: SecretStr | None, settings: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    ours = {"CALLFLOW_ENCRYPTION_KEYS": KEY.get_secret_value(), "CALLFLOW_DRAIN_SECONDS": "0"}
    return inherited | ours | ({"CALLFLOW_DATABASE_URL": url.get_secret_value()} if url else {}) | settings


def run(
    *arguments: str, url: SecretStr | None = None, stdin: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=environment(url, settings),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
