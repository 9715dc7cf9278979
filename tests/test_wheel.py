"""The wheel: the same bytes from the same source, and whole without the source tree."""

import os
import shutil
import subprocess
import sys
import tarfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from callflow_service import __version__
from clusters import free_port
from encryption import KEY
from mor_requests import GET, answer, get, got

TREE = Path(__file__).parents[1]
SOURCE = ("alembic", "deploy", "docs", "requirements", "src", "switches")


def built_in(tree: Path, folder: Path) -> dict[str, bytes]:
    """What a build of a source tree leaves in a folder, by name."""
    command = (sys.executable, "-m", "hatchling", "build", "--directory", str(folder))
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    built_in(TREE, folder)
    return folder


def test_another_copy_of_the_source_at_another_time_makes_the_same_bytes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    for name in SOURCE:
        # Without their times, which `copytree` would keep.
        shutil.copytree(TREE / name, copy / name, copy_function=shutil.copyfile)
    for file in (".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "pyproject.toml"):
        shutil.copyfile(TREE / file, copy / file)
    (copy / ".env").write_text("POSTGRES_PASSWORD=secret")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert built_in(copy, tmp_path / "dist") == {file.name: file.read_bytes() for file in built.iterdir()}


def test_the_source_archive_holds_what_is_shipped_and_nothing_that_lies_about(built: Path) -> None:
    with tarfile.open(built / f"callflow_service-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2].partition("/")[0] for name in archive.getnames()}
    files = {".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "PKG-INFO", "pyproject.toml"}
    assert names == {*SOURCE, *files}


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, in an environment that holds the wheel and the packages of its lock file."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "-qq",
        "--python",
        f"{folder}/bin/python",
        "install",
    )
    lock = ("--require-hashes", "--no-deps", "-r", f"{TREE}/requirements/run.lock")
    subprocess.run([*pip, *lock], check=True)
    subprocess.run([*pip, "--no-deps", *built.glob("*.whl")], check=True)
    return folder / "bin" / "callflow-service"


def run(command: Path, *arguments: str, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    return subprocess.run(
        [command, *arguments], env=clean | environment, cwd="/", check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_it_tells_its_version(installed: Path) -> None:
    assert run(installed, "--version") == f"callflow-service {__version__}\n"


def test_a_shell_completes_its_commands(installed: Path) -> None:
    assert "complete -o default -F" in run(
        installed, "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    asked = {"COMP_WORDS": "callflow-service mi", "COMP_CWORD": "1"}
    assert run(installed, _CALLFLOW_SERVICE_COMPLETE="complete_bash", **asked).split() == ["migrate"]


def test_it_migrates_loads_the_demo_and_serves_it(installed: Path, create_database: Callable[[], SecretStr]) -> None:
    port = free_port()
    settings = {
        "CALLFLOW_DATABASE_URL": create_database().get_secret_value(),
        "CALLFLOW_ENCRYPTION_KEYS": KEY.get_secret_value(),
        "CALLFLOW_DRAIN_SECONDS": "0",
    }
    command = [installed, "serve", "--demo", "--port", str(port)]
    serving = subprocess.Popen(command, env=os.environ | settings, cwd="/", stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout
        while not serving.stdout.readline().startswith("Serving on "):
            assert serving.poll() is None
        for _ in range(500):
            try:
                page = httpx.post(f"http://127.0.0.1:{port}{GET}", data=get())
                break
            except httpx.TransportError:
                time.sleep(0.02)
        assert answer(page) == got()
        explorer = httpx.get(f"http://127.0.0.1:{port}/docs")
        assert (explorer.status_code, "swagger-ui" in explorer.text) == (200, True)
    finally:
        serving.terminate()
        serving.communicate(timeout=20)
