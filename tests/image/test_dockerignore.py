"""What the Dockerfile copies is not held back by .dockerignore."""

import re
import shlex
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]


def copied() -> list[str]:
    """The paths of the source tree that the Dockerfile's COPY lines name."""
    lines = [shlex.split(line) for line in (TREE / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    return [path for line in lines if not line[1].startswith("--from") for path in line[1:-1]]


def is_ignored(path: str, rules: list[str]) -> bool:
    """Whether a path is left out: the last rule that matches it, or a folder above it, decides."""
    ignored = False
    for rule in rules:
        pattern = re.escape(rule.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{pattern}(/.*)?", path):
            ignored = not rule.startswith("!")
    return ignored


def rules() -> list[str]:
    lines = (TREE / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("path", copied())
def test_every_path_that_the_image_is_built_from_gets_to_the_builder(path: str) -> None:
    files = [file for file in (TREE / path).rglob("*") if file.is_file()] or [TREE / path]
    wanted = [str(file.relative_to(TREE)) for file in files if file.exists() and "__pycache__" not in file.parts]
    assert wanted != []
    assert [file for file in wanted if is_ignored(file, rules())] == []


def test_nothing_else_gets_to_the_builder() -> None:
    assert {rule[1:] for rule in rules() if rule.startswith("!")} == set(copied())
    others = ["tests/image/test_dockerignore.py", ".env", ".git/config", "src/callflow_service/__pycache__/app.pyc"]
    assert [path for path in others if not is_ignored(path, rules())] == []
