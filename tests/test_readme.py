"""What the README says is so."""

import asyncio
import re
import shlex
import subprocess
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from callflow_service.settings import PREFIX, Settings
from mor_requests import StartService
from program import PROGRAM, environment

README = Path(__file__).parents[1] / "README.md"


def shown(default: object) -> str:
    if default is PydanticUndefined or default == () or default == SecretStr(""):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{','.join(default)}`" if isinstance(default, tuple) else f"`{default}`"


def settings_table() -> str:
    rows = [
        f"| `{PREFIX}{name.upper()}` | {shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def test_the_readme_has_every_setting_with_its_default_and_meaning() -> None:
    table = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", README.read_text(), re.DOTALL)
    assert table is not None
    assert table[1] == settings_table()


def walk() -> list[tuple[str, str]]:
    """The commands of the walk, each with its answer."""
    block = re.search(r"<!-- walk -->\n```console\n(.*?)```\n<!-- /walk -->", README.read_text(), re.DOTALL)
    assert block is not None
    steps = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block[1], re.MULTILINE)
    return [(command, answer) for command, answer in steps]


def pattern(answer: str) -> str:
    """An answer as it is shown: its blanks and line ends do not matter, and `...` stands for anything."""
    return ".*?".join(re.escape("".join(part.split())) for part in answer.split("..."))


async def test_the_walk_through_the_api_is_answered_as_it_is_shown(
    start_service: StartService, own_url: SecretStr
) -> None:
    service = await start_service(own_url)
    commands = [
        command.replace(".venv/bin/callflow-service", shlex.join(PROGRAM)).replace(
            ":8000/", f":{service.base_url.port}/"
        )
        for command, _ in walk()
    ]
    script = "\nprintf '\\0'\n".join(commands)
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash"],
        input=script,
        capture_output=True,
        text=True,
        env=environment(own_url, {}),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split("\0")
    assert len(answers) == 5
    for (command, shown), answer in zip(walk(), answers, strict=True):
        assert re.fullmatch(pattern(shown), "".join(answer.split())), f"{command}\n{answer}"
